"""Circuit-tracer's layout: what cannot be read of it is refused."""

import torch
from safetensors.torch import save_file

from tests.saes import published
from tests.saes.formats.test_published import change_weights, refuse
from tests.saes.published import D, M


def test_a_threshold_below_zero_in_circuit_tracer(tmp_path):
    folder, _ = published.write("circuit-tracer", tmp_path)
    file = folder / "layer_1.safetensors"
    change_weights(file, **{"activation_function.threshold": -torch.ones(M)})
    refuse(folder, file, "lets negative features through")


def test_cross_layer_transcoders_without_a_configuration(tmp_path):
    save_file({"W_enc_0": torch.zeros(M, D)}, tmp_path / "W_enc_0.safetensors")
    refuse(tmp_path, tmp_path, "without its config.yaml")
