"""Fixtures of every test.

With several workers pytest reads this in the process that hands tests out too, and the workers wait
for it: nothing here imports torch before a test does.
"""

import os
from contextlib import suppress
from functools import cache, partial
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")

LONGEST = (
    "tests/circuits/cli/test_app.py",
    "tests/test_readme.py",
    "tests/circuits/test_devices.py",
    "tests/circuits/render/pages/circuit/test_page.py",
    "tests/circuits/render/pages/circuit/test_page_picture.py",
    "tests/circuits/runs/test_needs_checks.py",
    "tests/circuits/render/pages/circuit/test_page_state.py",
    "tests/circuits/render/pages/feature/test_feature_page.py",
    "tests/circuits/test_memory.py",
    "tests/circuits/features/test_detectors.py",
    "tests/circuits/runs/test_folder.py",
    "tests/circuits/discovery/test_sparse_feature.py",
    "tests/circuits/runs/test_estimate_checks.py",
    "tests/saes/training/test_run.py",
    "tests/saes/training/test_recovery.py",
    "tests/circuits/test_notebook.py",
    "tests/circuits/edits/test_bake.py",
    "tests/circuits/edits/test_edited_by_operations.py",
    "tests/circuits/runs/test_replacement_run.py",
    "tests/circuits/runs/test_shift_run.py",
    "tests/circuits/test_demo.py",
    "tests/circuits/shift/test_shift.py",
    "tests/saes/training/test_device.py",
    "tests/circuits/render/pages/circuit/test_page_attention.py",
)
"Files that take nine seconds and more, the longest first."


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files are begun first: no worker is left with one of them when others are done.

    xdist gives files out in this order with `--no-loadscope-reorder`; else by numbers of tests.
    """
    items.sort(key=place)


def place(item: pytest.Item) -> int:
    file = item.nodeid.partition("::")[0]
    return LONGEST.index(file) if file in LONGEST else len(LONGEST)


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Beside CUDA the pretend device's package is not imported.

    That registers it, and no backward pass on CUDA works in a process where it is.
    """
    if collection_path.name != "pretend":
        return None
    import torch

    return torch.cuda.is_available() or None


@pytest.fixture(scope="session")
def pretend():
    """The module of a test device that complains where CUDA would: see its docstring."""
    import torch

    if torch.cuda.is_available():
        pytest.skip("torch cannot have the pretend device beside CUDA in one process")
    from tests.pretend.build import CannotBuild

    try:
        import tests.pretend
    except CannotBuild as reason:
        pytest.skip(f"the pretend device cannot be built: {reason}")
    return tests.pretend


@pytest.fixture
def other(request: pytest.FixtureRequest):
    """The `OtherDevice`: CUDA where there is one, else the one that complains where it would."""
    import torch

    from tests.toys import OtherDevice

    if torch.cuda.is_available():
        return OtherDevice("cuda", tolerance=1e-4)
    module = request.getfixturevalue("pretend")
    return OtherDevice("pretend", complaining=module.strict_index)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Make toys quickly, and register the test device before any test runs, where one needs it.

    Autograd makes a queue for each device that there is at the process's first backward pass.
    """
    import torch

    from tests import hook_scan

    hook_scan.install()
    # Two test workers share two cores.
    torch.set_num_threads(1)
    wanted = {"pretend", "other"}
    if torch.cuda.is_available():
        return
    if any(wanted & {*getattr(item, "fixturenames", ())} for item in session.items):
        from tests.pretend.build import CannotBuild

        with suppress(CannotBuild):
            import tests.pretend  # noqa: F401


@pytest.fixture(scope="session", autouse=True)
def _commands_are_made_once():
    """From their functions' signatures typer makes all commands, at each call of one."""
    from typer import main, testing

    made = cache(main.get_command)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(main, "get_command", made)
        patch.setattr(testing, "_get_command", made)
        yield


@pytest.fixture(scope="session", autouse=True)
def _trainers_do_not_search_for_garbage():
    """Fine-tuning searches all that there is in this process, at each of its beginnings."""
    from accelerate.utils import memory

    empty = memory.clear_device_cache
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memory, "clear_device_cache", lambda garbage_collection: empty())
        yield


@pytest.fixture(scope="module", autouse=True)
def _shared_models_stay_as_they_are():
    yield
    from tests.shared_models import drop_changed

    assert not drop_changed(), "a test has changed a model that it shares with others"


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch):
    """`small_chunks("saes.training.log.LOG_EVERY", 4)` sets a size of ours: see `limits.py`."""
    from tests.limits import set_size

    return partial(set_size, monkeypatch)


@pytest.fixture(scope="module")
def small_chunks_of_file():
    """`small_chunks` for all tests of a file."""
    from tests.limits import set_size

    with pytest.MonkeyPatch.context() as patch:
        yield partial(set_size, patch)


@pytest.fixture(scope="module")
def toy_model():
    from tests.toys import shared_toy

    return shared_toy()
