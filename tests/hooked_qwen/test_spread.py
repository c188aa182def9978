"""A model over two devices computes what it computes on one, to the bit."""

import pytest
import torch

from hooked_qwen.forward import last_logits, resume, run_recording, unembed
from hooked_qwen.hooks import capture, intervene
from hooked_qwen.identity import identity
from hooked_qwen.load import hook, load
from hooked_qwen.placement import device_of, devices_of, find_devices, placement_of
from hooked_qwen.sites import Site
from hooked_qwen.spread import FOR_LAYERS, device_map, spread
from hooked_qwen.tokens import Batch
from tests.toys import FAMILIES, VOCABULARY, shared_toy, toy_hf

ORDERS = ("pretend:0,cpu", "cpu,pretend:0")


def spread_toy(devices, family="qwen3", dtype=torch.float32):
    model = toy_hf(family, dtype)
    spread(model, find_devices(devices))
    return hook(model, name=f"toy-{family}")


@pytest.fixture(params=ORDERS)
def over_two(request, pretend):
    return spread_toy(request.param)


@pytest.fixture(scope="module")
def whole():
    return shared_toy(dtype=torch.float32)


@pytest.fixture(scope="module")
def batch():
    tokens = torch.randint(1, VOCABULARY, (3, 6), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(tokens, dtype=torch.bool)
    mask[0, :2] = False
    return Batch(tokens=tokens, mask=mask)


def test_parts_are_on_both_devices_and_what_is_not_a_layer_is_at_home(over_two):
    first, second = devices_of(over_two)
    assert first == device_of(over_two)
    assert {first.type, second.type} == {"cpu", "pretend"}
    of_layers = [next(block.parameters()).device for block in over_two.blocks]
    assert of_layers == sorted(of_layers, key=[first, second].index)
    assert set(of_layers) == {first, second}
    outside = (over_two.embed, over_two.ln_final, over_two.unembed)
    assert {p.device for m in outside for p in m.parameters()} == {first}
    assert placement_of(over_two).device == f"{first},{second}"


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("devices", ORDERS)
def test_logits_are_those_of_one_device(pretend, batch, devices, family):
    model, one = spread_toy(devices, family), shared_toy(family, torch.float32)
    found = last_logits(model, batch)
    assert found.device == device_of(model)
    assert torch.equal(found.cpu(), last_logits(one, batch))


def test_what_is_captured_lies_at_home_and_gradients_cross_the_devices(over_two, whole, batch):
    sites = [Site("resid_post", layer) for layer in range(3)] + [Site("mlp_out", 2)]
    found = []
    for model in (over_two, whole):
        leaf = torch.zeros(3, 6, 24, device=device_of(model)).requires_grad_()
        with (
            capture(model, sites) as seen,
            intervene(model, {Site("mlp_out", 0): lambda x, leaf=leaf: x + leaf}),
        ):
            logits = last_logits(model, batch)
        assert {x.device for x in seen.values()} == {device_of(model)}
        wanted = [leaf, *(seen[site] for site in sites)]
        gradients = torch.autograd.grad(logits[:, 3].sum(), wanted)
        found.append([logits, *seen.values(), *gradients])
    for there, here in zip(*found, strict=True):
        assert torch.equal(there.detach().cpu(), here.detach())


def test_a_run_is_resumed_from_any_layer_and_position(over_two, whole, batch):
    found = []
    for model in (over_two, whole):
        wanted = [Site("resid_pre", layer) for layer in range(3)]
        here = batch.to(device_of(model))
        with torch.no_grad(), capture(model, wanted) as seen:
            _, arguments = run_recording(model, here, keep_cache=True)
            rows = arguments.rows(torch.tensor([2, 1], device=device_of(model)), first=3)
            later = [seen[s][[2, 1], 3:] for s in wanted]
            resumed = [resume(model, x, i, rows) for i, x in enumerate(later)]
            tokens = torch.tensor([5, 7], device=device_of(model))
            resumed.append(unembed(model, resumed[0], tokens))
        found.append(resumed)
    for there, here in zip(*found, strict=True):
        assert torch.equal(there.cpu(), here)


@pytest.mark.parametrize("devices", ORDERS)
def test_a_model_is_loaded_over_devices_and_known_as_itself(pretend, devices):
    model, one = load("bundled", device=devices), load("bundled", device="cpu")
    assert len(devices_of(model)) == 2
    assert identity(model) == identity(one)
    prompt = "The keys near the cabinet"
    texts = [m.generate(prompt, max_new_tokens=4, do_sample=False) for m in (model, one)]
    assert texts[0] == texts[1]


def test_layers_go_by_the_memory_that_is_free():
    model = toy_hf("qwen2")
    beside = sum(p.nbytes for n, p in model.named_parameters() if "layers" not in n)
    layer = sum(p.nbytes for p in model.model.layers[0].parameters())

    def at_home(names, *rooms):
        """Layers on the first device, where the devices have room for so many bytes of layers."""
        free = [None if room is None else int(room / FOR_LAYERS) + 1 for room in rooms]
        places = device_map(model, [torch.device(n) for n in names.split(",")], free)
        home = names.split(",")[0]
        assert {d for n, d in places.items() if ".layers." not in n} == {home}
        return [places[f"model.layers.{i}"] for i in range(3)].count(home)

    two = "cuda:0,cuda:1"
    assert at_home(two, beside + 2 * layer, layer) == 2
    assert at_home(two, beside + layer, 2 * layer) == 1
    assert at_home(two, beside, 3 * layer) == 0
    assert at_home(two, 100 * layer, layer) == 3
    # Two large cards share a small model.
    assert at_home(two, 100 * layer, 100 * layer) in (1, 2)
    # The CPU takes what is too much for the card, and nothing where all fits.
    assert at_home("cuda:0,cpu", beside + 2 * layer, None) == 2
    assert at_home("cuda:0,cpu", beside + 9 * layer, None) == 3
    # Not known: as much of the model on each.
    assert at_home("mps,cuda:0", None, 99 * layer) in (1, 2)


def test_devices_that_are_not_here_or_named_twice_are_one_line(pretend):
    with pytest.raises(ValueError, match="no device 'cuda:7' here"):
        find_devices("cpu,cuda:7")
    with pytest.raises(ValueError, match="names a device twice"):
        find_devices("pretend,cpu,pretend:0")
    with pytest.raises(ValueError, match="no device called 'auto'"):
        find_devices("auto,cpu")
