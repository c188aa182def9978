"""Features' examples come from little text, and dictionaries are judged on little.

Looking at it is most of a small discovery, and half of a small training. What an estimate times is
timed for a moment.
"""

from functools import partial

import pytest

from circuits.runs import commands
from hooked_qwen import cost
from saes.training import run


def shorten(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(commands, "EXAMPLE_TOKENS", 2048)
    patch.setattr(run, "held_out_blocks", partial(_few, run.held_out_blocks))
    patch.setattr(cost, "LONG_ENOUGH", 0.01)


def _few(blocks, texts, model, *, tokens):
    return blocks(texts, model, tokens=min(tokens, 512))
