"""Cross-layer transcoders in files: circuit-tracer's and our own."""

import re

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from hooked_qwen.sites import Site
from saes.formats.convert import convert
from saes.formats.shapes import shape_of
from saes.on_demand import load_all
from saes.suite import find, load_suite
from tests.toys import SIZES
from tests.transcoders.toys import TOKENS, toy_of
from transcoders.replacement import replace_mlps
from transcoders.sources import BIAS

N, M, D = SIZES["num_hidden_layers"], 20, SIZES["hidden_size"]


def weights(threshold):
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(*shape, generator=generator)

    found = []
    for layer in range(N):
        one = {"W_enc": draw(M, D), "b_enc": draw(M), "b_dec": draw(D)}
        found.append(one | {"W_dec": draw(M, N - layer, D)})
        if threshold:
            found[-1]["threshold"] = draw(M).abs()
    return found


def write(folder, layers, **config):
    folder.mkdir()
    for i, one in enumerate(layers):
        named = {f"{name}_{i}": value for name, value in one.items()}
        save_file({f"W_dec_{i}": named.pop(f"W_dec_{i}")}, folder / f"W_dec_{i}.safetensors")
        save_file(named, folder / f"W_enc_{i}.safetensors")
    record = {
        "model_kind": "cross_layer_transcoder",
        "feature_input_hook": "mlp.hook_in",
        "feature_output_hook": "mlp.hook_out",
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(record | config))
    return folder


def written_by(layers, x):
    """What circuit-tracer reconstructs of each layer, where layer i reads x[i]."""
    out = [one["b_dec"].expand(len(x[0]), -1) for one in layers]
    for i, one in enumerate(layers):
        pre = x[i] @ one["W_enc"].T + one["b_enc"]
        f = pre * (pre > one["threshold"]) if "threshold" in one else pre.relu()
        for j in range(i, N):
            out[j] = out[j] + f @ one["W_dec"][:, j - i]
    return out


@pytest.fixture(params=[False, True], ids=["relu", "jumprelu"])
def layers(request):
    return weights(request.param)


def reconstructed(suite, x):
    out = [torch.zeros(len(x[0]), D) for _ in range(N)]
    for name in suite:
        dictionary = suite[name]
        f = dictionary.encode(x[dictionary.source.layer])
        for site, y in dictionary.by_site(dictionary.write(f) + dictionary.b_dec).items():
            out[site.layer] = out[site.layer] + y
    return out


def test_a_cross_layer_transcoder_writes_what_circuit_tracer_s_does(tmp_path, layers):
    suite = load_suite(write(tmp_path / "clt", layers))
    assert list(suite) == [f"clt.{i}" for i in range(N)]
    assert suite.writes_of("clt.1") == tuple(Site("mlp_out", i) for i in range(1, N))
    x = torch.randn(N, 5, D, generator=torch.Generator().manual_seed(1))
    for found, expected in zip(reconstructed(suite, x), written_by(layers, x), strict=True):
        assert (found - expected).abs().max() < 1e-4


def test_our_own_layout_keeps_every_site(tmp_path, layers):
    source = write(tmp_path / "clt", layers)
    convert(source, tmp_path / "ours", "ours")
    ours, theirs = load_suite(tmp_path / "ours"), load_suite(source)
    assert list(ours) == list(theirs)
    for name in ours:
        assert ours.writes_of(name) == theirs.writes_of(name)
        assert ours[name].spec == theirs[name].spec
        for key, value in theirs[name].state_dict().items():
            assert torch.equal(ours[name].state_dict()[key], value)
    assert load_all(tmp_path / "ours").names == list(theirs)


@pytest.mark.parametrize("to", ["saelens", "sparsify", "circuit-tracer"])
def test_a_layout_with_one_site_on_each_side_is_not_written(tmp_path, to):
    source = write(tmp_path / "clt", weights(threshold=False))
    match = f"clt.0 has {N} sites on one side, from mlp_out.0 to mlp_out.{N - 1}: only our own"
    with pytest.raises(ValueError, match=match):
        convert(source, tmp_path / "out", to)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("layout", ["circuit-tracer", "ours"])
def test_their_size_is_known_from_the_headers(tmp_path, layers, layout):
    folder = write(tmp_path / "clt", layers)
    if layout == "ours":
        convert(folder, tmp_path / "ours", "ours")
        folder = tmp_path / "ours"
    suite = load_suite(folder)
    for entry in find(folder).entries:
        shape = shape_of(entry, D)
        own = suite[entry.node_name]
        assert (shape.name, shape.features) == (entry.called, M)
        counted = 4 * sum(tensor.numel() for tensor in own.state_dict().values())
        assert shape.bytes == pytest.approx(counted, rel=0.05)


def test_a_replacement_model_takes_them_from_files(tmp_path, layers):
    model = replace_mlps(toy_of("qwen3"), load_suite(write(tmp_path / "clt", layers)), TOKENS)
    features = (model.sources.feature >= 0).nonzero().squeeze(-1)
    for group in model.grouped(features):
        inputs = model.inputs(model.features(group))
        total = inputs.weight.sum(0) + inputs.bias
        assert (total - model.pre_activation[group]).abs().max() < 1e-9
    assert int((model.sources.kind == BIAS).sum()) == N * len(TOKENS)


def test_what_is_missing_or_odd_is_named(tmp_path):
    folder = write(tmp_path / "clt", weights(threshold=False))
    (folder / "W_dec_1.safetensors").unlink()
    with pytest.raises(ValueError, match=re.escape("lacks W_dec_1.safetensors of 3 layers")):
        load_suite(folder)
    short = load_file(folder / "W_dec_0.safetensors")["W_dec_0"][:, 1:].contiguous()
    save_file({"W_dec_0": short}, folder / "W_dec_0.safetensors")
    save_file({"W_dec_1": torch.zeros(M, N - 1, D)}, folder / "W_dec_1.safetensors")
    with pytest.raises(ValueError, match=f"writes {N - 1} layers, expected {N}"):
        load_suite(folder)["clt.0"]


def test_what_reads_the_stream_before_its_norm_is_no_part_of_a_replacement_model(tmp_path):
    folder = write(tmp_path / "clt", weights(False), feature_input_hook="hook_resid_mid")
    suite = load_suite(folder)
    assert suite.reads_of("clt.0") == (Site("resid_mid", 0),)
    with pytest.raises(ValueError, match="needs transcoders, which read mlp_in"):
        replace_mlps(toy_of("qwen3"), suite, TOKENS)
