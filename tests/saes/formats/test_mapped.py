"""Files of layouts that nobody has a name for, read by a map: what their own formula gives."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save_file

from hooked_qwen.sites import Site
from saes.formats.checkpoint import checkpoint, place_of_file
from saes.formats.mapped import DictionaryMap, map_text, read_map
from saes.formats.names import to_site
from saes.formats.place import local_place
from tests.saes.published import draw, gate, largest

D, M, K = 24, 20, 5
PLAIN = {"W_enc": "W_enc", "b_enc": "b_enc", "W_dec": "W_dec", "b_dec": "b_dec"}
STATE = {"W_enc": "state.W_enc", "b_enc": "state.b_enc", "W_dec": "state.W_dec"}
SITE = {"files": "layer_{layer}.pt", "site": "resid_post.{layer}"}


def weights(**more):
    """In float64, of both signs."""
    shapes = {"W_enc": (M, D), "b_enc": (M,), "W_dec": (M, D), "b_dec": (D,), **more}
    return {name: draw(*shape, seed=i).double() for i, (name, shape) in enumerate(shapes.items())}


def activations():
    return draw(64, D, seed=77).double() * torch.logspace(-2, 1, 64).double()[:, None]


def topk(p):
    return largest(p).relu()


# Each: what is saved, the map, and the formula as its author has it: features, reconstruction.
def home_made():
    w, a = weights(), 0.37
    saved = {
        "state": {k: w[k] for k in ("b_enc", "W_dec")}
        | {"W_enc": w["W_enc"].T, "b_pre": w["b_dec"]},
        "scale": a,
        "k": K,
    }
    told = {
        "tensors": STATE | {"b_dec": "state.b_pre"},
        "k": "k",
        "scale": "scale",
        "centre": "b_dec",
    }

    def formula(x):
        f = topk((x * a - w["b_dec"]) @ w["W_enc"].T + w["b_enc"])
        return f, (f @ w["W_dec"] + w["b_dec"]) / a

    return saved, told, formula


def batch_topk_with_one_threshold():
    w = weights()
    saved = w | {"W_dec": w["W_dec"].T, "threshold": torch.tensor(0.4)}
    told = {"tensors": PLAIN, "activation": "batch-topk", "threshold": "threshold", "k": "7"}

    def formula(x):
        f = gate(x @ w["W_enc"].T + w["b_enc"], torch.tensor(0.4, dtype=torch.float64))
        return f, f @ w["W_dec"] + w["b_dec"]

    return saved, told, formula


def separate_centre_and_mean():
    w = weights(b_pre=(D,), average=(D,))
    saved = {**w, "norm": torch.tensor(3.0), "k": torch.tensor(K)}
    told = {
        "tensors": PLAIN,
        "k": "k",
        "scale": "sqrt(d)/norm",
        "centre": "b_pre",
        "mean": "average",
        "activation": "topk",
    }

    def formula(x):
        a = D**0.5 / 3
        f = topk(((x - w["average"]) * a - w["b_pre"]) @ w["W_enc"].T + w["b_enc"])
        return f, (f @ w["W_dec"] + w["b_dec"]) / a + w["average"]

    return saved, told, formula


def negative_ones_ranked_by_norm():
    w = weights()
    saved = w | {"b_enc": w["b_enc"] - 9, "std": 0.5}
    told = {
        "tensors": PLAIN,
        "k": str(K),
        "activation": "signed-topk",
        "ranked_by": "norm",
        "scale": "1/std",
    }

    def formula(x):
        norm = w["W_dec"].norm(dim=-1)
        f = largest(((x / 0.5) @ w["W_enc"].T + w["b_enc"] - 9) * norm)
        return f, ((f / norm) @ w["W_dec"] + w["b_dec"]) * 0.5

    return saved, told, formula


def jumprelu_of_logarithms():
    w = weights(log=(M,))
    told = {
        "tensors": PLAIN,
        "activation": "jumprelu",
        "threshold": "exp(log)",
        "ranked_by": "norm",
    }

    def formula(x):
        p = x @ w["W_enc"].T + w["b_enc"]
        f = torch.where(p * w["W_dec"].norm(dim=-1) > w["log"].exp(), p.relu(), 0.0)
        return f, f @ w["W_dec"] + w["b_dec"]

    return w, told, formula


def gated_and_centred():
    w = weights(gate_bias=(M,), r_mag=(M,), mag_bias=(M,))
    del w["b_enc"]
    tensors = {"W_enc": "W_enc", "W_dec": "W_dec", "b_dec": "b_dec"}
    tensors |= {"b_gate": "gate_bias", "r_mag": "r_mag", "b_mag": "mag_bias"}
    told = {"tensors": tensors, "activation": "gated", "centre": "b_dec"}

    def formula(x):
        u = (x - w["b_dec"]) @ w["W_enc"].T
        f = (u + w["gate_bias"] > 0) * (w["r_mag"].exp() * u + w["mag_bias"]).relu()
        return f, f @ w["W_dec"] + w["b_dec"]

    return w, told, formula


def no_decoder_bias():
    w = weights()
    del w["b_dec"]
    told = {
        "tensors": {k: v for k, v in PLAIN.items() if k != "b_dec"},
        "activation": "relu",
        "scale": "2",
    }

    def formula(x):
        f = (2 * x @ w["W_enc"].T + w["b_enc"]).relu()
        return f, f @ w["W_dec"] / 2

    return w, told, formula


def transcoder_of_two_scales():
    w = weights(skip=(D, D))
    saved = w | {"norms": {"into": 2.0, "out": 5.0}}
    told = {
        "site": "mlp_in.{layer}",
        "target": "model.layers.{layer}.mlp",
        "tensors": PLAIN | {"W_skip": "skip"},
        "orientation": {"W_skip": "st"},
        "activation": "relu",
        "scale": "1/norms.into",
        "target_scale": "1/norms.out",
    }

    def formula(x):
        f = ((x / 2) @ w["W_enc"].T + w["b_enc"]).relu()
        return f, (f @ w["W_dec"] + w["b_dec"] + (x / 2) @ w["skip"]) * 5

    return saved, told, formula


CASES = (
    home_made,
    batch_topk_with_one_threshold,
    separate_centre_and_mean,
    negative_ones_ranked_by_norm,
    jumprelu_of_logarithms,
    gated_and_centred,
    no_decoder_bias,
    transcoder_of_two_scales,
)


def made(tmp_path, case):
    saved, told, formula = case()
    torch.save(saved, tmp_path / "layer_1.pt")
    what = DictionaryMap(**(SITE | told))
    (entry,) = what.find(local_place(tmp_path))
    return what, entry, formula


def in_float64(what, entry):
    """A dictionary before its weights are rounded to float32."""
    file = checkpoint(entry)
    tensors = what.tensors_of(file)
    one = what.load(entry).double()
    for name, value in what.terms(file, tensors).folded(tensors).items():
        setattr(one, name, value.double())
    return one


@pytest.mark.parametrize("case", CASES)
def test_what_is_read_by_a_map_is_what_its_author_computes(tmp_path, case):
    what, entry, formula = made(tmp_path, case)
    one = in_float64(what, entry)
    x = activations()
    f, y = formula(x)
    assert (f != 0).any()
    torch.testing.assert_close(one.encode(x).dense(), f, atol=1e-10, rtol=1e-10)
    torch.testing.assert_close(one(x), y, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("suffix", ["pt", "pth", "bin", "safetensors", "npz"])
@pytest.mark.parametrize("turned", ["md", "dm"])
def test_where_nothing_is_to_compute_every_bit_is_kept(tmp_path, suffix, turned):
    w = {name: value.float() for name, value in weights().items()}
    saved = w | {"W_enc": w["W_enc"].T.contiguous()} if turned == "dm" else w
    file = tmp_path / f"sae-17.{suffix}"
    if suffix == "npz":
        np.savez(file, **{name: value.numpy() for name, value in saved.items()})
    elif suffix == "safetensors":
        save_file(saved, file)
    else:
        torch.save({"model": {"sae": saved}, "step": 12, "notes": ["by hand", None]}, file)
    group = "model.sae." if suffix in ("pt", "pth", "bin") else ""
    what = DictionaryMap(
        site="resid_post.17", tensors={k: group + v for k, v in PLAIN.items()}, k="5"
    )
    (entry,) = what.find(place_of_file(file))
    one = what.load(entry)
    assert str(one.source) == "resid_post.17"
    for name, value in w.items():
        assert torch.equal(getattr(one, name), value)


def test_half_precision_is_widened_once(tmp_path):
    w = {name: value.bfloat16() for name, value in weights().items()}
    torch.save(w, tmp_path / "layer_1.pt")
    what = DictionaryMap(**SITE, tensors=PLAIN, k="5")
    one = what.load(what.find(local_place(tmp_path))[0])
    assert torch.equal(one.W_enc, w["W_enc"].float())


def test_numbers_come_from_configurations_beside_the_file(tmp_path):
    folder = tmp_path / "sae_early"
    folder.mkdir()
    save_file({k: v.float() for k, v in weights().items()}, folder / "weights.safetensors")
    (folder / "config.json").write_text(json.dumps({"sizes": {"k": 3}, "hidden_dim": D}))
    (tmp_path / "all.yaml").write_text("norm: 2.0")
    what = DictionaryMap(
        sites={"sae_early/weights.safetensors": "resid_post.6"},
        tensors=PLAIN,
        k="config.json:sizes.k",
        scale="1/all.yaml:norm",
    )
    (entry,) = what.find(local_place(tmp_path))
    one = what.load(entry)
    assert one.spec.k == 3
    torch.testing.assert_close(one.W_enc, (weights()["W_enc"] / 2).float())


def test_numbers_that_a_file_lacks_come_from_the_map(tmp_path):
    for layer in (1, 2):
        torch.save(weights(), tmp_path / f"layer_{layer}.pt")
    numbers = {"layer_1.pt": {"a": "0.5"}, "layer_2.pt": {"a": "0.25"}}
    what = DictionaryMap(**SITE, tensors=PLAIN, k="5", scale="1/a", numbers=numbers)
    (tmp_path / "map.yaml").write_text(map_text(what))
    assert read_map(tmp_path / "map.yaml") == what
    for entry, a in zip(what.find(local_place(tmp_path)), (2, 4), strict=True):
        torch.testing.assert_close(what.load(entry).W_enc, (weights()["W_enc"] * a).float())
    wrong = replace(what, numbers={"layer_1.pt": {"a": "much"}})
    with pytest.raises(ValueError, match="the map has 'much' for a, expected a number"):
        wrong.load(wrong.find(local_place(tmp_path))[0])


def test_a_map_is_the_same_when_it_is_read_again(tmp_path):
    _, told, _ = separate_centre_and_mean()
    what = DictionaryMap(**SITE, **told, orientation={"W_enc": "md"}, model="0123456789abcdef")
    what = replace(what, sha256={"layer_1.pt": "0" * 64})
    (tmp_path / "map.yaml").write_text(map_text(what))
    assert read_map(tmp_path / "map.yaml") == what


WRONG = {
    "activation is 'softmax'": {"activation": "softmax"},
    "ranked_by is 'size'": {"ranked_by": "size"},
    "a dictionary has no tensor W": {"tensors": {"W": "W"}},
    "orientation of W_enc is 'mm'": {"orientation": {"W_enc": "mm"}},
    "a map says which site is read": {"site": ""},
    "no file is called as other_": {"files": "other_{layer}.pt"},
    "lacks gone.pt: its files of weights are layer_1.pt": {"sites": {"gone.pt": "embed"}},
    "`files` names no {layer}": {"files": "*.pt"},
    "has no tensor 'b' for b_enc: it holds W_enc": {"tensors": PLAIN | {"b_enc": "b"}},
    "the map names no tensor for W_dec": {"tensors": {"W_enc": "W_enc"}},
    "k is 2.5, expected a whole number": {"k": "2.5"},
    "has no tensor 'kk' for k": {"k": "kk"},
    "there is no c.json beside": {"k": "c.json:k"},
    "config.json has no field 'topk' for k": {"k": "config.json:topk"},
    "config.json:name is no number": {"k": "config.json:name"},
    "b_dec is no number, which scale needs": {"scale": "b_dec"},
    "scale is '3 * x'": {"scale": "3 * x"},
    "has 0 for zero, which scale divides by": {"scale": "1/zero"},
    "scale is -1, expected more than 0": {"scale": "-1"},
    "depends on the token": {"scale": "1/norm of each token"},
    "is measured: give some text": {"scale": "sqrt(d)/mean norm"},
    "it was never set: write activation: topk": {"activation": "batch-topk", "threshold": "-1"},
    "of 20 features: say in the map which axis": {"tensors": PLAIN | {"W_enc": "square"}},
    "has nothing with a number for each feature": {"tensors": {"W_enc": "W_enc", "W_dec": "W_dec"}},
    "topk needs a k": {"k": "none"},
}


@pytest.mark.parametrize("message", WRONG)
def test_a_map_that_is_wrong_says_how(tmp_path, message):
    more = {"square": torch.randn(M, M), "zero": 0.0}
    torch.save(weights() | more, tmp_path / "layer_1.pt")
    (tmp_path / "config.json").write_text('{"name": "sae"}')

    def read():
        what = DictionaryMap(**(SITE | {"tensors": PLAIN, "k": "5"} | WRONG[message]))
        what.load(what.find(local_place(tmp_path))[0])

    with pytest.raises(ValueError, match=re.escape(message)):
        read()


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("[1]", "expected an object"),
        ("sites: 3", "3 for sites, expected names with values"),
        ("k: [3]", r"\[3\] for k, expected one value"),
        ("numbers: {a.pt: 3}", "3 for numbers, expected names with values"),
        ("scales: 3", "the terms scales, which a map has not: those there are, are files, site"),
        ("activation: x\nsite: embed", r"map\.yaml: activation is 'x'"),
    ],
)
def test_a_file_that_is_no_map(tmp_path, text, match):
    (tmp_path / "map.yaml").write_text(text)
    with pytest.raises(ValueError, match=match):
        read_map(tmp_path / "map.yaml")


def test_hidden_states_are_those_of_hugging_face():
    assert to_site("hidden_states[0]") == Site("embed")
    assert to_site("hidden_states[7]") == Site("resid_post", 6)


# The rows of docs/dictionaries.md: where it was published, and what reads it, word for word.
PUBLISHED = {
    "caiovicentino1/Qwen3.5-4B-SAE-L18-topk": "{tensors: {W_enc: W_enc, b_enc: b_enc, "
    "W_dec: W_dec, b_dec: b_dec}, k: k, centre: b_dec, site: resid_post.18}",
    "zactheaipm/qwen35-a3b-saes": "{tensors: {W_enc: encoder.weight, b_enc: encoder.bias, "
    "W_dec: decoder.weight, b_dec: pre_bias}, k: config.json:k, centre: b_dec, "
    "sites: {sae_delta_early/weights.safetensors: resid_post.6, "
    "sae_attn_early/weights.safetensors: resid_post.7}}",
    "kroonen-ai/sae-qwen3.5-9b": "{tensors: {W_enc: model_state_dict.encoder.weight, "
    "b_enc: model_state_dict.encoder.bias, W_dec: model_state_dict.decoder.weight, "
    "b_dec: model_state_dict.bias}, activation: relu, centre: b_dec, site: mlp_out.16}",
    "swei2001/RouteSAEs, TopK": "{tensors: {W_enc: encoder.weight, b_enc: latent_bias, "
    "W_dec: decoder.weight, b_dec: pre_bias}, activation: signed-topk, k: 5, centre: b_dec, "
    "site: resid_post.6}",
    "swei2001/RouteSAEs, gated": "{tensors: {W_enc: encoder.weight, W_dec: decoder.weight, "
    "b_dec: pre_bias, b_gate: gate_bias, b_mag: mag_bias, r_mag: r_mag}, activation: gated, "
    "centre: b_dec, site: resid_post.6}",
    "swei2001/RouteSAEs, JumpReLU": "{tensors: {W_enc: encoder.weight, b_enc: latent_bias, "
    "W_dec: decoder.weight, b_dec: pre_bias}, activation: jumprelu, threshold: threshold, "
    "centre: b_dec, site: resid_post.6}",
}
# What has a column for each feature, by the name of W_enc.
TURNED = {"W_enc": ("W_enc",), "encoder.weight": ("decoder.weight",)}


def published_files(folder, text):
    """Random files of a row's layout, and its author's formula."""
    told = yaml.safe_load(text)
    names = told["tensors"]
    shapes = {"W_enc": (M, D), "W_dec": (M, D), "b_dec": (D,)}
    w = {k: draw(*shapes.get(k, (M,)), seed=i).double() for i, k in enumerate(names)}
    if "threshold" in told:
        w["threshold"] = draw(M, seed=9).double().abs()
    turned = TURNED[names["W_enc"].removeprefix("model_state_dict.")]
    saved = {}
    for ours, value in w.items():
        own = names.get(ours, ours).removeprefix("model_state_dict.")
        saved[own] = value.T.contiguous() if own in turned else value
    (folder / "config.json").write_text(json.dumps({"hidden_dim": D, "dict_size": M, "k": K}))
    for file in told.get("sites", {"sae_final.pt": ""}):
        (folder / file).parent.mkdir(exist_ok=True)
        if file.endswith("safetensors"):
            save_file(saved, folder / file)
        elif "model_state_dict" in names["W_enc"]:
            torch.save({"model_state_dict": saved, "step": 3}, folder / file)
        else:
            torch.save({**saved, "k": K}, folder / file)

    def formula(x):
        u = (x - w["b_dec"]) @ w["W_enc"].T
        kinds = {
            "relu": lambda: (u + w["b_enc"]).relu(),
            "topk": lambda: largest(u + w["b_enc"]).relu(),
            "signed-topk": lambda: largest(u + w["b_enc"]),
            "jumprelu": lambda: gate(u + w["b_enc"], w["threshold"]),
            "gated": lambda: (u + w["b_gate"] > 0) * (w["r_mag"].exp() * u + w["b_mag"]).relu(),
        }
        f = kinds[told.get("activation", "topk")]()
        return f, f @ w["W_dec"] + w["b_dec"]

    return formula


@pytest.mark.parametrize("row", PUBLISHED)
def test_the_terms_of_the_documentation_read_what_was_published(tmp_path, row):
    docs = Path(__file__).parents[3] / "docs" / "dictionaries.md"
    published, text = row.split(", ")[0], PUBLISHED[row]
    rows = [line for line in docs.read_text().splitlines() if f"`{text}`" in line]
    assert any(published in line for line in rows)
    formula = published_files(tmp_path, text)
    (tmp_path / "map.yaml").write_text(text)
    what = read_map(tmp_path / "map.yaml")
    x = activations()
    f, y = formula(x)
    assert (f != 0).any()
    for entry in what.find(local_place(tmp_path)):
        assert str(entry.source) == (what.site or what.sites[entry.name])
        one = in_float64(what, entry)
        torch.testing.assert_close(one.encode(x).dense(), f, atol=1e-10, rtol=1e-10)
        torch.testing.assert_close(one(x), y, atol=1e-10, rtol=1e-10)


def test_no_row_of_the_documentation_is_without_its_test():
    docs = (Path(__file__).parents[3] / "docs" / "dictionaries.md").read_text()
    table = docs.partition("What the terms were checked against")[2].partition("\n## ")[0]
    assert set(re.findall(r"`(\{[^`]*\})`", table)) == set(PUBLISHED.values())
