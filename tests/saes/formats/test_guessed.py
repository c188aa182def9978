"""Maps guessed from the names and shapes of tensors."""

import pytest
import torch

from saes.formats.guessed import guessed
from saes.formats.place import local_place
from tests.saes.formats.test_mapped import weights

D, M, K = 24, 20, 5


@pytest.mark.parametrize(
    ("saved", "expected"),
    [
        ({"state": weights(), "k": K}, {"activation": "topk", "k": "k"}),
        ({**weights(), "threshold": torch.tensor(0.3)}, {"activation": "batch-topk"}),
        ({**weights(), "threshold": torch.rand(M)}, {"activation": "jumprelu"}),
        (weights(), {"activation": "relu"}),
        ({**weights(gate_bias=(M,), r_mag=(M,), mag_bias=(M,))}, {"activation": "gated"}),
    ],
)  # fmt: skip
def test_a_map_is_guessed_from_names(tmp_path, saved, expected):
    for layer in (3, 11):
        torch.save(saved, tmp_path / f"model.layers.{layer}_sae.pt")
    what = guessed(local_place(tmp_path))
    assert (what.files, what.site) == ("model.layers.{layer}_sae.pt", "resid_post.{layer}")
    assert {name: getattr(what, name) for name in expected} == expected
    group = "state." if "state" in saved else ""
    assert what.tensors["W_enc"] == f"{group}W_enc"


def test_what_cannot_be_guessed_is_asked_for(tmp_path):
    torch.save({"matrix": torch.randn(3, 3)}, tmp_path / "layer_1.pt")
    with pytest.raises(
        ValueError, match=r"cannot be guessed, give --map: it holds matrix \(3, 3\)"
    ):
        guessed(local_place(tmp_path))
    torch.save(weights(), tmp_path / "layer_1.pt")
    (tmp_path / "layer_1.pt").rename(tmp_path / "sae_final.pt")
    with pytest.raises(ValueError, match=r"the layer of sae_final\.pt cannot be guessed"):
        guessed(local_place(tmp_path))
    with pytest.raises(ValueError, match="holds no file of weights"):
        guessed(local_place(tmp_path / "empty"))
