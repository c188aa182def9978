"""What holds for every test: types are checked, and imports are not searched for garbage.

The types' checker is put in place before any test imports the packages that it checks. With several
workers pytest reads this, and `tests/conftest.py`, in the process that hands tests out too, and the
workers wait for it: neither imports torch.
"""

import gc

import pytest

from tests import typechecking

typechecking.install()
gc.disable()


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> None:
    """Set aside what the imports made, which stays until the end.

    A full search for garbage would go through it each time: a seventh of the suite's time. Full
    searches are seldom, too: most of what is there stays until its file's tests are done.
    """
    gc.freeze()
    gc.set_threshold(2000, 10, 100)
    gc.enable()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Types are checked in the first calls of each test."""
    typechecking.begin_test()
