"""PyTorch files are read without running what is in them."""

from dataclasses import replace

import pytest
import torch

from saes.formats.mapped import DictionaryMap
from saes.formats.place import local_place

PLAIN = {"W_enc": "W_enc", "b_enc": "b_enc", "W_dec": "W_dec", "b_dec": "b_dec"}
SITE = {"files": "layer_{layer}.pt", "site": "resid_post.{layer}"}


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path):
    torch.save({"W_enc": torch.nn.Linear(2, 2)}, tmp_path / "layer_1.pt")
    what = DictionaryMap(**SITE, tensors=PLAIN, k="5")
    with pytest.raises(ValueError, match="holds Python objects"):
        what.load(what.find(local_place(tmp_path))[0])
    (tmp_path / "weights.onnx").write_bytes(b"")
    other = replace(what, files="", sites={"weights.onnx": "embed"})
    with pytest.raises(ValueError, match=r"is no file of weights: expected one of \.pt"):
        other.load(other.find(local_place(tmp_path))[0])
