"""Sites name what they say: every one equals a hand-written forward of Hugging Face's modules."""

import random
import re

import pytest
import torch

from hooked_qwen.hook_points import hook_point
from hooked_qwen.hooks import capture, intervene
from hooked_qwen.sites import KINDS, READ_ONLY, Site, parse_layers
from tests.hooked_qwen.plain import plain_forward
from tests.toys import FAMILIES, SIZES, VOCABULARY, shared_toy, toy_hf

LAYERS = SIZES["num_hidden_layers"]
SITES = [Site("embed")] + [Site(kind, i) for i in range(LAYERS) for kind in KINDS[1:]]
EDITABLE = [site for site in SITES if site.kind not in READ_ONLY]


@pytest.fixture(scope="module", params=FAMILIES)
def pair(request):
    """The hooked toy and Hugging Face's own copy of it, which nothing has touched."""
    return shared_toy(request.param), toy_hf(request.param)


@pytest.fixture
def tokens():
    return torch.randint(1, VOCABULARY, (2, 6), generator=torch.Generator().manual_seed(3))


def bump(site):
    width = SIZES["intermediate_size" if site.kind == "mlp_hidden" else "hidden_size"]
    return torch.randn(width, generator=torch.Generator().manual_seed(4)).double()


@pytest.mark.parametrize("site", SITES, ids=str)
def test_a_site_reads_as_it_prints(site):
    assert Site.parse(str(site)) == site


def test_sites_sort_in_the_order_of_the_forward(pair, tokens):
    hooked, hf = pair
    _, seen = plain_forward(hf, tokens)
    shuffled = random.Random(0).sample(SITES, len(SITES))
    assert [str(site) for site in sorted(shuffled)] == list(seen)
    order = []
    handles = [
        hook_point(hooked, site).register_forward_hook(
            lambda *_, site=site: order.append(site) and None
        )
        for site in SITES
    ]
    hooked(tokens)
    for handle in handles:
        handle.remove()
    assert order == sorted(order)
    assert set(order) == set(SITES)


@pytest.mark.parametrize(
    "text",
    ["", "embed.0", "embed.", "mlp_out", "mlp_out.", "mlp_out.-1", "mlp_out.x", "mlp.3", "3", "."],
)
def test_a_site_that_is_none_lists_the_kinds(text):
    with pytest.raises(ValueError, match=r"no site is called .*write KIND\.LAYER") as error:
        Site.parse(text)
    for kind in KINDS:
        assert kind in str(error.value)


@pytest.mark.parametrize(("kind", "layer"), [("mlp_out", -1), ("embed", 0), ("head", 2)])
def test_a_site_is_checked_however_it_is_made(kind, layer):
    with pytest.raises(ValueError, match="no site is called"):
        Site(kind, layer)


@torch.no_grad()
def test_every_captured_value_equals_the_hand_written_forward(pair, tokens):
    hooked, hf = pair
    logits, expected = plain_forward(hf, tokens)
    with capture(hooked, SITES) as seen:
        torch.testing.assert_close(hooked(tokens), logits, atol=1e-9, rtol=1e-9)
    for site in SITES:
        torch.testing.assert_close(seen[site], expected[str(site)], atol=1e-9, rtol=1e-9)


@torch.no_grad()
@pytest.mark.parametrize("site", EDITABLE, ids=str)
def test_an_edit_does_what_the_hand_written_forward_does(pair, tokens, site):
    hooked, hf = pair
    clean, _ = plain_forward(hf, tokens)
    expected, _ = plain_forward(hf, tokens, {str(site): bump(site)})
    with intervene(hooked, {site: lambda x: x + bump(site)}):
        edited = hooked(tokens)
    torch.testing.assert_close(edited, expected, atol=1e-9, rtol=1e-9)
    assert (edited - clean).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("text", "layers"),
    [("all", [0, 1, 2, 3]), ("0-3", [0, 1, 2, 3]), ("2", [2]), ("3, 0-1", [0, 1, 3]), ("1,1", [1])],
)
def test_layers_are_read_as_written(text, layers):
    assert parse_layers(text, 4) == layers


@pytest.mark.parametrize("text", ["", "one", "1-", "-1", "1,,2", "0-3-5", "1.5", "ALL"])
def test_layers_that_cannot_be_read(text):
    with pytest.raises(ValueError, match=re.escape(f"cannot read the layers {text!r}")):
        parse_layers(text, 4)


@pytest.mark.parametrize("text", ["4", "0-4"])
def test_layers_that_the_model_has_not(text):
    with pytest.raises(ValueError, match="the model has layers 0 to 3"):
        parse_layers(text, 4)


def test_digits_that_are_no_number():
    with pytest.raises(ValueError, match="no site is called"):
        Site.parse("mlp_out.²")
    with pytest.raises(ValueError, match="cannot read the layers"):
        parse_layers("²", 4)


def test_a_layer_of_embed_is_told_as_it_was_given():
    with pytest.raises(ValueError, match=r"embed\.0"):
        Site("embed", 0)


def test_no_part_of_the_layers_is_dropped():
    with pytest.raises(ValueError, match="3-1"):
        parse_layers("3-1,0", 4)
