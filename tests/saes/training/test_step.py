"""Memory that steps share, and how long a list of features is."""

import torch

from saes.training.recorded_step import list_length
from saes.training.step import ScratchMemory


def test_a_list_has_one_of_few_lengths():
    lengths = [list_length(dead, 1000) for dead in range(1001)]
    assert lengths[0] == 0
    assert all(dead <= length <= 1000 for dead, length in enumerate(lengths))
    assert set(lengths) == {0, 32, 64, 128, 256, 512, 1000}


def test_memory_that_grows_has_room_for_batches_a_little_larger():
    memory, like = ScratchMemory(), torch.zeros(1)
    sizes = [
        memory.take("rows", rows, 10, like).untyped_storage().nbytes() for rows in (80, 88, 96)
    ]
    assert sizes == [3200, 3960, 3960]
