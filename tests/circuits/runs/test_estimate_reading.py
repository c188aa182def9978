"""What reading dictionaries takes: from files on the CPU, from the host's memory elsewhere."""

import pytest
import torch

from circuits.runs.estimate_reading import Disk, dictionary_times, disk_of
from hooked_qwen.sites import Site
from saes.formats.shapes import DictionaryShape

CPU, DISK = torch.device("cpu"), Disk(read=1e6, hashed=1e7)


def shapes(stored):
    site = Site("resid_post", 1)
    return [
        DictionaryShape(
            name=str(site), source=site, target=site, features=8, k=2, bytes=2000, stored=stored
        )
        for _ in range(3)
    ]


def told(stored, memory, device):
    return dictionary_times(shapes(stored), 8, memory, DISK, device)


def test_what_memory_holds_is_read_once():
    for memory in (None, 6001 / 1e9):
        (once,) = told(1000, memory, CPU)
        assert once.amount == pytest.approx(9000 / 1e6 + 3000 / 1e7)


def test_on_the_cpu_what_was_let_go_is_read_from_its_file():
    _, again = told(1000, 3000 / 1e9, CPU)
    assert again.amount == pytest.approx(8 * 9000 / 1e6)
    assert again.note == "read 8 times more for --memory"


def test_on_another_device_it_comes_from_the_host_as_far_as_that_has_room(pretend):
    device = torch.device(pretend.NAME)
    _, again = told(1000, 3000 / 1e9, device)
    assert again.note == "from the host's memory 8 times more for --memory"
    assert again.amount > 0
    _, kept, read = told(10**15, 3000 / 1e9, device)
    assert (kept.note, read.note) == (again.note, "read 8 times more for --memory")
    share = 1 - read.amount * 1e6 / 8 / (3 * 10**15 + 6000)
    assert 0 < share < 1


def test_a_file_is_read_to_see_how_fast_that_is(tmp_path):
    file = tmp_path / "weights"
    file.write_bytes(bytes(10**6))
    found = disk_of([file])
    assert found.read > 0 < found.hashed
