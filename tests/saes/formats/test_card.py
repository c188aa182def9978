"""The README of a suite is a model card that the hub can read."""

import pytest
import torch
from huggingface_hub import ModelCard

from hooked_qwen.sites import Site
from saes.dictionary import DictionarySpec
from saes.formats import ours
from tests.toys import random_dictionary

METRICS = {"l0": 5.0, "fvu": 0.123456, "dead": 0.5, "loss_recovered": 0.987654, "kl": 0.0312}


def save(folder, *, model="Qwen3-0.6B", transcoder=True, metrics=METRICS):
    out = Site("mlp_out", 1)
    specs = [DictionarySpec(source=out, target=out, k=5)]
    if transcoder:
        specs.append(DictionarySpec(source=Site("mlp_in", 1), target=out, k=6))
    for spec in specs:
        made = random_dictionary(spec, dtype=torch.float32)
        card = ours.Card(model={"name": model}, metrics=metrics)
        ours.save_dictionary(made, folder / spec.name, card=card)
    ours.save_suite_index(folder, [spec.name for spec in specs])
    return folder


def card_of(folder):
    return (folder / "README.md").read_text(encoding="utf-8")


def test_a_suite_is_written_with_its_card(tmp_path):
    folder = save(tmp_path / "suite")
    text = card_of(folder)
    data = ModelCard(text).data
    assert data.library_name == "qwen-circuits"
    assert data.base_model == "Qwen3-0.6B"
    assert set(data.tags) >= {"sparse-autoencoder", "transcoder"}
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("|")]
    table = {row[0]: dict(zip(rows[0], row, strict=True)) for row in rows[2:]}
    assert table.keys() == {"mlp_out.1", "mlp_in.1-mlp_out.1"}
    sae = table["mlp_out.1"]
    assert (sae["source"], sae["target"], sae["k"]) == ("mlp_out.1", "mlp_out.1", "5")
    assert (sae["FVU"], sae["loss recovered"], sae["KL"]) == ("0.123", "0.988", "0.0312")


def test_tags_name_only_what_is_there(tmp_path):
    data = ModelCard(card_of(save(tmp_path / "suite", transcoder=False))).data
    assert "transcoder" not in data.tags


@pytest.mark.parametrize("name", ["a|b\n---\nevil: true", 'quote "', "", "ñ: #x"])
def test_a_hostile_name_stays_a_name(tmp_path, name):
    data = ModelCard(card_of(save(tmp_path / "suite", model=name))).data
    assert (data.base_model or "") == name
    assert "evil" not in data.to_dict()


def test_metrics_that_are_missing_leave_their_cells_empty(tmp_path):
    text = card_of(save(tmp_path / "suite", metrics={"fvu": None, "l0": "high"}))
    row = next(line for line in text.splitlines() if line.startswith("| mlp_out.1"))
    assert [cell.strip() for cell in row.strip("|").split("|")][5:] == ["high", "", "", "", ""]
