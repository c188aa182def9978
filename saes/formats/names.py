"""Names of sites in the libraries that publish dictionaries, both ways, from one table.

TransformerLens names hooks (`blocks.3.hook_mlp_out`); Hugging Face names modules and a side,
the output where none is written (`model.layers.3.mlp`, `model.layers.3.mlp.input`).

Refused, because no site of ours is that tensor: `ln2.hook_normalized` (before the norm's gain,
while `mlp_in` has it), `attn.hook_z` and `self_attn.o_proj.input` (heads, before their mixing).
"""

import re

from hooked_qwen.sites import KINDS, Site

# For each kind: TransformerLens's name, Hugging Face's, and other spellings that are read.
# `hook_mlp_in` is TransformerLens's copy of the stream before the norm, not what the MLP reads;
# `pre_feedforward_layernorm` and `post_feedforward_layernorm` are Gemma's norms around the MLP.
SPELLINGS = {
    "embed": ("hook_embed", "embed_tokens.output", "embed.hook_out"),
    "resid_pre": ("blocks.{}.hook_resid_pre", "layers.{}.input", "blocks.{}.hook_in"),
    "attn_out": (
        "blocks.{}.hook_attn_out",
        "layers.{}.self_attn.output",
        "blocks.{}.attn.hook_out",
        "blocks.{}.linear_attn.hook_out",
        "layers.{}.linear_attn.output",
        "layers.{}.self_attn.o_proj.output",
    ),
    "resid_mid": (
        "blocks.{}.hook_resid_mid",
        "layers.{}.post_attention_layernorm.input",
        "blocks.{}.ln2.hook_in",
        "blocks.{}.hook_mlp_in",
    ),
    "mlp_in": (
        "blocks.{}.mlp.hook_in",
        "layers.{}.mlp.input",
        "layers.{}.post_attention_layernorm.output",
        "layers.{}.pre_feedforward_layernorm.output",
    ),
    "mlp_hidden": ("blocks.{}.mlp.hook_post", "layers.{}.mlp.down_proj.input"),
    "mlp_out": (
        "blocks.{}.hook_mlp_out",
        "layers.{}.mlp.output",
        "blocks.{}.mlp.hook_out",
        "layers.{}.mlp.down_proj.output",
        "layers.{}.post_feedforward_layernorm.output",
    ),
    "resid_post": ("blocks.{}.hook_resid_post", "layers.{}.output", "blocks.{}.hook_out"),
}
_KIND_OF = {name: kind for kind, names in SPELLINGS.items() for name in names}


def to_site(text: str) -> Site:
    """The site that `text` names in any of the spellings, ours among them.

    Raises `ValueError` for a tensor that is no site of ours.
    """
    if states := re.fullmatch(r"hidden_states\[(\d{1,4})\]", text):
        # Of the embeddings and then of each layer; after the last layer they are normed.
        text = f"resid_post.{int(states[1]) - 1}" if int(states[1]) else "embed"
    name = re.sub(r"^(model\.|language_model\.)+(?=layers\.|embed_tokens)", "", text)
    if re.match(r"layers\.|embed_tokens", name) and not name.endswith((".input", ".output")):
        name += ".output"
    layer = re.search(r"(?<=\.)\d{1,4}(?=\.|$)", name)
    pattern = name if layer is None else f"{name[: layer.start()]}{{}}{name[layer.end() :]}"
    kind = _KIND_OF.get(pattern)
    if kind is not None:
        return Site(kind, int(layer[0])) if layer else Site(kind)
    if pattern in ("embed", *(f"{kind}.{{}}" for kind in KINDS)):
        return Site.parse(name)
    raise ValueError(
        f"no site is called {text[:80]!r}: expected the stream, an attention's or an MLP's output, "
        "or an MLP's input after its norm, such as 'blocks.3.hook_mlp_out' or 'model.layers.3.mlp'"
    )


def transformer_lens(site: Site) -> str:
    """TransformerLens's name of the hook through which `site` passes."""
    return SPELLINGS[site.kind][0].format(site.layer)


def hugging_face(site: Site) -> str:
    """Hugging Face's name of the module and the side of it, such as `model.layers.3.mlp.input`."""
    return "model." + SPELLINGS[site.kind][1].format(site.layer)
