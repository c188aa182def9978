"""Gemma Scope 2: JumpReLU autoencoders and transcoders, some with a linear skip.

    resid_post/layer_9_width_16k_l0_small/{params.safetensors,config.json}
        w_enc [s, m], w_dec [m, t], b_enc [m], b_dec [t], threshold [m],
        optional affine_skip_connection [s, t]

    p = x @ w_enc + b_enc;   f = relu(p) * [p > threshold]
    y = f @ w_dec + b_dec (+ x @ affine_skip_connection, which is not transposed)

The sites are `hf_hook_point_in` and, for transcoders, `hf_hook_point_out`.
"""

from saes.dictionary import SparseDictionary
from saes.formats.layout import Layout
from saes.formats.place import Entry, Place, inside
from saes.formats.reading import (
    assemble,
    check_tensors,
    choice,
    field,
    read_json,
    read_safetensors,
    site_field,
)

WEIGHTS, CONFIG = "params.safetensors", "config.json"


def matches(place: Place) -> bool:
    return bool(place.folders_with(WEIGHTS, CONFIG))


def find(place: Place) -> list[Entry]:
    return [_entry(place, folder) for folder in place.folders_with(WEIGHTS, CONFIG)]


def _entry(place: Place, folder: str) -> Entry:
    path = place.fetch(inside(folder, CONFIG))
    config = read_json(path)
    choice(config, path, "architecture", {"jump_relu": ""}, None)
    source = site_field(config, path, "hf_hook_point_in")
    is_transcoder = field(config, path, "hf_hook_point_out", str, None) is not None
    return Entry(
        source=source,
        target=site_field(config, path, "hf_hook_point_out") if is_transcoder else source,
        name=place.name_of(folder),
        place=place,
        files=(inside(folder, WEIGHTS), inside(folder, CONFIG)),
    )


def load(entry: Entry) -> SparseDictionary:
    path, about = entry.fetch()
    tensors = read_safetensors(path)
    check_tensors(
        path,
        tensors,
        {"w_enc": "sm", "w_dec": "mt", "b_enc": "m", "b_dec": "t", "threshold": "m"},
        {"affine_skip_connection": "st"},
    )
    weights = {
        "W_enc": tensors["w_enc"].T,
        "W_dec": tensors["w_dec"],
        **{name: tensors[name] for name in ("b_enc", "b_dec", "threshold")},
    }
    if "affine_skip_connection" in tensors:
        weights["W_skip"] = tensors["affine_skip_connection"].T
    return assemble(
        path,
        weights,
        source=entry.source,
        target=entry.target,
        architecture="jumprelu",
        k=field(read_json(about), about, "l0", int, None),
    )


LAYOUT = Layout(name="gemma-scope-2", matches=matches, find=find, load=load)
