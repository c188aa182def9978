"""Gemma Scope 1: JumpReLU autoencoders as NumPy archives.

    gemma-scope-2b-pt-res/layer_L/width_16k/average_l0_N/params.npz
        W_enc [d, m], W_dec [m, d], b_enc [m], b_dec [d], threshold [m]

    p = x @ W_enc + b_enc;   f = relu(p) * [p > threshold];   y = f @ W_dec + b_dec

The site's kind stands only in the repository's name: `res` or `mlp`. `att` reads the heads
before they are mixed and `transcoders` before the norm's gain: no sites of ours, so refused.

Source: Lieberum et al. 2024, arXiv:2408.05147.
"""

import re

from hooked_qwen.sites import Site
from saes.dictionary import SparseDictionary
from saes.formats.layout import Layout
from saes.formats.place import Entry, Place
from saes.formats.reading import read_npz
from saes.formats.terms import Terms

FILE = re.compile(r"(?:.*/)?layer_(\d{1,4})/width_[^/]+/average_l0_(\d{1,6})/params\.npz")
KINDS = {"res": "resid_post", "mlp": "mlp_out"}


def matches(place: Place) -> bool:
    return any(FILE.fullmatch(name) for name in place.names)


def find(place: Place) -> list[Entry]:
    kind = _kind(place)
    found = [(name, FILE.fullmatch(name)) for name in place.names]
    return [
        Entry(
            source=Site(kind, int(match[1])),
            target=Site(kind, int(match[1])),
            name=name.removesuffix("/params.npz"),
            place=place,
            files=(name,),
        )
        for name, match in found
        if match
    ]


def load(entry: Entry) -> SparseDictionary:
    (path,) = entry.fetch()
    named = FILE.fullmatch(entry.files[0])
    assert named
    terms = Terms(
        axes={"W_enc": "dm", "W_dec": "md", "b_enc": "m", "b_dec": "d", "threshold": "m"},
        architecture="jumprelu",
        k=int(named[2]) or None,
    )
    return terms.read(path, read_npz(path), entry)


def _kind(place: Place) -> str:
    named = re.findall(r"gemma-scope-[^/]*?-(res|mlp|att|transcoders)(?![a-z])", place.label)
    if not named or named[-1] not in KINDS:
        what = f"the kind {named[-1]!r}, which reads no site of ours" if named else "no kind"
        raise ValueError(
            f"{place.label} names {what}: the folder must be called as published, "
            "such as gemma-scope-2b-pt-res or gemma-scope-2b-pt-mlp"
        )
    return KINDS[named[-1]]


LAYOUT = Layout(name="gemma-scope", matches=matches, find=find, load=load)
