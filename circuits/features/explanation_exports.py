"""Labels written as others read them: delphi's folder of explanations, Neuronpedia's batches.

delphi         explanations/MODULE_latentN.txt     the text, as one string of JSON
               scores/{detection,fuzz}/MODULE_latentN.txt
                                                   a list of the passages that were judged, where a
                                                   record of `circuits describe` is given
               log/hookpoint_firing_counts.pt      by module, at how many tokens features are on, a
                                                   tensor: by what its `log_results` weighs the
                                                   features (norm outliers do not count here)
               run_config.json                     the modules and scores, as `log_results` is given
                                                   them; it reads this file too
neuronpedia    MODEL/SOURCE/explanations/batch-N.jsonl.gz
                                                   a row of its table Explanation each line
               config/explanation_model_type.jsonl
                                                   the models that explained, which its import
                                                   reads first: a row that names one it does not
                                                   know is refused with all others of its file

Modules and sources are called after our sites (`layers.3.mlp`, `3-mlp`), unless the caller says
what they are called there. `circuits.features.explanations` reads both. What they have no place for
is lost: delphi keeps nobody's name, Neuronpedia a model's but no person's.

Source: github.com/EleutherAI/delphi (3c2e139, and 0.1.3 as published) and
github.com/hijohnnylin/neuronpedia (ebb8426), whose own code read what is written here.
"""

import gzip
import json
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from io import BytesIO
from typing import Any, Literal

import torch
from torch import Tensor

from circuits.features.describe import OWN
from circuits.features.explanations import KINDS
from circuits.features.labels import MODEL, Labels
from hooked_qwen.sites import Site

Target = Literal["delphi", "neuronpedia"]
MODULES = {"resid_post": "layers.{}", "mlp_out": "layers.{}.mlp", "attn_out": "layers.{}.self_attn"}
SOURCES = {"resid_post": "res", "mlp_out": "mlp", "attn_out": "att"}
FOLDERS = {"detection": "detection", "fuzzing": "fuzz"}
"What delphi calls the scores."
AUTHOR = "clkht01d40000jv08hvalcvly"
"The user whose explanations Neuronpedia's own exports are by."
BATCH = 1024
"Rows of a file."


def exported(
    labels: Labels,
    target: Target,
    *,
    model_id: str | None = None,
    names: Mapping[str, str] | None = None,
    described: Mapping[str, Any] | None = None,
) -> dict[str, bytes]:
    """The files of an export, by their path in its folder.

    `names` says what a site is called there, `model_id` what Neuronpedia calls the model.

    Raises `ValueError` without labels, for a site that has no name there, and for Neuronpedia
    without a model, or with a path for one.
    """
    if not labels:
        raise ValueError(
            "there are no labels to export: `circuits labels` and `describe` make some"
        )
    if target == "delphi":
        return dict(_delphi(labels, names or {}, described))
    if not model_id:
        raise ValueError("Neuronpedia keeps explanations by model: say what it is called there")
    if "/" in model_id:
        raise ValueError(f"the model is {model_id!r}: Neuronpedia has names such as qwen3-0.6b")
    return dict(_neuronpedia(labels, names or {}, model_id))


def _delphi(
    labels: Labels, names: Mapping[str, str], described: Mapping[str, Any] | None
) -> Iterator[tuple[str, bytes]]:
    for key, label in labels.items():
        yield f"explanations/{_latent(key, names)}.txt", _json(label.text)
    for feature in described["features"] if described else ():
        for kind, folder in FOLDERS.items():
            rows = [_judged(item) for item in feature["judged"][kind]]
            yield f"scores/{folder}/{_latent(feature['feature'], names)}.txt", _json(rows)
    if described and (counts := described.get("firing_counts")):
        modules = {_module(site, names): torch.tensor(n) for site, n in counts.items()}
        yield "log/hookpoint_firing_counts.pt", _saved(modules)
        of_run = {"hookpoints": list(modules), "scorers": list(FOLDERS.values())}
        yield "run_config.json", _json({**of_run, "constructor_cfg": {}})


def _latent(key: str, names: Mapping[str, str]) -> str:
    site, _, index = key.rpartition("/")
    return f"{_module(site, names)}_latent{index}"


def _module(site: str, names: Mapping[str, str]) -> str:
    return names.get(site) or _called(site, MODULES)


def _saved(tensors: dict[str, Tensor]) -> bytes:
    file = BytesIO()
    torch.save(tensors, file)
    return file.getvalue()


def _judged(item: Mapping[str, Any]) -> dict[str, Any]:
    """A passage that was judged, with the fields of delphi's `ClassifierOutput`."""
    said = item["said"][OWN]
    quantile = item["quantile"] if item["right"] else None
    return {
        "str_tokens": item["tokens"],
        "activations": item["activations"],
        "distance": -1 if quantile is None else quantile,
        "activating": item["right"],
        "prediction": said,
        "probability": None,
        "correct": None if said is None else said == item["right"],
    }


def _neuronpedia(
    labels: Labels, names: Mapping[str, str], model_id: str
) -> Iterator[tuple[str, bytes]]:
    by_source: dict[str, list[dict[str, Any]]] = {}
    models: dict[str, dict[str, str]] = {}
    for key, label in labels.items():
        site, _, index = key.rpartition("/")
        source = names.get(site) or _source(site)
        what = f"{model_id} {source} {index} {label.text}"
        model = None if label.of_person else label.by.removeprefix(MODEL).strip() or MODEL
        if model is not None:
            about = {"displayName": model, "description": "", "creatorName": ""}
            models[model] = {"name": model, **about}
        by_source.setdefault(source, []).append(
            {
                "id": "c" + sha256(what.encode()).hexdigest()[:24],
                "modelId": model_id,
                "layer": source,
                "index": index,
                "authorId": AUTHOR,
                "description": label.text,
                "typeName": None,
                "explanationModelName": model,
            }
        )
    for source, rows in by_source.items():
        for number, batch in enumerate(_batches(rows)):
            path = f"{model_id}/{source}/explanations/batch-{number}.jsonl.gz"
            yield path, gzip.compress(_lines(batch), mtime=0)
    if models:
        yield "config/explanation_model_type.jsonl", _lines(list(models.values()))


def _lines(rows: Sequence[Mapping[str, Any]]) -> bytes:
    return b"".join(_json(row) + b"\n" for row in rows)


def _batches(rows: Sequence[dict[str, Any]]) -> Iterator[Sequence[dict[str, Any]]]:
    for first in range(0, len(rows), BATCH):
        yield rows[first : first + BATCH]


def _source(site: str) -> str:
    kind = _called(site, {kind: word for kind, word in SOURCES.items() if KINDS[word] == kind})
    return f"{Site.parse(site).layer}-{kind}"


def _called(site: str, table: Mapping[str, str]) -> str:
    kind, _, layer = site.partition(".")
    if kind not in table or not layer.isdecimal():
        raise ValueError(
            f"{site} has no name there: give --site 'NAME={site}', NAME what it is called there"
        )
    return table[kind].format(layer)


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()
