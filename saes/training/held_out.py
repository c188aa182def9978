"""Which text is trained on, and which is held out to judge on: the first 40,000 characters."""

from collections.abc import Iterator

from hooked_qwen.texts import Corpus

HELD_OUT_CHARACTERS = 40_000


def training_text(texts: Corpus) -> Iterator[str]:
    """What is not held out, again and again; raises `ValueError` when that is nothing."""
    while True:
        rest = _after_held_out(texts())
        first = next(rest, None)
        if first is None:
            raise ValueError(
                f"the text has at most {HELD_OUT_CHARACTERS:,} characters, which are held out "
                "for judging: give more text to train on"
            )
        yield first
        yield from rest


def held_out_text(texts: Iterator[str]) -> Iterator[str]:
    """The first 40,000 characters, which dictionaries are judged on."""
    taken = 0
    for text in texts:
        if taken >= HELD_OUT_CHARACTERS:
            return
        yield text[: HELD_OUT_CHARACTERS - taken]
        taken += len(text)


def _after_held_out(texts: Iterator[str]) -> Iterator[str]:
    taken = 0
    for text in texts:
        rest = text[max(0, HELD_OUT_CHARACTERS - taken) :]
        taken += len(text)
        if rest:
            yield rest
