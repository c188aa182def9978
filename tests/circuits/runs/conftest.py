"""A toy model with what a pass of it costs, and a small run on the bundled model."""

import pytest
import torch

from circuits.discovery.config import DiscoverConfig
from circuits.runs.discover_run import discover_run
from circuits.runs.inputs import Inputs
from hooked_qwen.cost import ModelCost
from hooked_qwen.placement import Placement
from tests.circuits.few_texts import shorten
from tests.circuits.runs.pair import PAIR
from tests.toys import (
    FAMILIES,
    SIZES,
    full_suite,
    shared_toy,
)


@pytest.fixture(scope="module")
def model():
    return shared_toy("qwen3", torch.float32)


@pytest.fixture(scope="module")
def suite():
    return full_suite(torch.float32)


@pytest.fixture(scope="module")
def cost():
    config_class, _, extra = FAMILIES["qwen3"]
    return ModelCost(config_class(**SIZES, **extra), Placement(), name="toy")


@pytest.fixture(scope="session")
def small_run(tmp_path_factory):
    """A run of prompts that were no file, in the folder `run`; what was found, and told of it."""
    folder, told = tmp_path_factory.mktemp("made"), []
    inputs = Inputs.resolved("bundled", "bundled", folder / "prompts.jsonl")
    with pytest.MonkeyPatch.context() as patch:
        shorten(patch)
        found = discover_run(
            inputs,
            folder / "run",
            config=DiscoverConfig(estimator="patching", nodes=5),
            given=[PAIR],
            seed=5,
            command=["circuits", "discover"],
            report=lambda what, *_, **__: told.append(what),
        )
    return folder, found, told
