"""dictionary_learning's layout: unset thresholds, spellings of sites, numbers that are none."""

import pytest
import torch

from saes.suite import find
from tests.saes import published
from tests.saes.formats.test_published import activations, change, one, refuse
from tests.saes.published import CASES, K


@pytest.mark.parametrize("name", ["Matryoshka", "dictionary-learning"])
def test_an_unset_threshold_is_read_as_topk_and_says_so(tmp_path, name):
    folder, _ = published.write(name, tmp_path)
    file = folder / CASES[name].weights
    torch.save(torch.load(file) | {"threshold": torch.tensor(-1.0)}, file)
    with pytest.warns(UserWarning, match=f"no threshold yet: read as TopK with k = {K}"):
        dictionary = one(folder)
    assert dictionary.spec.architecture == "topk"
    assert ((dictionary.encode(activations()).dense() > 0).sum(-1) <= K).all()


@pytest.mark.parametrize(
    ("name", "site"),
    [
        ("mlp_out_layer_1", "mlp_out.1"),
        ("resid_post", "resid_post.1"),
        ("attn_out_layer_0", "attn_out.1"),
        ("model.layers.2", "resid_post.2"),
    ],
)
def test_a_submodule_is_a_site_in_any_spelling(tmp_path, name, site):
    folder, _ = published.write("dictionary-learning", tmp_path)
    trainer = {"dict_class": "BatchTopKSAE", "layer": 1, "submodule_name": name}
    change(folder / "trainer_0/config.json", trainer=trainer)
    (entry,) = find(folder).entries
    assert str(entry.target) == site


@pytest.mark.parametrize("value", [torch.ones(2), torch.tensor(torch.nan), torch.tensor(1j)])
def test_a_threshold_that_is_no_number_is_refused(tmp_path, value):
    folder, _ = published.write("dictionary-learning", tmp_path)
    file = folder / CASES["dictionary-learning"].weights
    torch.save(torch.load(file) | {"threshold": value}, file)
    refuse(folder, file, "threshold has shape .*, expected one number")
