"""A map of files that nobody described, guessed from what their tensors and folders are called."""

import re
from collections.abc import Mapping
from dataclasses import replace

from hooked_qwen.sites import Site
from saes.formats.checkpoint import Checkpoint, checkpoint
from saes.formats.mapped import NONE, DictionaryMap
from saes.formats.place import Place, entry_of
from saes.formats.reading import WEIGHTS, read_json
from saes.formats.terms import USUAL_NAMES

LAYER = re.compile(r"(?:^|[^a-z])(?:layers?|blocks?|l)[._-]?(\d{1,4})(?!\d)", re.IGNORECASE)
KIND = re.compile(r"(resid_pre|resid_mid|resid_post|attn_out|mlp_out|mlp_in)")
NAMES_OF_K = ("k", "top_k", "topk")
CONFIG = "config.json"


def guessed(place: Place) -> DictionaryMap:
    """What the files of `place` look like: the residual stream after a layer, unless they say else.

    Raises `ValueError` where a tensor or the layer cannot be guessed, which a map then has to say.
    """
    files = [name for name in place.names if name.endswith(WEIGHTS)]
    if not files:
        raise ValueError(f"{place.label} holds no file of weights: expected {', '.join(WEIGHTS)}")
    anywhere = Site("resid_post", 0)
    one = checkpoint(entry_of(place, (anywhere, anywhere), files[0]))
    tensors = _tensors(one)
    if missing := {"W_enc", "W_dec"} - tensors.keys():
        raise ValueError(
            f"which tensors of {one.path} are {' and '.join(sorted(missing))} cannot be guessed, "
            f"give --map: {one.told()}"
        )
    return replace(_sites(place, files), tensors=tensors, **_activation(one, tensors))


def _tensors(file: Checkpoint) -> dict[str, str]:
    found = {}
    for ours, names in USUAL_NAMES.items():
        of = [key for name in names for key in file.leaves if _ends_in(key, name)]
        of = [key for key in of if key not in found.values() and file.leaves[key].dim()]
        if of:
            found[ours] = of[0]
    if "r_mag" in found:
        # A gated encoder has two biases in the place of the one.
        found.pop("b_enc", None)
    found.pop("threshold" if "log_threshold" not in found else "log_threshold", None)
    return found


def _ends_in(key: str, name: str) -> bool:
    return key == name or key.endswith(f".{name}")


def _activation(file: Checkpoint, tensors: Mapping[str, str]) -> dict[str, str]:
    """By what the file has: both biases of a gate, a threshold, a k, or nothing."""
    if "r_mag" in tensors:
        return {"activation": "gated"}
    for key, value in file.leaves.items():
        if _ends_in(key, "threshold") and (value.numel() > 1 or float(value) >= 0):
            kind = "jumprelu" if value.numel() > 1 else "batch-topk"
            return {"activation": kind, "threshold": key}
        if _ends_in(key, "log_jumprelu_threshold"):
            return {"activation": "jumprelu", "threshold": f"exp({key})"}
    k = _k(file)
    return {"activation": "relu"} if k == NONE else {"activation": "topk", "k": k}


def _k(file: Checkpoint) -> str:
    for name in file.numbers():
        if name.rpartition(".")[2] in NAMES_OF_K:
            return name
    folder = file.entry.files[0].rpartition("/")[0]
    for place in (f"{folder}/{CONFIG}" if folder else CONFIG, CONFIG):
        if place in file.entry.place.names:
            record = read_json(file.entry.place.fetch(place))
            for name in NAMES_OF_K:
                if isinstance(record.get(name), int):
                    return f"{CONFIG}:{name}"
    return NONE


def _sites(place: Place, files: list[str]) -> DictionaryMap:
    """A pattern of the names where one serves all of them, else each by its name."""
    patterns, sites = set(), {}
    for name in files:
        layer = LAYER.search(name) or LAYER.search(f"/{place.name}")
        if layer is None:
            raise ValueError(
                f"the layer of {name} cannot be guessed: give --map with its site, such as "
                f"sites: {{{name}: resid_post.6}}"
            )
        kind = (KIND.search(name) or KIND.search(place.name) or ["resid_post"])[0]
        sites[name] = f"{kind}.{int(layer[1])}"
        pattern = f"{name[: layer.start(1)]}{{layer}}{name[layer.end(1) :]}"
        patterns.add((pattern if LAYER.search(name) else "", kind))
    if len(patterns) == 1 and (only := next(iter(patterns)))[0]:
        return DictionaryMap(files=only[0], site=f"{only[1]}.{{layer}}")
    return DictionaryMap(sites=sites)
