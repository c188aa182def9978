"""Texts are counted and hashed while they are read, and held against what was read before."""

import pytest

from hooked_qwen.texts_read import TextsRead

TEXTS = ["one", "two", "three", "\ud800"]


def position_after(texts, n=None):
    read = TextsRead(texts)
    for number, _ in enumerate(iter(read), 1):
        if number == n:
            break
    return read.position


def test_texts_come_as_they_are_and_are_counted():
    read = TextsRead(TEXTS)
    assert list(read) == TEXTS
    assert read.position.texts == 4
    assert read.position == position_after(TEXTS)


def test_where_texts_begin_and_their_order_matter():
    for others in (["onetwo", "three"], ["two", "one", "three"], ["one", "two", "thre", "e"]):
        assert position_after(others).hash != position_after(TEXTS[:3]).hash


def test_the_same_texts_and_more_go_on():
    before = position_after(TEXTS, 2)
    assert list(TextsRead([*TEXTS, "more"], before=before)) == [*TEXTS, "more"]


@pytest.mark.parametrize("others", [["one", "other", "three"], ["one"], []])
def test_other_or_fewer_texts_are_refused(others):
    before = position_after(TEXTS, 2)
    with pytest.raises(ValueError, match="not the one that was read before: the first 2 texts"):
        list(TextsRead(others, before=before))
