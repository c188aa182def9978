"""A folder with an adapter is the adapted model, wherever a model is asked for."""

import json
import shutil

import pytest
import torch

from hooked_qwen.load import load, load_config, load_tokenizer
from hooked_qwen.plain_model import load_plain
from saes.scope.trained_weights import opened

pytest.importorskip("peft")
TOKENS = torch.arange(100, 112)[None]


@pytest.fixture(scope="module")
def adapted(tmp_path_factory):
    """An adapter of the bundled model that changes what it computes, and its logits."""
    folder = tmp_path_factory.mktemp("adapter")
    model = opened(load_plain("bundled", device="cpu"), 2, base="bundled")
    plain = model(input_ids=TOKENS).logits
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.05)
    model.save_pretrained(folder)
    logits = model(input_ids=TOKENS).logits.detach()
    assert (logits - plain).abs().max() > 0.1
    return folder, logits


def test_an_adapter_is_merged_into_its_model(adapted):
    folder, logits = adapted
    hooked, plain = load(folder, device="cpu"), load_plain(folder, device="cpu")
    for found in (hooked(TOKENS), plain(input_ids=TOKENS).logits):
        torch.testing.assert_close(found.detach(), logits, rtol=1e-3, atol=1e-3)
    assert load_config(folder).hidden_size == hooked.cfg.d_model
    assert load_tokenizer(folder).get_vocab() == load_tokenizer("bundled").get_vocab()


def test_an_adapter_of_an_adapted_model_goes_on_top(adapted, tmp_path):
    folder, logits = adapted
    model = opened(load_plain(folder, device="cpu"), 2, base=str(folder))
    model.save_pretrained(tmp_path / "second")
    found = load(tmp_path / "second", device="cpu")(TOKENS)
    torch.testing.assert_close(found.detach(), logits, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("base", [None, "", 3])
def test_an_adapter_that_names_no_model_is_refused(adapted, tmp_path, base):
    folder = shutil.copytree(adapted[0], tmp_path / "adapter")
    config = json.loads((folder / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = base
    (folder / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="names no model"):
        load(folder)


def test_an_adapter_that_does_not_fit_is_refused(adapted, tmp_path):
    folder = shutil.copytree(adapted[0], tmp_path / "adapter")
    config = json.loads((folder / "adapter_config.json").read_text())
    config["r"] = 3
    (folder / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="does not fit its model"):
        load(folder)
