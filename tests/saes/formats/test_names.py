"""Names of sites, from every library and back."""

import pytest

from hooked_qwen.hook_points import hook_point
from hooked_qwen.sites import KINDS, Site
from saes.formats.names import SPELLINGS, hugging_face, to_site, transformer_lens
from tests.toys import shared_toy, toy_hf

SITES = [Site("embed"), *(Site(kind, layer) for kind in KINDS[1:] for layer in (0, 3, 17))]


@pytest.mark.parametrize("site", SITES, ids=str)
def test_a_site_s_names_name_it(site):
    assert to_site(transformer_lens(site)) == site
    assert to_site(hugging_face(site)) == site
    assert to_site(str(site)) == site


def test_no_spelling_is_of_two_sites():
    spellings = [name for names in SPELLINGS.values() for name in names]
    assert len(spellings) == len(set(spellings))
    assert set(SPELLINGS) == set(KINDS)


@pytest.mark.parametrize("site", [s for s in SITES if s.layer < 3], ids=str)
def test_transformer_lens_s_name_is_the_hook_that_we_use(site):
    model = shared_toy()
    named = model
    for part in transformer_lens(site).split("."):
        named = named[int(part)] if part.isdecimal() else getattr(named, part)
    assert named is hook_point(model, site)


@pytest.mark.parametrize("site", [s for s in SITES if 0 <= s.layer < 3], ids=str)
def test_hugging_face_s_name_is_a_module_of_the_model(site):
    name, _, side = hugging_face(site).rpartition(".")
    assert toy_hf().get_submodule(name) is not None
    assert side in ("input", "output")


@pytest.mark.parametrize(
    ("text", "site"),
    [
        ("model.layers.3.mlp", "mlp_out.3"),
        ("layers.3.mlp.input", "mlp_in.3"),
        ("layers.3", "resid_post.3"),
        ("model.language_model.layers.3", "resid_post.3"),
        ("model.layers.3.linear_attn", "attn_out.3"),
        ("model.layers.12.input", "resid_pre.12"),
        ("model.layers.3.pre_feedforward_layernorm.output", "mlp_in.3"),
        ("model.layers.3.post_feedforward_layernorm.output", "mlp_out.3"),
        ("blocks.3.mlp.hook_out", "mlp_out.3"),
        ("blocks.3.hook_mlp_in", "resid_mid.3"),
        ("embed_tokens", "embed"),
        ("model.embed_tokens", "embed"),
    ],
)
def test_spellings_that_are_read(text, site):
    assert str(to_site(text)) == site


@pytest.mark.parametrize(
    "text",
    [
        "",
        "blocks.3.attn.hook_z",
        "blocks.3.ln2.hook_normalized",
        "blocks.x.hook_mlp_out",
        "blocks.99999.hook_mlp_out",
        "blocks.-1.hook_mlp_out",
        "blocks.3.hook_mlp_out.4",
        "model.layers.3.self_attn.input",
        "model.layers.3.self_attn.o_proj.input",
        "layers.3.mlp.sideways",
        "mlp_out",
        "mlp_out.3.4",
        "embed.3",
        "x" * 10_000,
    ],
)
def test_what_is_no_site_is_refused_in_one_line(text):
    with pytest.raises(ValueError, match="no site is called") as error:
        to_site(text)
    assert len(str(error.value)) < 300
