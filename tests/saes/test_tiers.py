"""What is let go comes back from the nearest tier, the same to the bit."""

import pytest
import torch
from torch.multiprocessing.reductions import StorageWeakRef

from hooked_qwen.sites import Site
from saes.dictionary import DictionarySpec, SparseDictionary
from saes.formats import ours
from saes.suite import find, load_suite
from saes.tiers import OnDevice, OnHost, bytes_of
from tests.saes import published
from tests.toys import random_dictionary, toy

HALF = [torch.bfloat16, torch.float16]
SITES = [Site(kind, layer) for kind in ("attn_out", "resid_post") for layer in range(3)]


def save(folder, dtype=torch.float32):
    for seed, site in enumerate(SITES):
        spec = DictionarySpec(source=site, target=site, k=5)
        made = random_dictionary(spec, seed=seed, dtype=torch.float32)
        ours.save_dictionary(made, folder / str(site), card=ours.Card(), dtype=dtype)
    ours.save_suite_index(folder, list(map(str, SITES)))
    return folder


def same(one, other):
    for (name, value), (_, expected) in zip(
        one.named_buffers(), other.named_buffers(), strict=True
    ):
        assert value.dtype == expected.dtype
        assert torch.equal(value.cpu(), expected.cpu()), name


@pytest.mark.parametrize("dtype", HALF)
def test_what_is_stored_in_half_precision_stays_so_until_it_is_used(tmp_path, dtype):
    found = find(save(tmp_path, dtype))
    for entry in found.entries:
        stored, used = found.stored(entry), load_suite(tmp_path)[entry.node_name]
        assert {value.dtype for value in stored.buffers()} == {dtype}
        assert bytes_of(used) == 2 * bytes_of(stored)
        same(used, found.load(entry))
        same(used, ours.load_dictionary(tmp_path / entry.name))
        same(used, stored.moved(torch.float32, torch.device("cpu")))
        same(used.moved(dtype, torch.device("cpu")), stored)
        assert used.widened() is used.moved(torch.float32, torch.device("cpu")) is used


def test_so_do_matrices_that_a_layout_turns(tmp_path):
    folder, _ = published.write("qwen-scope", tmp_path)
    file = folder / published.CASES["qwen-scope"].weights
    half = {name: value.bfloat16() for name, value in torch.load(file).items()}
    torch.save(half, file)
    (entry,) = (found := find(folder)).entries
    stored = found.stored(entry)
    assert {value.dtype for value in stored.buffers()} == {torch.bfloat16}
    torch.save({name: value.float() for name, value in half.items()}, file)
    same(stored.widened(), found.load(entry))


def test_on_another_device_each_file_is_read_once_and_the_host_has_the_rest(tmp_path, pretend):
    here = load_suite(save(tmp_path, torch.bfloat16))
    one, kept = bytes_of(here["attn_out.0"]), {name: here[name] for name in here}
    model = toy(dtype=torch.float32).to("pretend")
    suite = load_suite(tmp_path, memory=1.5 * one / 1e9).fitting(model)
    waits, copies = [], []
    for _ in range(3):
        with pretend.watch() as seen:
            for name in suite:
                found = suite[name]
                assert found.W_dec.device.type == "pretend"
                same(found, kept[name])
        # What the comparison copies to the host is waited for, in every sweep alike.
        waits.append(seen.of("sync").total())
        copies.append(seen.of("host to device").total())
        for path in tmp_path.glob(f"*/{ours.TENSORS}"):
            path.write_bytes(b"damaged")
    assert waits == [waits[0]] * 3
    assert copies == [4 * len(suite)] * 3
    with pytest.raises(ValueError, match="not a readable safetensors"):
        load_suite(tmp_path, memory=1.0).fitting(model)["attn_out.0"]


def test_the_host_keeps_what_came_first_up_to_its_room(tmp_path):
    found, read = find(save(tmp_path, torch.float16)), []

    def stored(entry):
        read.append(entry.node_name)
        return found.stored(entry)

    size = bytes_of(found.stored(found.entries[0]))
    host = OnHost(stored, room=2.5 * size)
    for _ in range(2):
        for entry in found.entries:
            assert bytes_of(host.get(entry.node_name, entry)) == size
    names = [entry.node_name for entry in found.entries]
    assert read == [*names, *names[2:]]
    assert OnHost(stored, room=0.0).get(names[0], found.entries[0]) is not None


def test_the_device_lets_go_before_it_makes(tmp_path):
    """Of what is as large as what there was: two are never there at once."""
    found, alive = find(save(tmp_path)), []
    one = bytes_of(found.load(found.entries[0]))
    device = OnDevice(memory=2.2 * one / 1e9)
    entries = {entry.node_name: entry for entry in found.entries}

    def make(name):
        alive.append(len(device))
        return found.load(entries[name])

    for name in entries:
        assert device.get(name, make) is device.get(name, make)
    assert alive == [0, 1, 1, 1, 1, 1]
    assert len(device) == 2


def test_one_tensor_in_two_places_moves_with_both():
    """As in untrained dictionaries, whose encoder is their decoder."""
    made = random_dictionary(DictionarySpec(source=SITES[0], target=SITES[0], k=5))
    rows = made.W_dec
    tied = SparseDictionary(made.spec, dict(made.named_buffers()) | {"W_enc": rows})
    moved = tied.moved(torch.float32, torch.device("cpu"))
    assert {value.dtype for value in moved.state_dict().values()} == {torch.float32}
    assert torch.equal(moved.W_enc, rows.float())
    assert tied.W_enc is tied.W_dec is rows


def test_a_suite_made_from_another_has_its_memory_and_lets_what_it_reads_go(tmp_path):
    suite = load_suite(save(tmp_path), memory=1e-9)
    alive: list[StorageWeakRef] = []

    def make(name, read):
        alive.append(StorageWeakRef(read(name).W_dec.untyped_storage()))
        assert all(known.expired() for known in alive)
        spec = DictionarySpec(source=Site.parse(name), target=Site.parse(name), k=5)
        made = random_dictionary(spec, dtype=torch.float32)
        alive.append(StorageWeakRef(made.W_dec.untyped_storage()))
        return made

    others = suite.derived(make, reads={name: suite.reads_of(name) for name in suite})
    for name in suite:
        alive.append(StorageWeakRef(suite[name].W_dec.untyped_storage()))
        assert others[name].W_dec.shape == (20, 24)
    assert len(alive) == 3 * len(SITES)
