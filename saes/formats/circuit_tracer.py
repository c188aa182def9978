"""circuit-tracer: a transcoder for each layer, or a cross-layer one, and `config.yaml`.

    layer_{i}.safetensors    W_enc [m, s], W_dec [m, t], b_enc [m], b_dec [t];
                             optional activation_function.threshold [m], W_skip [t, s]

    p = x @ W_enc.T + b_enc;   y = f @ W_dec + b_dec (+ x @ W_skip.T)
    f = relu(p) | p * [p > threshold] | the k largest of p, negative ones too (`activation: topk`)

`feature_input_hook` and `feature_output_hook` name the sites within a block. A threshold below
zero would let negative features through: refused.

Cross-layer (`model_kind: cross_layer_transcoder`), i from 0 to n - 1 for n layers:

    W_enc_{i}.safetensors    W_enc_i [m, s], b_enc_i [m], b_dec_i [t]; optional threshold_i [m]
    W_dec_{i}.safetensors    W_dec_i [m, n - i, t], to the layers i, i + 1, ...

Each layer i is a dictionary of its own here, `clt.i`. What all of them write at layer j has one
bias, b_dec_j: it is that of `clt.j`.

Written: every layer from 0 on, of one shape, with ReLU or thresholds. The library's own loader
knows no TopK and would read one as ReLU, so that is refused.
"""

import re
from collections.abc import Iterable
from pathlib import Path

import torch
import yaml
from torch import Tensor

from hooked_qwen.sites import Site
from saes.dictionary import SparseDictionary
from saes.formats.layout import FileLayout, save_weights
from saes.formats.names import transformer_lens
from saes.formats.patterns import pattern
from saes.formats.place import Entry, Place, entry_of
from saes.formats.reading import Config, assemble, check_tensors, read_config, read_weights
from saes.formats.terms import Terms

CONFIG = "config.yaml"
FILE, CROSS_LAYER = pattern("layer_{layer}.safetensors"), pattern("W_enc_{layer}.safetensors")
AXES = {"W_enc": "ms", "W_dec": "mt", "b_enc": "m", "b_dec": "t"}
THRESHOLD = "activation_function.threshold"


def matches(place: Place) -> bool:
    return CONFIG in place.names or any(
        re.fullmatch(r"W_(enc|dec)_\d+\.safetensors", name) for name in place.names
    )


def find(place: Place) -> list[Entry]:
    if CONFIG not in place.names:
        raise ValueError(
            f"{place.label} holds parts of a cross-layer transcoder without its {CONFIG}, which "
            "says what it reads and writes"
        )
    config = read_config(place.fetch(CONFIG))
    kinds = {None: "it is not there", "transcoder_set": "", "cross_layer_transcoder": ""}
    config.check(model_kind=kinds)
    if config.record.get("transcoders") is not None:
        raise ValueError(
            f"{config.path} names transcoders that lie elsewhere: give the place where they are"
        )
    if config.record["model_kind"] == "cross_layer_transcoder":
        return _cross_layer(place, config)
    named = filter(None, map(FILE.fullmatch, place.names))
    return [entry_of(place, _sites(config, int(m["layer"])), m[0], CONFIG) for m in named]


def _sites(config: Config, layer: int) -> tuple[Site, Site]:
    """What a layer's features read and write."""
    hooks = [config.field(f"feature_{end}_hook", str) for end in ("input", "output")]
    source, target = (config.site_called(f"blocks.{layer}.{hook}") for hook in hooks)
    return source, target


def _cross_layer(place: Place, config: Config) -> list[Entry]:
    n = sum(1 for name in place.names if CROSS_LAYER.fullmatch(name))
    expected = [f"W_{side}_{i}.safetensors" for i in range(n) for side in ("enc", "dec")]
    if missing := [name for name in expected if name not in place.names]:
        raise ValueError(f"{place.label} lacks {', '.join(missing[:3])} of {n} layers")
    sites = [_sites(config, layer) for layer in range(n)]
    return [
        Entry(
            source=source,
            target=target,
            also_writes=tuple(later for _, later in sites[layer + 1 :]),
            name=f"clt.{layer}",
            called=f"clt.{layer}",
            place=place,
            files=(f"W_enc_{layer}.safetensors", f"W_dec_{layer}.safetensors", CONFIG),
        )
        for layer, (source, target) in enumerate(sites)
    ]


