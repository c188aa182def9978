"""Explanations of features that others exported, read from local files as labels.

| where from | what a file holds |
|---|---|
| Neuronpedia, explanations | records with `layer`, `index`, `description`, `explanationModelName` |
| Neuronpedia, features | records with `layer`, `index` and a list `explanations` of these |
| delphi | `MODULE_latentN.txt` with the text in it, or an object of `MODULE_latentN: text` |
| this project | `labels.json`, or the state that the page saves (`circuits-state/1`) |

JSON, JSON Lines or a list, plain or packed (.gz, .zst); a folder stands for all such files in it,
or, of a whole export (delphi's results, Neuronpedia's models), for those in its folders
`explanations`.
Where a record names a layer as others do (`6-gemmascope-res-16k`, `language_model.layers.6.mlp`),
its site is found by the words in it, unless the caller says which one it is. Of an explanation that
runs on for several lines, as models' do, the first is the label.
"""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from circuits.features.labels import MODEL, PERSON, Label
from circuits.graph import Node
from hooked_qwen.compression import content_of, suffix_of

LATENT = re.compile(r"(?P<module>.+)_latent(?P<index>\d+)")
MODULE = re.compile(r"(?:\w+\.)*(?:layers?|h|blocks)\.(\d+)(?:\.(\w+))?")
SOURCE = re.compile(r"(\d+)-(.+)")
KINDS = {
    "res": "resid_post",
    "mlp": "mlp_out",
    "transcoder": "mlp_out",
    "att": "attn_out",
    "attn": "attn_out",
    "self_attn": "attn_out",
    "attention": "attn_out",
    "hook_resid_post": "resid_post",
    "hook_mlp_out": "mlp_out",
    "hook_attn_out": "attn_out",
    "clt": "clt",
}
UNPARSED = "Explanation could not be parsed."
"What delphi writes where a model did not answer in the form that was asked for."
STATE = "circuits-state/1"
EXPLANATIONS = ("explanations", "*/explanations", "*/*/explanations")
"Where an export has them, below its folder: delphi's, Neuronpedia's of a model and of several."
SUFFIXES = (".json", ".jsonl", ".txt")

LabelledFeature = tuple[str, Label]
Sites = Mapping[str, str]
"What a file calls a layer or module, and the name of our dictionary there."


def read_explanations(path: Path, sites: Sites | None = None) -> dict[str, Label]:
    """The labels in a file or folder of any kind above, the first that is said of each feature.

    Raises `ValueError` naming the file for one that holds none, and for a layer whose site it does
    not tell.
    """
    if not path.exists():
        raise ValueError(f"there is no file or folder of explanations at {path}")
    labels: dict[str, Label] = {}
    for file in _files(path):
        try:
            for feature, label in _of_file(file, sites or {}):
                labels.setdefault(feature, label)
        except ValueError as error:
            raise ValueError(f"cannot read explanations from {file}: {error}") from None
    if not labels:
        raise ValueError(
            f"{path} holds no explanations: expected records with layer, index and description "
            "(Neuronpedia), MODULE_latentN with a text (delphi), or SITE/INDEX with a text"
        )
    return labels


def _files(path: Path) -> list[Path]:
    """The file itself, or those of a folder that may hold explanations."""
    if not path.is_dir():
        return [path]
    below = [folder for form in EXPLANATIONS for folder in path.glob(form) if folder.is_dir()]
    there = [p for folder in below or [path] for p in folder.iterdir()]
    return sorted(p for p in there if p.is_file() and suffix_of(p) in SUFFIXES)


def _of_file(path: Path, sites: Sites) -> Iterator[LabelledFeature]:
    text = content_of(path).decode("utf-8")
    if suffix_of(path) == ".txt":
        if LATENT.fullmatch(path.stem):
            yield from _of_record({path.stem: _unquoted(text)}, sites)
        return
    for record in _records(text):
        yield from _of_record(record, sites)


def _unquoted(text: str) -> str:
    """The text of delphi's files, which is one string as JSON."""
    try:
        return str(json.loads(text))
    except json.JSONDecodeError:
        return text.strip()


def _records(text: str) -> Iterator[Any]:
    try:
        whole = json.loads(text)
    except json.JSONDecodeError:
        for number, line in enumerate(text.splitlines(), 1):
            if line.strip():
                try:
                    yield json.loads(line)
                except json.JSONDecodeError as error:
                    raise ValueError(f"line {number} is no JSON ({error})") from None
        return
    yield from whole if isinstance(whole, list) else [whole]


def _of_record(record: Any, sites: Sites) -> Iterator[LabelledFeature]:
    if not isinstance(record, Mapping):
        raise ValueError(f"a record is {type(record).__name__}, expected an object")
    if "index" in record and "layer" in record:
        yield from _of_neuronpedia(record, sites)
    elif record.get("schema") == STATE:
        for key, text in dict(record.get("labels") or {}).items():
            node = Node.parse(key)
            if node.kind == "feature":
                yield f"{node.site}/{node.feature}", Label(text=text)
    else:
        for key, found in record.items():
            yield from _of_pair(key, found, sites)


def _of_neuronpedia(record: Mapping[str, Any], sites: Sites) -> Iterator[LabelledFeature]:
    said = [record] if "description" in record else list(record.get("explanations") or [])
    feature = f"{_site(str(record['layer']), sites)}/{int(record['index'])}" if said else ""
    for each in said:
        if text := _first_line(str(each.get("description") or "")):
            model = each.get("explanationModelName")
            yield feature, Label(text=text, by=f"{MODEL} {model}" if model else PERSON)


def _of_pair(key: str, found: Any, sites: Sites) -> Iterator[LabelledFeature]:
    fields = {"text": found} if isinstance(found, str) else found
    text = fields.get("text") if isinstance(fields, Mapping) else None
    if not isinstance(text, str):
        raise ValueError(f"{key!r} is {str(found)[:60]!r}, expected the text of an explanation")
    if not text.strip():
        return
    if latent := LATENT.fullmatch(key):
        text = _first_line(text)
        if text == UNPARSED:
            return
        by = str(fields.get("by") or f"{MODEL} of delphi")
        yield f"{_site(latent['module'], sites)}/{latent['index']}", Label(text=text, by=by)
    else:
        name, _, index = key.partition("/")
        if not index.isdecimal():
            raise ValueError(f"{key!r} is no feature: write SITE/INDEX, such as 'mlp_out.3/812'")
        by = str(fields.get("by") or PERSON)
        yield f"{_site(name, sites)}/{index}", Label(text=text, by=by)


def _first_line(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if line.strip()), "")


def _site(name: str, sites: Sites) -> str:
    """Our name of what a file calls `name`."""
    if name in sites:
        return sites[name]
    if module := MODULE.fullmatch(name):
        kind = KINDS.get(module[2], "") if module[2] else "resid_post"
        layer = module[1]
    elif source := SOURCE.fullmatch(name):
        words = re.split(r"[-_]", source[2])
        kind = next((KINDS[word] for word in words if word in KINDS), "")
        layer = source[1]
    elif name.isdecimal():
        kind, layer = "", name
    else:
        return name
    if not kind:
        raise ValueError(
            f"{name!r} does not say which site it is: give --site '{name}=SITE', such as "
            f"mlp_out.{layer}"
        )
    return f"{kind}.{layer}"
