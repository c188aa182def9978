"""Sparsify's layout: shapes and hook points that do not fit are refused."""

import shutil

from tests.saes import published
from tests.saes.formats.test_published import change, refuse


def test_sparsify_s_shape_must_be_what_its_configuration_says(tmp_path):
    folder, _ = published.write("sparsify", tmp_path)
    change(folder / "layers.1.mlp/cfg.json", num_latents=19)
    refuse(folder, folder / "layers.1.mlp/sae.safetensors", r"cfg\.json says \(19, 24\)")


def test_a_hook_point_that_is_no_site(tmp_path):
    folder, _ = published.write("sparsify transcoder", tmp_path)
    shutil.move(folder / "layers.1.mlp", folder / "layers.1.self_attn")
    refuse(folder, folder / "layers.1.self_attn/cfg.json", "no site is called")
