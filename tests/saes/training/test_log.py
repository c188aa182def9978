"""Logs of a training: unknown ones, missing packages, and one number a name."""

import sys
import types
from dataclasses import replace
from pathlib import Path

import pytest

from saes.training.log import open_log
from saes.training.run import RunOptions, check_place
from tests.saes.training.test_run import Killed, killed_at, toy_with_tokenizer, train


@pytest.fixture
def model():
    return toy_with_tokenizer()


EACH_STEP = RunOptions(checkpoint_every=0.0)
GO_ON = RunOptions(checkpoint_every=0.0, resume=True)


def test_an_unknown_log_lists_the_known(tmp_path):
    with pytest.raises(ValueError, match="no log is called 'mlflow': expected one of tensorboard"):
        open_log(tmp_path, ["mlflow"], after_step=0).__enter__()


def test_a_log_whose_package_is_missing_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ValueError, match=r"pip install 'qwen-circuits\[wandb\]'"):
        open_log(tmp_path, ["wandb"], after_step=0).__enter__()


@pytest.fixture
def tensorboard(monkeypatch):
    """A writer that keeps a file in its folder and writes it once more when closed."""

    class Writer:
        def __init__(self, folder, purge_step):
            Path(folder).mkdir(exist_ok=True)
            self.path, self.lines = Path(folder, f"events after {purge_step}"), []

        def add_scalar(self, key, value, step):
            self.lines.append(f"{step} {key} {value:.3f}\n")

        def flush(self):
            self.path.write_text("".join(self.lines))

        def close(self):
            self.flush()

    package = types.SimpleNamespace(SummaryWriter=Writer)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", package)


@pytest.mark.usefixtures("tensorboard")
def test_other_logs_get_one_number_a_name_and_stay_with_the_suite(model, tmp_path):
    train(model, tmp_path / "suite", options=RunOptions(logs=("tensorboard",)))
    lines = (tmp_path / "suite" / "tensorboard" / "events after 1").read_text().splitlines()
    assert {line.rpartition(" ")[0] for line in lines} >= {"12 mlp_out.1/fvu", "12 tokens"}


@pytest.mark.usefixtures("tensorboard")
def test_a_run_that_was_cut_off_goes_on_beside_its_other_logs(model, tmp_path):
    out, logs = tmp_path / "suite", {"logs": ("tensorboard",)}
    with pytest.raises(Killed):
        train(model, out, options=replace(EACH_STEP, **logs), report=killed_at(9))
    check_place(out)
    train(model, out, options=replace(GO_ON, **logs))
    found = sorted(path.name for path in (out / "tensorboard").iterdir())
    assert found == ["events after 1", "events after 10"]
