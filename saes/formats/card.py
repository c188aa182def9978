"""The README of a suite: a model card that the hub can read, with the metrics."""

import json
from collections.abc import Mapping
from typing import Any

COLUMNS = {"l0": "L0", "fvu": "FVU", "dead": "dead", "loss_recovered": "loss recovered", "kl": "KL"}
HEAD = """\
# Sparse dictionaries

{what}

    pre = x @ W_enc.T + b_enc
    f   = the features: the k largest of pre, or those above their threshold, never below zero
    y   = f @ W_dec + b_dec (+ x @ W_skip.T)

on raw activations. A dictionary reads its source site and writes its target site.

```python
from saes.suite import load_suite

suite = load_suite("THIS FOLDER")
```
"""
LEGEND = """\
L0: active features a token. FVU: squared error over squared distance to the mean. dead: share of
features that never fired. loss recovered: of the loss that zeroing the site costs. KL: from the
clean to the spliced next-token distribution, nats. All on held-out text.
"""


def card_text(records: Mapping[str, Mapping[str, Any]]) -> str:
    """The card of dictionaries, from what is recorded beside each (`dictionary.json`)."""
    models = sorted({str(_part(r, "model").get("name", "")) for r in records.values()} - {""})
    header = ["---", "library_name: qwen-circuits", f"tags: {json.dumps(_tags(records))}"]
    if len(models) == 1:
        header.append(f"base_model: {json.dumps(models[0])}")
    what = f"{len(records)} {'dictionary' if len(records) == 1 else 'dictionaries'}" + (
        f" of {_cell(', '.join(models))}" if models else ""
    )
    return "\n".join([*header, "---", "", HEAD.format(what=f"{what}."), *_table(records), LEGEND])


def _tags(records: Mapping[str, Mapping[str, Any]]) -> list[str]:
    is_sae = [record.get("source") == record.get("target") for record in records.values()]
    kinds = ["sparse-autoencoder"] * any(is_sae) + ["transcoder"] * (not all(is_sae))
    return ["mechanistic-interpretability", *kinds]


def _table(records: Mapping[str, Mapping[str, Any]]) -> list[str]:
    rows = [["dictionary", "source", "target", "architecture", "k", *COLUMNS.values()]]
    rows.append(["---"] * len(rows[0]))
    for name, record in records.items():
        about = [record.get(key) for key in ("source", "target", "architecture", "k")]
        metrics = _part(record, "metrics")
        rows.append([_cell(value) for value in (name, *about, *map(metrics.get, COLUMNS))])
    return [*(f"| {' | '.join(row)} |" for row in rows), ""]


def _part(record: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = record.get(name)
    return part if isinstance(part, dict) else {}


def _cell(value: Any) -> str:
    if value is None:
        return ""
    text = f"{value:.3g}" if isinstance(value, float) else str(value)
    return " ".join(text.replace("|", "\\|").split())
