"""A map keeps the hashes of the files that it was written for."""

from dataclasses import replace
from hashlib import sha256

import pytest
import torch

from saes.formats.map_hashes import sha256_of
from saes.formats.mapped import DictionaryMap
from saes.formats.place import local_place
from tests.saes.formats.test_mapped import weights

D, M, K = 24, 20, 5
PLAIN = {"W_enc": "W_enc", "b_enc": "b_enc", "W_dec": "W_dec", "b_dec": "b_dec"}
SITE = {"files": "layer_{layer}.pt", "site": "resid_post.{layer}"}


def test_a_file_of_another_content_than_the_map_has_the_hash_of_is_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"k": 5}')
    torch.save(weights(), tmp_path / "layer_1.pt")
    torch.save(weights(), tmp_path / "layer_2.pt")
    what = DictionaryMap(**SITE, tensors=PLAIN, k="config.json:k")
    entries = what.find(place := local_place(tmp_path))
    hashes = {
        name: sha256((tmp_path / name).read_bytes()).hexdigest()
        for name in ("layer_1.pt", "layer_2.pt", "config.json")
    }
    assert sha256_of(entries, ["config.json:k", "none", "2.5"]) == hashes
    known = replace(what, sha256=hashes)
    assert known.find(place) == entries
    # One of the files alone is still that file.
    assert len(replace(known, files="layer_2.pt", site="embed").find(place)) == 1
    (tmp_path / "config.json").write_text('{"k": 6}')
    with pytest.raises(ValueError, match=r"config\.json of .* is not the file of the map: its SHA"):
        known.find(place)
    fewer = {name: value for name, value in hashes.items() if name == "layer_1.pt"}
    with pytest.raises(ValueError, match=r"the map has no sha256 of layer_2\.pt of"):
        replace(what, sha256=fewer).find(place)
