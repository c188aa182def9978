"""The hook of each site."""

import pytest
import torch

from hooked_qwen.hook_points import hook_point
from hooked_qwen.hooks import intervene
from hooked_qwen.sites import KINDS, Site
from tests.hooked_qwen.plain import plain_forward
from tests.hooked_qwen.test_sites import bump
from tests.toys import FAMILIES, SIZES, VOCABULARY, shared_toy, toy_hf

LAYERS = SIZES["num_hidden_layers"]


@pytest.fixture(scope="module", params=FAMILIES)
def pair(request):
    """The hooked toy and Hugging Face's own copy of it, which nothing has touched."""
    return shared_toy(request.param), toy_hf(request.param)


@pytest.fixture
def tokens():
    return torch.randint(1, VOCABULARY, (2, 6), generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("kind", KINDS[1:])
def test_a_site_past_the_last_layer_says_which_layers_there_are(pair, kind):
    site = Site(kind, LAYERS)
    with pytest.raises(ValueError, match=rf"layers 0 to 2, so there is no site {kind}\.3"):
        hook_point(pair[0], site)


@torch.no_grad()
def test_resid_mid_is_read_only_because_its_hook_misses_the_stream(pair, tokens):
    """The bridge's hook there reaches the MLP branch alone; a true edit moves the stream too."""
    hooked, hf = pair
    site = Site("resid_mid", 1)
    with (
        pytest.raises(ValueError, match=r"resid_mid\.1 is read-only.*attn_out\.1 or resid_post"),
        intervene(hooked, {site: lambda x: x}),
    ):
        pass
    handle = hook_point(hooked, site).register_forward_hook(lambda _m, _a, out: out + bump(site))
    spliced = hooked(tokens)
    handle.remove()
    true_edit, _ = plain_forward(hf, tokens, {"resid_mid.1": bump(site)})
    assert (spliced - true_edit).abs().max() > 1e-3
    with intervene(hooked, {Site("attn_out", 1): lambda x: x + bump(site)}):
        torch.testing.assert_close(hooked(tokens), true_edit, atol=1e-9, rtol=1e-9)
