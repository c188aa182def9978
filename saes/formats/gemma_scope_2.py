"""Gemma Scope 2: JumpReLU autoencoders and transcoders, some with a linear skip.

    resid_post/layer_9_width_16k_l0_small/{params.safetensors,config.json}
        w_enc [s, m], w_dec [m, t], b_enc [m], b_dec [t], threshold [m],
        optional affine_skip_connection [s, t]

    p = x @ w_enc + b_enc;   f = relu(p) * [p > threshold]
    y = f @ w_dec + b_dec (+ x @ affine_skip_connection, which is not transposed)

The sites are `hf_hook_point_in` and, for transcoders, `hf_hook_point_out`.
"""

from pathlib import Path

from hooked_qwen.sites import Site
from saes.dictionary import SparseDictionary
from saes.formats.layout import layout_of_folders
from saes.formats.place import Entry
from saes.formats.reading import (
    choice,
    field,
    read_json,
    read_safetensors,
    site_field,
)
from saes.formats.terms import Terms

WEIGHTS, CONFIG = "params.safetensors", "config.json"


def _sites(path: Path, _: str) -> tuple[Site, Site]:
    config = read_json(path)
    choice(config, path, "architecture", {"jump_relu": ""}, None)
    is_transcoder = field(config, path, "hf_hook_point_out", str, None) is not None
    source = site_field(config, path, "hf_hook_point_in")
    return source, site_field(config, path, "hf_hook_point_out") if is_transcoder else source


def load(entry: Entry) -> SparseDictionary:
    path, about = entry.fetch()
    terms = Terms(
        axes={"w_enc": "sm", "w_dec": "mt", "b_enc": "m", "b_dec": "t", "threshold": "m"},
        optional={"affine_skip_connection": "st"},
        architecture="jumprelu",
        k=field(read_json(about), about, "l0", int, None),
    )
    return terms.read(path, read_safetensors(path), entry)


LAYOUT = layout_of_folders("gemma-scope-2", weights=WEIGHTS, config=CONFIG, sites=_sites, load=load)
