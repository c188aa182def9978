"""What holds for every test: types are checked, and what was imported is not searched for garbage.

The types' checker is put in place before any test imports the packages that it checks.
"""

import gc

import pytest

from tests import typechecking

typechecking.install()
gc.disable()


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> None:
    """Set aside what the imports made, which stays until the end.

    A full search for garbage would go through it each time: a seventh of the suite's time.
    """
    gc.collect()
    gc.freeze()
    gc.enable()
