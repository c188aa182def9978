"""Features' examples come from little text: looking at it is most of a small discovery.

What an estimate times is timed for a moment.
"""

import pytest

from tests.limits import set_size


def shorten(patch: pytest.MonkeyPatch) -> None:
    set_size(patch, "circuits.runs.discover_run.EXAMPLE_TOKENS", 2048)
    set_size(patch, "hooked_qwen.cost.LONG_ENOUGH", 0.01)
