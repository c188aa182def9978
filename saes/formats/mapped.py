"""Dictionaries in any layout of files, by a map of what is what.

    files: layer_{layer}.pt             names of the files: {layer} is a number, * anything
    site: resid_post.{layer}            what is read, in any spelling; {layer-1}, {layer+1} too
    target: mlp_out.{layer}             what is written, where that is something else
    sites: {early/weights.pt: resid_post.6}             in place of these three
    tensors: {W_enc: state.W_enc, b_enc: state.b_enc, W_dec: state.W_dec, b_dec: state.b_pre}
    orientation: {W_enc: dm, W_dec: md}                 m features, d the width of the site
    activation: topk                    or signed-topk, or any other architecture
    k: k
    threshold: none
    ranked_by: activation               or norm: the k largest are of activation times decoder norm
    mean: none                          subtracted of the raw input, added to the raw output
    scale: scale                        multiplies the input, divides the output
    target_scale: scale                 where the output is divided by something else
    centre: b_dec                       subtracted of the scaled input
    numbers: {layer_7.pt: {a: 0.37}}    what the file lacks: as if they were in it
    model: 0123456789abcdef             hash of the model, as `dictionary.json` has it
    sha256: {layer_7.pt: 64 digits}     of the files; those of other content are refused

`k`, `threshold` and the scales are numbers, or names in the file, or FILE.json:FIELD beside it; of
a name also `1/NAME`, `sqrt(d)/NAME` (NAME is a mean norm) and `exp(NAME)`. A tensor in a group is
called `GROUP.NAME`. A scale may also be `sqrt(d)/mean norm` or `1/mean norm`, of activations that
are measured. Left out, a term is `none`; `orientation` is seen from the biases.

The arithmetic is that of `saes.formats.terms`.
"""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from saes.architectures.table import ARCHITECTURES
from saes.dictionary import SparseDictionary
from saes.formats.checkpoint import Checkpoint, checkpoint
from saes.formats.map_hashes import check_sha256
from saes.formats.patterns import ends_of, pattern, site_at
from saes.formats.place import Entry, Place, entry_of
from saes.formats.reading import WEIGHTS, read_yaml
from saes.formats.terms import RANKED_BY, USUAL_NAMES, Terms

NONE = "none"
SIGNED = "signed-topk"
ACTIVATIONS = (*ARCHITECTURES, SIGNED)
BY_TOKEN = {
    "1/norm of each token": "x / |x|",
    "sqrt(d)/norm of each token": "x sqrt(d) / |x|",
    "standardised tokens": "(x - its mean) / its standard deviation",
}
"Scales that the formula of our dictionaries has no place for, with what they do."
MEASURED = {
    "sqrt(d)/mean norm": "the mean norm becomes sqrt(d)",
    "1/mean norm": "the mean norm becomes 1",
}
"Scales by the mean norm of activations, norm outliers left out, which some text has to show."
REST = {"threshold": "m", "b_enc": "m", "b_gate": "m", "b_mag": "m", "r_mag": "m"}
REST |= {"log_threshold": "m", "b_dec": "t", "mean": "s", "centre": "s"}
"Axes of what has one orientation."
GROUPED = {"sites": 1, "tensors": 1, "orientation": 1, "numbers": 2, "sha256": 1}
"Terms that are names with values, by how often."
ORIENTATIONS = {"W_enc": ("md", "dm"), "W_dec": ("md", "dm"), "W_skip": ("ts", "st")}


