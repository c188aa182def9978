"""Baked models, loaded by plain transformers, against hooks written out here."""

import json
from dataclasses import dataclass, replace

import pytest
import torch
from transformers import AutoModelForCausalLM

from circuits.edits.bake import BakeConfig, bake, load_baked
from hooked_qwen.load import hook
from hooked_qwen.nodes import Node
from hooked_qwen.sites import Site
from saes.dictionary import DictionarySpec, SparseDictionary
from saes.edit import Condition, Edit, Operation
from saes.operations import OPERATIONS, OperationKind
from saes.suite import Suite, load_suite
from tests.circuits.conftest import call
from tests.toys import toy_hf, toy_suite, toy_tokenizer

PROMPTS = ["abcdefg", "The quick fox"]
NEW = 10
"Tokens that are generated."


@pytest.fixture(scope="module", autouse=True)
def _few_are_generated(small_chunks_of_file):
    small_chunks_of_file("circuits.edits.bake.GENERATED", NEW)


@dataclass(frozen=True)
class Pair:
    model: object
    suite: Suite


def opened(family="qwen3", *sites, suite=None):
    # Its own: what is saved notes its dtype in the configuration.
    model = hook(toy_hf(family, torch.float32), tokenizer=toy_tokenizer(), name="toy")
    return Pair(model, suite or toy_suite(*sites, dtype=torch.float32))


def edit_of(*operations, **means):
    return Edit(operations=operations, means={Node.parse(k): v for k, v in means.items()})


def module_of(hf, site):
    layer = hf.model.layers[site.layer]
    parts = {"attn_out": layer.self_attn, "mlp_out": layer.mlp, "resid_post": layer}
    return parts[site.kind]


def compared(folder, family, site, change):
    """Largest difference to a plain model with `change` done to what a module gives."""
    plain, baked = toy_hf(family, torch.float32), load_baked(folder)

    def hooked(_module, _args, output):
        if isinstance(output, tuple):
            return (change(output[0]), *output[1:])
        return change(output)

    handle = module_of(plain, Site.parse(site)).register_forward_hook(hooked)
    tokens = torch.tensor([[4, 8, 15, 16, 23, 42], [3, 1, 4, 1, 5, 9]])
    with torch.no_grad():
        found, expected = baked(tokens).logits, plain(tokens).logits
        texts = [
            m.generate(tokens, attention_mask=torch.ones_like(tokens), max_new_tokens=NEW,
                       do_sample=False, pad_token_id=0)
            for m in (baked, plain)
        ]  # fmt: skip
    handle.remove()
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    assert torch.equal(*texts)
    with torch.no_grad():
        assert not torch.allclose(plain(tokens).logits, expected, atol=1e-3)


@pytest.mark.parametrize(
    ("family", "site"),
    [("qwen3", "attn_out.1"), ("qwen2", "attn_out.0"), ("qwen2", "mlp_out.1"),
     ("qwen2", "resid_post.2")],
)  # fmt: skip
def test_a_constant_added_is_a_bias(tmp_path, family, site):
    pair = opened(family, site)
    operations = [
        Operation(node=Node(site, i), do="add", value=v) for i, v in ((3, 9.0), (5, -4.0))
    ]
    record = bake(pair, edit_of(*operations), tmp_path / "baked", PROMPTS)
    assert record["how"] == "weights"
    assert record["largest_difference"] < 1e-5
    assert record["generated"]["same"] == len(PROMPTS)
    assert not (tmp_path / "baked" / "load_edited.py").exists()
    d = pair.suite[site]
    move = 9.0 * d.W_dec[3] - 4.0 * d.W_dec[5]
    compared(tmp_path / "baked", family, site, lambda x: x + move)


def direction(site, seed=3):
    """A dictionary of one signed feature: how far a tensor goes along a direction, always on."""
    u = torch.randn(24, generator=torch.Generator().manual_seed(seed))
    u = (u / u.norm())[None]
    spec = DictionarySpec(source=Site.parse(site), target=Site.parse(site), k=1, signed=True)
    weights = {"W_enc": u, "b_enc": torch.zeros(1), "W_dec": u, "b_dec": torch.zeros(24)}
    return Suite({site: SparseDictionary(spec, weights)}, {}), u[0]


@pytest.mark.parametrize("site", ["attn_out.1", "mlp_out.0"])
@pytest.mark.parametrize("family", ["qwen2", "qwen3"])
def test_a_direction_is_projected_out_of_the_matrix_that_writes_it(tmp_path, family, site):
    suite, u = direction(site)
    pair = opened(family, suite=suite)
    edit = edit_of(Operation(node=Node(site, 0), do="zero"))
    record = bake(pair, edit, tmp_path / "baked", PROMPTS)
    assert (record["how"], record["exact_where_on"]) == ("weights", [])
    assert len(record["changed"]) == 1
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "baked").config.model_type == family
    compared(tmp_path / "baked", family, site, lambda x: x - (x @ u)[..., None] * u)