def load(entry: Entry) -> SparseDictionary:
    if entry.called:
        return _load_cross_layer(entry)
    path, about = entry.fetch()
    config, tensors = read_config(about), read_weights(path)
    config.check(activation={None: "", "relu": "", "jumprelu": "", "topk": ""})
    topk = config.record.get("activation") == "topk"
    threshold = tensors.get(THRESHOLD)
    if threshold is not None and not topk:
        _not_negative(path, threshold)
    terms = Terms(
        axes=AXES,
        optional={"W_skip": "ts"} | ({} if topk else {THRESHOLD: "m"}),
        architecture="topk" if topk else "relu" if threshold is None else "jumprelu",
        k=config.field("k", int) if topk else None,
        signed=topk,
    )
    return terms.read(path, tensors, entry)


def _load_cross_layer(entry: Entry) -> SparseDictionary:
    path, decoder, _ = entry.fetch()
    # The layer is in the tensors' names too.
    tensors = {
        re.sub(rf"_{entry.source.layer}$", "", name): value
        for one in (path, decoder)
        for name, value in read_weights(one).items()
    }
    axes = {"W_enc": "ms", "b_enc": "m", "b_dec": "t", "W_dec": "mnt"}
    check_tensors(path, tensors, axes, {"threshold": "m"})
    if (n := tensors["W_dec"].shape[1]) != len(entry.writes):
        raise ValueError(f"{decoder} writes {n} layers, expected {len(entry.writes)}")
    if "threshold" in tensors:
        tensors["threshold"] = _not_negative(path, tensors["threshold"])
    own = tensors["b_dec"]
    tensors["b_dec"] = torch.cat([own, own.new_zeros((n - 1) * len(own))])
    tensors["W_dec"] = tensors["W_dec"].flatten(1)
    return assemble(
        path,
        tensors,
        source=entry.source,
        target=entry.target,
        also_writes=entry.also_writes,
        called=entry.called,
        architecture="jumprelu" if "threshold" in tensors else "relu",
    )


def _not_negative(path: Path, threshold: Tensor) -> Tensor:
    if bool((threshold < 0).any()):
        raise ValueError(f"{path}: a threshold below zero lets negative features through")
    return threshold


def save(dictionaries: Iterable[SparseDictionary], folder: Path) -> None:
    """Write a set of transcoders, one for each layer from 0 on.

    Raises `ValueError` for TopK, for a layer that is missing, and where layers differ in shape
    or in the sites they join.
    """
    layers: set[int] = set()
    kinds: dict[tuple[object, ...], dict[str, str]] = {}
    for one in dictionaries:
        hooks = _hooks(one)
        tensors = dict(one.state_dict())
        if "threshold" in tensors:
            tensors[THRESHOLD] = tensors.pop("threshold").relu()
        layer = one.target.layer
        save_weights(tensors, folder / f"layer_{layer}.safetensors")
        layers.add(layer)
        kinds[(*hooks.values(), tuple(one.W_enc.shape), one.spec.skip)] = hooks
    if layers != set(range(len(layers))) or len(kinds) != 1:
        raise ValueError(
            "circuit-tracer needs every layer from 0 on, of one shape and between the same sites: "
            f"got the layers {sorted(layers)} and {len(kinds)} kinds"
        )
    config = {"model_kind": "transcoder_set", **next(iter(kinds.values()))}
    (folder / CONFIG).write_text(yaml.safe_dump(config), encoding="utf-8")


def _hooks(one: SparseDictionary) -> dict[str, str]:
    """The sites' names within a block."""
    spec, layer = one.spec, one.target.layer
    if spec.architecture == "topk":
        raise ValueError(f"circuit-tracer reads no TopK: {spec.name} keeps the {spec.k} largest")
    if spec.source.layer != layer or layer < 0:
        raise ValueError(f"circuit-tracer holds one layer in a file: {spec.name} is not of one")
    ends = {"feature_input_hook": spec.source, "feature_output_hook": spec.target}
    return {k: transformer_lens(site).removeprefix(f"blocks.{layer}.") for k, site in ends.items()}


LAYOUT = FileLayout(name="circuit-tracer", matches=matches, find=find, load=load, save=save)
