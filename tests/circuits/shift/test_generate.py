"""Sets of texts that cannot be drawn."""

import pytest

from circuits.shift.generate import draw_sets


def test_too_few_different_texts_are_refused():
    def write(*_: object) -> str:
        return "word " * 30

    with pytest.raises(ValueError, match="no further text about 'nurse' .* ask for fewer"):
        draw_sets("one", write, ("nurse", "judge"), (), 4, 0)