def test_a_feature_that_was_on_is_folded_only_where_that_is_asked_for(tmp_path):
    suite, _ = direction("attn_out.1")
    d = suite["attn_out.1"]
    spec = DictionarySpec(source=d.source, target=d.target, architecture="relu")
    weights = dict(d.state_dict()) | {"b_enc": torch.full((1,), 500.0)}
    pair = opened("qwen3", suite=Suite({"attn_out.1": SparseDictionary(spec, weights)}, {}))
    edit = edit_of(Operation(node=Node("attn_out.1", 0), do="scale", value=0.9))
    record = bake(pair, edit, tmp_path / "auto", PROMPTS)
    assert record["how"] == "loader"
    assert "weights do it only where attn_out.1/0 is on" in record["why_no_weights"]
    record = bake(pair, edit, tmp_path / "weights", PROMPTS, BakeConfig(how="weights"))
    assert record["exact_where_on"] == ["attn_out.1/0"]
    assert record["largest_difference"] < 1e-3 * record["largest_change"]
    off = dict(weights) | {"b_enc": torch.full((1,), -0.1)}
    pair = opened("qwen3", suite=Suite({"attn_out.1": SparseDictionary(spec, off)}, {}))
    with pytest.raises(ValueError, match=r"attn_out.1/0 is off at \d+ of \d+ tokens"):
        bake(pair, edit, tmp_path / "off", PROMPTS, BakeConfig(how="weights"))
    assert not (tmp_path / "off").exists()


def norms(site, limit):
    return ((Site.parse(site), limit),)


WHEN = Condition(node=Node("attn_out.1", 18), above=12.0)
LOADED = {
    "zero, set": [("resid_post.1/5", "zero", {}), ("resid_post.1/13", "set", {"value": 9.0})],
    "scale, add, clamp, mean": [
        ("resid_post.1/5", "scale", {"value": -1.0}), ("resid_post.1/12", "add", {"value": 7.0}),
        ("resid_post.1/13", "clamp", {"value": (1.0, 5.0)}), ("resid_post.1/17", "mean", {}),
    ],
    "positions": [
        ("resid_post.1/5", "set", {"value": 9.0, "positions": "last"}),
        ("resid_post.1/12", "zero", {"positions": "prompt"}),
        ("resid_post.1/13@2", "add", {"value": 20.0}),
        ("resid_post.1/17", "scale", {"value": 2.0, "positions": "generated"}),
        ("resid_post.1/0", "zero", {"positions": (1, 3)}),
    ],
    "errors": [("mlp_out.0/error", "zero", {}), ("resid_post.1/error", "scale", {"value": 0.5}),
               ("resid_post.1/5", "zero", {})],
    "a condition": [("resid_post.1/5", "set", {"value": 30.0, "when": WHEN})],
    "every feature but some": [
        ("resid_post.1/*", "scale", {"value": 0.5, "besides": (Node("resid_post.1", 5),)}),
    ],
    "norm outliers stay": [
        ("resid_post.1/5", "set",
         {"value": 9.0, "norm_below": norms("resid_post.1", 20.5), "when": WHEN}),
        ("mlp_out.2/4", "set",
         {"value": 20.0, "norm_below": norms("mlp_in.2", 9.0) + norms("mlp_out.2", 8.0)}),
        ("attn_out.1/3", "scale",
         {"value": -2.0, "positions": "last", "norm_below": norms("attn_out.1", 9.5)}),
    ],
    "a transcoder": [("mlp_out.2/4", "set", {"value": 20.0}), ("resid_post.1/5", "zero", {})],
}  # fmt: skip


@pytest.mark.parametrize("case", LOADED)
def test_what_weights_cannot_do_a_loader_does(tmp_path, case):
    pair = opened("qwen3", "mlp_out.0", "attn_out.1", "resid_post.1", "mlp_in.2-mlp_out.2")
    operations = [
        Operation(node=Node.parse(node), do=do, **more) for node, do, more in LOADED[case]
    ]
    edit = Edit(operations=tuple(operations), means={Node("resid_post.1", 17): 12.0})
    record = bake(pair, edit, tmp_path / "baked", PROMPTS)
    assert record["how"] == "loader"
    assert record["largest_difference"] < 1e-5
    assert record["largest_change"] > 1e-3
    assert record["generated"] == {"tokens": NEW, "prompts": len(PROMPTS), "same": len(PROMPTS)}
    text = (tmp_path / "baked" / "load_edited.py").read_text()
    imported = {line.split()[1].split(".")[0] for line in text.splitlines()
                if line.startswith(("import ", "from "))}  # fmt: skip
    assert imported <= {"json", "pathlib", "torch", "safetensors", "transformers"}
    names = {op.node.site for op in operations} | {
        op.when.node.site for op in operations if op.when
    }
    assert set(load_suite(tmp_path / "baked" / "dictionaries", mlp="sae")) == names


