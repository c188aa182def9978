"""Sites of a plain Hugging Face model are those of the layer written out by hand."""

import pytest
import torch

from hooked_qwen.load import unhooked
from hooked_qwen.plain_model import captured, load_plain, place_of, shifted
from hooked_qwen.sites import KINDS, Site
from tests.hooked_qwen.plain import plain_forward
from tests.toys import VOCABULARY, toy_hf

SITES = [Site("embed"), *(Site(kind, layer) for kind in KINDS[1:] for layer in range(3))]
TOKENS = torch.arange(14).reshape(2, 7) % VOCABULARY


@pytest.mark.parametrize("family", ["qwen2", "qwen3"])
def test_every_site_is_read_where_it_flows(family):
    model = toy_hf(family)
    with captured(model, SITES) as seen:
        model(input_ids=TOKENS)
    _, expected = plain_forward(model, TOKENS)
    for site in SITES:
        torch.testing.assert_close(seen[site], expected[str(site)], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("family", ["qwen2", "qwen3"])
@pytest.mark.parametrize("kind", [k for k in KINDS if k not in ("embed", "resid_mid")])
def test_a_change_at_a_site_reaches_the_logits(family, kind):
    model, site = toy_hf(family), Site(kind, 1)
    width = 40 if kind == "mlp_hidden" else 24
    change = torch.linspace(-1, 1, width, dtype=torch.float64)
    with shifted(model, site, lambda x: x + change), torch.no_grad():
        logits = model(input_ids=TOKENS).logits
    expected, _ = plain_forward(model, TOKENS, {str(site): change})
    torch.testing.assert_close(logits, expected, rtol=1e-6, atol=1e-6)
    with torch.no_grad():
        after = model(input_ids=TOKENS).logits
    torch.testing.assert_close(after, plain_forward(model, TOKENS)[0], rtol=1e-6, atol=1e-6)


def test_an_adapted_model_is_read_through():
    peft = pytest.importorskip("peft")
    model, sites = toy_hf(), [Site("resid_post", 1), Site("mlp_hidden", 0)]
    with captured(model, sites) as before, torch.no_grad():
        model(input_ids=TOKENS)
    adapted = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules="all-linear"))
    with captured(adapted, sites) as seen:
        adapted(input_ids=TOKENS)
    for site in sites:
        assert seen[site].requires_grad
        torch.testing.assert_close(seen[site].detach(), before[site])


def test_what_cannot_be_changed_is_refused():
    model = toy_hf()
    read_only = shifted(model, Site("resid_mid", 1), lambda x: x)
    with pytest.raises(ValueError, match="resid_mid.1 is read-only"):
        read_only.__enter__()
    idle = shifted(model, Site("resid_post", 1), lambda x: x)
    idle.__enter__()
    with pytest.raises(RuntimeError, match="resid_post.1 was never changed"):
        idle.__exit__(None, None, None)
    with pytest.raises(ValueError, match="layers 0 to 2, so there is no site mlp_out.7"):
        place_of(model, Site("mlp_out", 7))


def test_a_model_is_loaded_open_to_training():
    model = load_plain("bundled", device="cpu")
    assert all(p.requires_grad for p in model.parameters())
    outlined = unhooked(model.config)
    assert [p.shape for p in outlined.parameters()] == [p.shape for p in model.parameters()]
    with pytest.raises(ValueError, match="no such file"):
        load_plain("./absent")