@dataclass(frozen=True, kw_only=True)
class DictionaryMap:
    """What is what in the files of a suite; the module's docstring explains each term."""

    files: str = ""
    site: str = ""
    target: str = ""
    sites: Mapping[str, str] = field(default_factory=dict)
    tensors: Mapping[str, str] = field(default_factory=dict)
    orientation: Mapping[str, str] = field(default_factory=dict)
    activation: str = "topk"
    k: str = NONE
    threshold: str = NONE
    ranked_by: str = "activation"
    mean: str = NONE
    scale: str = NONE
    target_scale: str = ""
    centre: str = NONE
    numbers: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    model: str = ""
    sha256: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, options in {"activation": ACTIVATIONS, "ranked_by": RANKED_BY}.items():
            if getattr(self, name) not in options:
                raise ValueError(
                    f"{name} is {getattr(self, name)!r}: expected one of {', '.join(options)}"
                )
        if unknown := self.tensors.keys() - USUAL_NAMES.keys():
            raise ValueError(
                f"a dictionary has no tensor {', '.join(sorted(unknown))}: those there are, are "
                f"{', '.join(USUAL_NAMES)}"
            )
        for name, axes in self.orientation.items():
            if axes not in ORIENTATIONS.get(name, ()):
                raise ValueError(
                    f"orientation of {name} is {axes!r}: write W_enc or W_dec: md, for a row for "
                    "each feature, or dm, for a column; W_skip: ts, or st for x @ W_skip"
                )
        if not self.sites and not self.site:
            raise ValueError("a map says which site is read: `site`, or `sites` file by file")

    def find(self, place: Place) -> list[Entry]:
        """The dictionaries in `place`, none read yet.

        Raises `ValueError` where no file is one, and where one is not what the map has hashes of.
        """
        found = self._found(place)
        check_sha256(self.sha256, place, [entry.files[0] for entry in found])
        return found

    def _found(self, place: Place) -> list[Entry]:
        if self.sites:
            if missing := [file for file in self.sites if file not in place.names]:
                raise ValueError(f"{place.label} lacks {', '.join(missing[:3])}: {_there(place)}")
            return [entry_of(place, ends_of(text), file) for file, text in self.sites.items()]
        named = map(pattern(self.files).fullmatch, place.names)
        found = [match for match in named if match and match[0].endswith(WEIGHTS)]
        if not found or (not self.files and len(found) > 1):
            what = f"no file is called as {self.files}" if self.files else "`files` is left out"
            raise ValueError(f"{place.label} cannot be read by the map, {what}: {_there(place)}")
        source, target = self.site, self.target or self.site
        return [entry_of(place, (site_at(source, m), site_at(target, m)), m[0]) for m in found]

    def load(self, entry: Entry) -> SparseDictionary:
        """One dictionary, folded, in float32; raises `ValueError` that starts with its file."""
        file = self.opened(entry)
        tensors = self.tensors_of(file)
        return self.terms(file, tensors).read(file.path, tensors, entry).widened()

    def opened(self, entry: Entry) -> Checkpoint:
        """The file of an entry, with the numbers that the map adds to it."""
        return checkpoint(entry, self.numbers.get(entry.name, {}))

    def tensors_of(self, file: Checkpoint) -> dict[str, Tensor]:
        """What is read of a file, under our names."""
        wanted = {**self.tensors, "mean": self.mean, "centre": self.centre}
        if self.centre == "b_dec":
            del wanted["centre"]
        found = {k: file.tensor(v, k) for k, v in wanted.items() if v != NONE}
        if missing := {"W_enc", "W_dec"} - found.keys():
            raise ValueError(f"the map names no tensor for {' and '.join(sorted(missing))}")
        if self.threshold != NONE:
            found |= self._threshold(file)
        return found

    def terms(self, file: Checkpoint, tensors: Mapping[str, Tensor]) -> Terms:
        """What the tensors mean, by the numbers beside them."""
        axes = self.axes_of(file, tensors)
        d = tensors["W_enc"].shape[axes["W_enc"].index("s")]
        a, b = self.scales(file, d)
        k = None if self.k == NONE else file.whole_number(self.k, "k")
        signed = self.activation == SIGNED
        return Terms(
            axes=axes,
            mean=None if self.mean == NONE else "mean",
            centre={NONE: None, "b_dec": "b_dec"}.get(self.centre, "centre"),
            scale=a,
            target_scale=b,
            ranked_by=self.ranked_by,
            architecture="topk" if signed else self.activation,
            k=k,
            signed=signed,
        )

    def axes_of(self, file: Checkpoint, tensors: Mapping[str, Tensor]) -> dict[str, str]:
        """The letters of all tensors; raises `ValueError` where a matrix may be either way."""
        return {name: self._axes(file, name, tensors) for name in tensors}

    def scales(self, file: Checkpoint, d: int) -> tuple[float, float]:
        """What the input is multiplied by, and what the output is divided by."""
        a = self._scale(file, self.scale, d)
        return a, self._scale(file, self.target_scale, d) if self.target_scale else a

    def measured(self, x_norm: float, y_norm: float, s: int, t: int) -> "DictionaryMap":
        """The same with numbers for scales that go by the mean norms of input and output."""
        if self.scale not in MEASURED:
            return self
        x, y = (s**0.5, t**0.5) if self.scale.startswith("sqrt") else (1.0, 1.0)
        return replace(self, scale=repr(x / x_norm), target_scale=repr(y / y_norm))

    def _scale(self, file: Checkpoint, text: str, d: int) -> float:
        if text in BY_TOKEN:
            raise ValueError(
                f"a scale of {text} ({BY_TOKEN[text]}) depends on the token: our dictionaries are "
                "linear in what they read, so this one cannot be converted"
            )
        if text in MEASURED:
            raise ValueError(f"a scale of {text} is measured: give some text and the model")
        value = 1.0 if text == NONE else file.number(text, "scale", d=d)
        if value <= 0:
            raise ValueError(f"{file.path}: scale is {value:g}, expected more than 0")
        return value

    def _threshold(self, file: Checkpoint) -> dict[str, Tensor]:
        """A threshold for each feature, or one for all."""
        logarithm = re.fullmatch(r"exp\((.+)\)", self.threshold)
        text, name = (logarithm[1], "log_threshold") if logarithm else (self.threshold, "threshold")
        if text in file.leaves and file.leaves[text].numel() > 1:
            return {name: file.leaves[text]}
        value = file.number(text, "threshold", d=1)
        if value < 0 and not logarithm:
            raise ValueError(
                f"{file.path} has the threshold {value:g}, which means that it was never set: "
                "write activation: topk with a k"
            )
        return {name: torch.tensor(value, dtype=torch.float64)}

    def _axes(self, file: Checkpoint, name: str, tensors: Mapping[str, Tensor]) -> str:
        """The letters of a tensor's axes; of a matrix as told, or as its shape tells."""
        if name in REST:
            return REST[name] if tensors[name].dim() else ""
        if name == "W_skip":
            return self.orientation.get(name, "ts")
        side = "s" if name == "W_enc" else "t"
        if name in self.orientation:
            return self.orientation[name].replace("d", side)
        m = len(tensors[_feature_bias(file, tensors)])
        shape = tuple(tensors[name].shape)
        if len(shape) != 2 or shape.count(m) != 1:
            raise ValueError(
                f"{file.path}: {name} has shape {shape}, of {m} features: say in the map which "
                f"axis is which, such as orientation: {{{name}: md}}"
            )
        return f"m{side}" if shape[0] == m else f"{side}m"