def test_a_row_is_all_that_baking_a_new_operation_needs(tmp_path, monkeypatch):
    pair = opened("qwen3", "resid_post.1")
    edit = Edit(operations=(operation("negate", monkeypatch, formula="-f"),))
    record = bake(pair, edit, tmp_path / "baked", PROMPTS)
    assert record["how"] == "loader"
    assert record["why_no_weights"].endswith("negate is no affine map of the feature")
    assert '"negate": lambda f, op: -f,' in (tmp_path / "baked" / "load_edited.py").read_text()
    d = pair.suite["resid_post.1"]

    def negated(x):
        f = torch.zeros(*x.shape[:-1], d.n_features)
        value, index = (x @ d.W_enc.T + d.b_enc).topk(d.spec.k)
        f = f.scatter(-1, index, value.relu())[..., 5]
        return x - 2 * f[..., None] * d.W_dec[5]

    compared(tmp_path / "baked", "qwen3", "resid_post.1", negated)
    without = Edit(operations=(operation("negate", monkeypatch, formula=None),))
    with pytest.raises(ValueError, match="negate of resid_post.1/5 has no formula in its row"):
        bake(pair, without, tmp_path / "other", PROMPTS)
    turned = Edit(operations=(operation("turn", monkeypatch, affine=lambda value: (-1.0, 0.0)),))
    suite, u = direction("attn_out.1")
    on = replace(turned.operations[0], node=Node("attn_out.1", 0))
    record = bake(opened("qwen3", suite=suite), Edit(operations=(on,)), tmp_path / "w", PROMPTS)
    assert record["how"] == "weights"
    compared(tmp_path / "w", "qwen3", "attn_out.1", lambda x: x - 2 * (x @ u)[..., None] * u)


def operation(name, monkeypatch, **fields):
    """Of feature 5, whose sign is turned by a row that is added."""
    kind = OperationKind(said="negated", become=lambda own, value, to: -own, **fields)
    monkeypatch.setitem(OPERATIONS, name, kind)
    return Operation(node=Node("resid_post.1", 5), do=name)


def test_a_simple_loader_is_short(tmp_path):
    pair = opened("qwen3", "resid_post.1")
    edit = edit_of(Operation(node=Node("resid_post.1", 5), do="zero"))
    bake(pair, edit, tmp_path / "baked", PROMPTS)
    text = (tmp_path / "baked" / "load_edited.py").read_text()
    code = text.split('"""', 2)[2]
    assert sum(bool(line.strip()) for line in code.splitlines()) <= 45


def test_what_cannot_be_baked_is_refused_and_nothing_is_left(tmp_path):
    pair = opened("qwen3", "resid_post.1")
    node = Node("resid_post.1", 5)
    with pytest.raises(ValueError, match="goes to the patch's value"):
        bake(pair, edit_of(Operation(node=node, do="patch")), tmp_path / "baked", PROMPTS)
    elsewhere = Operation(node=node, do="zero", norm_below=norms("resid_post.0", 9.0))
    with pytest.raises(ValueError, match=r"cannot be baked: .* by the norm at resid_post.0"):
        bake(pair, edit_of(elsewhere), tmp_path / "baked", PROMPTS)
    silent = edit_of(Operation(node=node, do="scale", value=1.0))
    with pytest.raises(RuntimeError, match="changes nothing on the prompts"):
        bake(pair, silent, tmp_path / "baked", PROMPTS)
    with pytest.raises(ValueError, match="give prompts on which"):
        bake(pair, edit_of(Operation(node=node, do="zero")), tmp_path / "baked", [])
    add = edit_of(Operation(node=node, do="add", value=1.0))
    with pytest.raises(ValueError, match=r"cannot do this edit: .* qwen3 model has no bias"):
        bake(pair, add, tmp_path / "baked", PROMPTS, BakeConfig(how="weights"))
    assert not (tmp_path / "baked").exists()


def test_the_command_bakes_the_bundled_model(tmp_path, fails):
    (tmp_path / "prompts.jsonl").write_text(
        json.dumps({"clean": "The keys near it", "answer": " sit", "wrong": " sits"}) + "\n"
    )
    edit, out = tmp_path / "add.json", tmp_path / "baked"
    call("edit", "make", "--features", "attn_out.3/5", "--do", "add", "--value", 4, "--out", edit)
    command = ("edit", "bake", edit, "--prompts", tmp_path / "prompts.jsonl", "--out", out)
    done = call(*command)
    assert done.exit_code == 0, done.output
    assert "in the weights: model.layers.3.self_attn.o_proj.bias" in " ".join(done.output.split())
    assert json.loads((out / "baked.json").read_text())["largest_difference"] < 1e-4
    assert "--force" in fails(*command, "--how", "loader")
    assert "no baked model" in fails(*command[:-1], tmp_path)
    assert "name some with --prompts" in fails("edit", "bake", edit, "--out", tmp_path / "other")
