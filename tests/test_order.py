"""The longest files of tests are begun first."""

from pathlib import Path

from tests.conftest import LONGEST, place

ROOT = Path(__file__).parents[1]


def test_the_longest_files_are_there():
    assert [name for name in LONGEST if not (ROOT / name).is_file()] == []


def test_they_come_before_all_others(request):
    places = [place(item) for item in request.session.items]
    assert places[-1] == len(LONGEST)
    assert places == sorted(places)
