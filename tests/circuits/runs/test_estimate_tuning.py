"""What a fine-tuning would take, without a model read."""

import pytest

from circuits.runs.estimate_tuning import BYTES, tuning_estimate
from circuits.runs.tuning_case import StartingModel
from hooked_qwen.placement import Placement
from saes.scope.fine_tune import FineTuneConfig


def estimate(rank=None, dtype="float32", trainer=None, **more):
    start = StartingModel(source="bundled", placement=Placement(dtype=dtype), rank=rank, seed=0)
    training = FineTuneConfig(steps=5, trainer=trainer or {})
    return tuning_estimate(start, training, arms=3, texts=40, rows=4, longest=16, **more)


@pytest.mark.parametrize("dtype", BYTES)
def test_of_every_weight_that_is_trained_there_are_a_gradient_and_two_means(dtype):
    found = estimate(dtype=dtype)
    assert found["trained"] == found["weights"]
    assert found["bytes"] == BYTES[dtype] * 4 * found["weights"]
    assert (found["texts"], found["arms"], found["tokens_in_a_pass"]) == (40, 3, 64)
    assert (found["passes"], found["tokens_written"]) == (15, 0)


def test_an_adapter_trains_few_weights():
    pytest.importorskip("peft")
    whole, adapter = estimate(), estimate(rank=2)
    assert 0 < adapter["trained"] < whole["weights"] / 10
    assert adapter["bytes"] < whole["bytes"]


def test_passes_in_a_step_are_the_trainers_where_it_says_so():
    assert estimate(trainer={"gradient_accumulation_steps": 4})["passes"] == 60
    assert estimate(passes_in_a_step=2, written=10)["passes"] == 30
    assert estimate(passes_in_a_step=2, written=10)["tokens_written"] == 150
