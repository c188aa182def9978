"""What models trained in turn share: where they start, and what the record says of it."""

import pytest
import torch

from circuits.runs.tuning_case import StartingModel, TuningCase
from hooked_qwen.bundled import PATH
from hooked_qwen.placement import Placement
from saes.scope.fine_tune import FineTuneConfig
from saes.scope.tuned_model import WriteConfig


def opened(behaviour="repetition", **more):
    training = FineTuneConfig(steps=3, seed=4, trainer={"weight_decay": 0.5})
    return TuningCase.opened(
        "bundled", "bundled", behaviour, training, WriteConfig(tokens=6, samples=2),
        rank=2, mlp="sae", placement=Placement(device="cpu", **more),
    )  # fmt: skip


def test_an_adapter_says_the_hub_name_or_the_folder_of_its_model():
    def name(source):
        return StartingModel(source=source, placement=Placement(), rank=None, seed=0).name

    assert name("bundled") == "bundled"
    assert name("org/name") == "org/name"
    assert name(str(PATH)) == str(PATH)


def test_the_record_has_how_every_arm_was_trained_and_judged():
    assert opened().settings() == {
        "rank": 2,
        "steps": 3,
        "learning_rate": 1e-4,
        "trainer": {"weight_decay": 0.5},
        "written": {"tokens": 6, "samples": 2},
        "seed": 4,
    }


def test_a_result_is_of_its_model_dictionaries_precision_and_texts():
    case = opened()
    assert case.made_from(["a"], ["b"]) == case.made_from(["a"], ["b"])
    assert case.made_from(["a"], ["b"]) != case.made_from(["a", "b"])
    assert opened(dtype="bfloat16").made_from() != case.made_from()


def test_of_an_adapter_only_its_weights_are_trained():
    pytest.importorskip("peft")
    start = opened().start
    trained = {n for n, p in start.to_train().named_parameters() if p.requires_grad}
    assert trained
    assert all("lora" in name for name in trained)
    assert all(not torch.isnan(p).any() for p in start.plain().parameters())


def test_a_behaviour_without_a_name_is_told():
    with pytest.raises(ValueError, match="no behaviour is called 'rude'"):
        opened("rude")
