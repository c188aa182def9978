"""A finished seed is kept to the last bit, and found again by its number."""

import pytest
import torch

from circuits.shift.finished import FinishedSeed, FinishedSeeds
from circuits.shift.judging import Judged
from circuits.shift.scores import ProbePredictions
from hooked_qwen.nodes import Node
from hooked_qwen.sites import Site


def flags(digits):
    return torch.tensor([digit == "1" for digit in digits])


@pytest.fixture
def seed():
    said = [
        ProbePredictions(flags(one), label=flags("0011"), spurious=flags("0101"))
        for one in ("0110", "1110")
    ]
    features = [
        Judged(node=Node("mlp_out.1", 3), label=0.1 + 0.2, spurious=None),
        Judged(
            node=Node("resid_post.0", 7),
            label=1 / 3,
            spurious=-2.5,
            cut=True,
            reason="a name",
            by="person",
        ),
    ]
    losses = {Site("resid_post", 0): 1 / 7, Site("resid_post", 1): 0.25}
    return FinishedSeed(
        site=Site("resid_post", 1), losses=losses, features=features, said={"random": said}
    )


def test_what_was_kept_is_read_back_to_the_last_bit(tmp_path, seed):
    seed.save(tmp_path / "seed.json")
    again = FinishedSeed.load(tmp_path / "seed.json")
    assert (again.site, again.losses, again.features) == (seed.site, seed.losses, seed.features)
    for found, kept in zip(again.said["random"], seed.said["random"], strict=True):
        for name in ("one", "label", "spurious"):
            assert torch.equal(getattr(found, name), getattr(kept, name))


def test_a_seed_is_found_by_its_number_and_without_a_folder_nothing_is_kept(tmp_path, seed):
    kept = FinishedSeeds(tmp_path)
    assert kept.get(3) is None
    assert kept.keep(3, seed) is seed
    assert [path.name for path in tmp_path.iterdir()] == ["seed-0003.json"]
    assert kept.get(3).features == seed.features
    assert FinishedSeeds().keep(3, seed) is seed
    assert FinishedSeeds().get(3) is None
