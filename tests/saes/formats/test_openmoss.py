"""OpenMOSS's layout: what may be missing and what must be there."""

from safetensors.torch import load_file, save_file

from tests.saes import published
from tests.saes.formats.test_published import activations, change, one, refuse, same
from tests.saes.published import D


def test_openmoss_without_a_decoder_bias(tmp_path):
    folder, oracle = published.write("openmoss relu", tmp_path)
    file = folder / "L1M/sae_weights.safetensors"
    tensors = load_file(file)
    shift = tensors.pop("b_D") * 11.0 / D**0.5
    save_file(tensors, file)
    change(folder / "L1M/config.json", use_decoder_bias=False)
    x = activations()
    same(one(folder)(x), oracle(x)[1] - shift)


def test_openmoss_needs_the_norms_that_scale_it(tmp_path):
    folder, _ = published.write("openmoss", tmp_path)
    change(folder / "L1M/config.json", hook_point_out="blocks.1.hook_resid_post")
    refuse(folder, folder / "L1M", "lacks a positive number dataset_average_activation_norm")
