"""Every published layout is recognised, and gives what its own arithmetic gives."""

import json

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from saes.suite import find, load_suite
from tests.saes import published
from tests.saes.published import CASES, D, K, M, draw


def activations(n=64):
    """Of both signs, some small, some large."""
    x = draw(n, D, seed=77)
    return x * torch.logspace(-2, 1, n)[:, None]


def same(found, expected):
    """Equal up to the rounding of float32 sums, at the scale of the largest."""
    scale = expected.abs().max().item()
    torch.testing.assert_close(found, expected, atol=3e-6 * scale, rtol=0)


def one(folder):
    (dictionary,) = load_suite(folder).values()
    return dictionary


def change(file, **fields):
    read, dump = (yaml.safe_load, yaml.safe_dump)
    if file.suffix == ".json":
        read, dump = (json.loads, json.dumps)
    record = read(file.read_text()) | fields
    file.write_text(dump({k: v for k, v in record.items() if v != "absent"}))


def change_weights(file, **tensors):
    save_file({k: v.contiguous() for k, v in (load_file(file) | tensors).items()}, file)


@pytest.mark.parametrize("name", CASES)
def test_a_dictionary_gives_what_its_library_would(tmp_path, name):
    folder, oracle = published.write(name, tmp_path)
    dictionary, x = one(folder), activations()
    f, y = oracle(x)
    assert (f != 0).any()
    same(dictionary.encode(x).dense(), f)
    same(dictionary(x), y)


@pytest.mark.parametrize("name", CASES)
def test_a_layout_is_recognised_with_its_sites(tmp_path, name):
    folder, _ = published.write(name, tmp_path)
    found = find(folder)
    assert found.layout.name == CASES[name].layout
    assert [(e.source, e.target) for e in found.entries] == [CASES[name].sites()]


def test_negative_features_are_kept_where_the_publisher_keeps_them(tmp_path):
    folder, _ = published.write("qwen-scope", tmp_path)
    dictionary = one(folder)
    assert dictionary.spec.signed
    assert dictionary.spec.k == K
    f = dictionary.encode(activations()).dense()
    assert (f < 0).any()
    assert ((f != 0).sum(-1) == K).all()


@pytest.mark.parametrize("name", ["sparsify", "saelens", "ours", "dictionary-learning"])
def test_the_folder_of_one_dictionary_is_a_suite_of_one(tmp_path, name):
    folder, oracle = published.write(name, tmp_path)
    x = activations()
    alone = one((folder / CASES[name].weights).parent)
    same(alone.encode(x).dense(), oracle(x)[0])


def refuse(folder, file, match):
    with pytest.raises(ValueError, match=match) as error:
        one(folder)
    assert str(file) in str(error.value)


@pytest.mark.parametrize(
    ("name", "fields", "match"),
    [
        ("saelens", {"normalize_activations": "layer_norm"}, "each token by its own norm"),
        ("saelens", {"normalize_activations": "expected_average_only_in"}, "not in the files"),
        ("saelens", {"normalize_activations": "covariance_whitening"}, "whitening"),
        ("saelens", {"normalize_activations": ["none"]}, "not known here"),
        ("saelens", {"reshape_activations": "hook_z"}, "heads before they are mixed"),
        ("saelens", {"finetuning_scaling_factor": True}, "rescales the features"),
        ("saelens", {"architecture": "temporal"}, "what is read here is 'standard'"),
        ("saelens", {"activation_fn": "tanh-relu"}, "has activation 'tanh-relu'"),
        ("saelens", {"metadata": {}}, "has no field 'hook_name'"),
        ("saelens", {"metadata": {"hook_name": "blocks.1.attn.hook_z"}}, "no site is called"),
        ("saelens", {"d_in": 7}, r"cfg\.json says \(7, 20\)"),
        ("saelens topk", {"k": None}, "has no field 'k'"),
        ("saelens topk", {"k": "5"}, "has '5' for k, expected a whole number"),
        ("sparsify", {"activation": "groupmax"}, "one per group"),
        ("sparsify", {"signed": True}, "by magnitude"),
        ("sparsify", {"transcode": 1}, "expected true or false"),
        ("sparsify", {"k": M + 1}, "k is 21, expected 1 to 20"),
        ("gemma-scope-2", {"architecture": "topk"}, "what is read here is 'jump_relu'"),
        ("gemma-scope-2", {"hf_hook_point_in": "model.layers.1.self_attn.o_proj.input"}, "no site"),
        ("dictionary-learning", {"buffer": {"io": "in_and_out"}}, "a transcoder"),
        ("dictionary-learning", {"trainer": {"dict_class": "Odd"}}, "not known here"),
        ("dictionary-learning", {"trainer": 3}, "expected an object"),
        ("openmoss", {"sae_type": "crosscoder"}, "what is read here is 'sae'"),
        ("openmoss", {"act_fn": "batchtopk"}, "over a batch"),
        ("openmoss", {"norm_activation": "token-wise"}, "each token by its own norm"),
        ("openmoss", {"norm_activation": "batch-wise"}, "each batch"),
        ("openmoss", {"use_glu_encoder": True}, "product of two linear maps"),
        ("openmoss", {"apply_decoder_bias_to_pre_encoder": True}, "centres the input"),
        ("circuit-tracer", {"model_kind": "odd"}, "what is read here is 'transcoder_set'"),
        ("circuit-tracer", {"transcoders": ["hf://a/b/c"]}, "lie elsewhere"),
        ("circuit-tracer", {"feature_input_hook": "ln2.hook_normalized"}, "no site is called"),
        ("circuit-tracer", {"activation": "odd"}, "not known here"),
    ],
)
def test_arithmetic_that_is_not_ours_is_refused(tmp_path, name, fields, match):
    folder, _ = published.write(name, tmp_path)
    config = CASES[name].config
    change(folder / config, **fields)
    refuse(folder, (folder / config).parent, match)
