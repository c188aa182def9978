"""One seed of SHIFT: what its probe reads, its circuit, and cuts, by plain hooks."""

import pytest
import torch

from circuits.shift.case import CaseConfig, ShiftCase
from circuits.shift.pooled import encoded, pooled_features
from hooked_qwen.nodes import Node
from tests.toys import speaking_toy, toy_suite


def plain_means(model, texts, edit=lambda x: x):
    """Each text alone through the plain model, norm outliers left out."""
    found = []
    for text in texts:
        tokens = torch.tensor([model.tokenizer(text)["input_ids"]])
        seen = {}
        blocks = model.original_model.model.layers

        def at_one(_module, _args, out):
            return edit(out)

        def at_two(_module, _args, out, seen=seen):
            seen["x"] = out

        handles = [
            blocks[1].register_forward_hook(at_one),
            blocks[2].register_forward_hook(at_two),
        ]
        with torch.no_grad():
            model.original_model(tokens)
        for handle in handles:
            handle.remove()
        (x,) = seen["x"]
        norms = x.norm(dim=-1)
        kept = norms <= 10 * norms.median()
        found.append(x[kept].mean(0))
    return torch.stack(found)


def test_a_text_is_its_mean_without_norm_outliers(case):
    texts = [t.text for t in case.data.balanced[:6]]
    expected = plain_means(case.model, texts)
    torch.testing.assert_close(case.means["balanced"][:6], expected.double(), atol=1e-5, rtol=1e-4)


def test_a_cut_is_that_of_plain_hooks(case):
    name = "resid_post.1"
    dictionary = case.suite[name]
    texts = encoded(case.model, case.data.balanced)
    on = pooled_features(case.model, case.suite, texts, [Node(name, i) for i in range(512)])
    chosen = on.mean(0).topk(3).indices

    def cut(out):
        f = dictionary.encode(out).dense()[..., chosen]
        norms = out.norm(dim=-1)
        stays = norms > 10 * norms.median()
        return out - (f @ dictionary.W_dec[chosen]) * ~stays.unsqueeze(-1)

    found = case.read("balanced", case.ablated([Node(name, i) for i in chosen.tolist()]))
    expected = plain_means(case.model, [t.text for t in case.data.balanced[:6]], cut)
    torch.testing.assert_close(found[:6], expected.double(), atol=1e-4, rtol=1e-3)
    assert not torch.allclose(found, case.means["balanced"], atol=1e-2)


def test_the_circuit_is_of_the_probe_s_logit(case):
    """Moving every node of the stream before the probe to zero moves the logit by their sum."""
    metric = case.analysis.metric
    assert len(case.analysis.prompts) == 16
    plain = {p.clean: i for i, p in enumerate(case.texts["ambiguous"].prompts.prompts)}
    rows = [plain[p.clean] for p in case.analysis.prompts.prompts]
    logits = case.probe.logits(case.means["ambiguous"])[rows]
    torch.testing.assert_close(metric.clean.double(), logits, atol=1e-4, rtol=1e-4)
    label, spurious = case.label_effects(), case.spurious_effects()
    direct = sum(effect for node, effect in label if node.site == "resid_post.2")
    dictionary = case.suite["resid_post.2"]
    bias = float(dictionary.b_dec.double() @ case.probe.direction)
    gone = float(logits.mean()) - case.probe.bias - bias
    assert -direct == pytest.approx(gone, abs=1e-3)
    assert spurious is not None
    assert dict(spurious).keys() == dict(label).keys()


def test_a_layer_without_a_dictionary_before_it_is_refused(case):
    config = CaseConfig(layer=9)
    with pytest.raises(ValueError, match="layer 9 cannot be read: expected 0"):
        ShiftCase.of(case.model, case.suite, case.data, config=config, seed=0)


def test_before_the_first_layer_there_is_no_stream_to_read(case):
    """A dictionary of the embedding stands before layer 0."""
    suite, model = toy_suite("embed", dtype=torch.float32), speaking_toy(dtype=torch.float32)
    with pytest.raises(ValueError, match="layer -1 cannot be read: expected 0"):
        ShiftCase.of(model, suite, case.data, config=CaseConfig(layer=-1), seed=0)


def test_the_circuit_is_of_as_many_texts_of_each_class(case):
    label = case.texts["ambiguous"].label
    texts = [p.clean for p in case.texts["ambiguous"].prompts.prompts]
    chosen = [texts.index(p.clean) for p in case.analysis.prompts.prompts]
    assert chosen == sorted(chosen)
    assert int(label[chosen].sum()) == len(chosen) // 2


def test_a_head_trained_again_on_what_it_read_before_says_the_same(case):
    first, again = case.with_both_heads(case.means["balanced"], lambda: case.means["ambiguous"])
    assert torch.equal(first.one, again.one)
    assert torch.equal(first.one, case.says(case.means["balanced"]).one)
