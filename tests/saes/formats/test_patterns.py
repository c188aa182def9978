"""Sites and layers from the names of files."""

import pytest
import torch

from saes.formats.mapped import DictionaryMap
from saes.formats.place import local_place


@pytest.mark.parametrize(
    ("files", "site", "names", "expected"),
    [
        ("L{layer}/*.pt", "mlp_out.{layer}", ["L3/a.pt", "L11/b.pt"], ["mlp_out.11", "mlp_out.3"]),
        ("{layer}.pt", "hidden_states[{layer}]", ["0.pt", "4.pt"], ["embed", "resid_post.3"]),
        ("{layer}.pt", "resid_post.{layer-1}", ["0.pt", "4.pt"], ["resid_pre.0", "resid_post.3"]),
        ("{layer}/{layer}.pt", "layers.{layer+1}", ["2/2.pt", "2/3.pt"], ["resid_post.3"]),
    ],
)  # fmt: skip
def test_sites_come_from_file_names(tmp_path, files, site, names, expected):
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        torch.save({}, tmp_path / name)
    found = DictionaryMap(files=files, site=site).find(local_place(tmp_path))
    assert [str(entry.source) for entry in found] == expected
