"""Qwen-Scope: TopK autoencoders of the residual stream, one file a layer.

    SAE-Res-Qwen3-1.7B-Base-W32K-L0_50/layer{n}.sae.pt    W_enc [m, d], W_dec [d, m], b_enc, b_dec

    f = the k largest of x @ W_enc.T + b_enc, negative ones too;   y = f @ W_dec.T + b_dec

k stands only in the repository's name. File n is read from the output of decoder layer n, which
is `resid_post.n`; Hugging Face's `hidden_states[n + 1]` equals it except after the last layer,
where it is normed.
"""

import re

from hooked_qwen.sites import Site
from saes.dictionary import SparseDictionary
from saes.formats.layout import Layout
from saes.formats.place import Entry, Place
from saes.formats.reading import read_pt
from saes.formats.terms import Terms

FILE = re.compile(r"(?:.*/)?layer(\d{1,4})\.sae\.pt")


def matches(place: Place) -> bool:
    return any(FILE.fullmatch(name) for name in place.names)


def find(place: Place) -> list[Entry]:
    found = [(name, FILE.fullmatch(name)) for name in place.names]
    return [
        Entry(
            source=Site("resid_post", int(match[1])),
            target=Site("resid_post", int(match[1])),
            name=name,
            place=place,
            files=(name,),
        )
        for name, match in found
        if match
    ]


def load(entry: Entry) -> SparseDictionary:
    (path,) = entry.fetch()
    named = re.findall(r"L0_(\d{1,6})", str(path.absolute()))
    if not named:
        raise ValueError(
            f"{path} does not say how many features it keeps: its folder must be called as "
            "published, such as SAE-Res-Qwen3-1.7B-Base-W32K-L0_50"
        )
    terms = Terms(
        axes={"W_enc": "md", "W_dec": "dm", "b_enc": "m", "b_dec": "d"},
        k=int(named[-1]),
        signed=True,
    )
    return terms.read(path, read_pt(path), entry)


LAYOUT = Layout(name="qwen-scope", matches=matches, find=find, load=load)
