"""Every target is swept once, with others of its layer, within the memory there is."""

from itertools import pairwise

import pytest
import torch

from transcoders.sweeps import EFFICIENT, in_sweeps

N = 300
GENERATOR = torch.Generator().manual_seed(0)
SOURCE = torch.randperm(N, generator=GENERATOR)
LAYER = torch.randint(4, (N,), generator=GENERATOR)
POSITION = torch.randint(20, (N,), generator=GENERATOR)
WIDTH = 8


def below(layer):
    return 50 * layer


def sweeps(numbers):
    found = in_sweeps(SOURCE, LAYER, POSITION, below=below, width=WIDTH, numbers=numbers)
    place = {source: i for i, source in enumerate(SOURCE.tolist())}
    return [[place[source] for source in part.tolist()] for part in found]


@pytest.mark.parametrize("numbers", [0, 2000, 10**9])
def test_every_target_is_in_one_sweep_with_others_of_its_layer_by_token(numbers):
    groups = sweeps(numbers)
    assert sorted(i for group in groups for i in group) == list(range(N))
    layers = [LAYER[group].unique().tolist() for group in groups]
    assert all(len(of) == 1 for of in layers)
    assert layers == sorted(layers, reverse=True)
    in_order = [i for group in groups for i in group]
    assert all(POSITION[a] <= POSITION[b] for a, b in pairwise(in_order) if LAYER[a] == LAYER[b])


@pytest.mark.parametrize("numbers", [0, 2000, 10**4])
def test_a_sweep_takes_no_more_than_there_is_unless_one_target_does(numbers):
    for group in sweeps(numbers):
        each = max((int(POSITION[group].max()) + 1) * WIDTH, below(int(LAYER[group[0]])))
        assert len(group) == 1 or len(group) * each <= numbers


def test_with_room_for_all_a_sweep_is_cut_only_where_later_tokens_cost_much_more():
    for group in sweeps(10**9):
        tokens = POSITION[group] + 1
        assert len(group) <= EFFICIENT or tokens.max() <= 1.25 * tokens.min()
    early = torch.zeros(N, dtype=torch.long)
    whole = in_sweeps(SOURCE, early, early, below=below, width=WIDTH, numbers=10**9)
    assert [len(group) for group in whole] == [N]