def _feature_bias(file: Checkpoint, tensors: Mapping[str, Tensor]) -> str:
    """What has a number for each feature."""
    for name, axes in REST.items():
        if axes == "m" and name in tensors and tensors[name].dim() == 1:
            return name
    raise ValueError(
        f"{file.path} has nothing with a number for each feature: say in the map which axis is "
        "which, such as orientation: {W_enc: md, W_dec: dm}"
    )


def read_map(path: Path) -> DictionaryMap:
    """Raises `ValueError` that starts with `path` where it is no map."""
    record = read_yaml(path)
    known = {one.name: one.type for one in fields(DictionaryMap)}
    if unknown := record.keys() - known.keys():
        raise ValueError(
            f"{path} has the terms {', '.join(sorted(map(str, unknown)))}, which a map has not: "
            f"those there are, are {', '.join(known)}"
        )
    given: dict[str, Any] = {}
    for name, value in record.items():
        given[name] = _given(path, name, value, GROUPED.get(name, 0))
    try:
        return DictionaryMap(**given)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def joined(maps: Mapping[str, DictionaryMap]) -> DictionaryMap:
    """One map for files of which each has numbers of its own for its scales."""
    first = next(iter(maps.values()))
    if all(one == first for one in maps.values()):
        return first
    of_input, of_output = "measured_scale", "measured_target_scale"
    numbers = {
        file: {of_input: one.scale, of_output: one.target_scale} for file, one in maps.items()
    }
    return replace(first, scale=of_input, target_scale=of_output, numbers=numbers)


def map_text(what: DictionaryMap) -> str:
    """A map as its file has it, without the terms that say nothing."""
    plain = {k: v for k, v in asdict(what).items() if v and v != NONE}
    return yaml.safe_dump(plain, sort_keys=False, allow_unicode=True)


def _given(path: Path, name: str, value: Any, depth: int) -> Any:
    """One value as text, or names with values, of which each may again be such."""
    if isinstance(value, Mapping) != (depth > 0) or isinstance(value, list):
        expected = "names with values" if depth else "one value"
        raise ValueError(f"{path} has {value!r} for {name}, expected {expected}")
    if depth:
        return {str(k): _given(path, name, v, depth - 1) for k, v in value.items()}
    return NONE if value is None else str(value)


def _there(place: Place) -> str:
    weights = [name for name in place.names if name.endswith(WEIGHTS)]
    more = f" and {len(weights) - 5} more" if len(weights) > 5 else ""
    return f"its files of weights are {', '.join(weights[:5]) or 'none'}{more}"
