"""Pickled transcoders."""

import torch

from hooked_qwen.sites import Site
from tests.saes.formats.test_published import refuse


def test_pickled_transcoders_are_refused_with_what_to_do(tmp_path):
    torch.save({"cfg": Site("mlp_out", 1), "state_dict": {}}, tmp_path / "transcoder.pt")
    refuse(tmp_path, tmp_path / "transcoder.pt", "without running what is in it: .* as SAELens")
