"""Edits under any run: generation with a cache and without, padded prompts, texts of any length."""

import dataclasses

import pytest
import torch

from circuits.analysis import Analysis
from circuits.discovery.config import DiscoverConfig
from circuits.edits import ablation as edits
from circuits.graph import Node
from hooked_qwen.tokens import Batch, pad_left
from tests.toys import (
    VOCABULARY,
    analysis_of,
    speaking_toy,
    toy_hf,
    toy_prompts,
    toy_suite,
)

STEPS = 30
WIDTH = 6
TEXTS = [[5, 9, 11], [4, 8, 15, 16, 23, 42], [31, 2, 7, 30, 12, 3, 44, 21, 17]]
"Shorter than the prompt set's prompts, as long, longer."
MODULES = {
    "mlp_out.0": lambda hf: hf.model.layers[0].mlp,
    "resid_post.1": lambda hf: hf.model.layers[1],
}


@pytest.fixture(scope="module")
def case():
    """A model, two dictionaries, and a prompt set of several lengths."""
    prompts = toy_prompts(n=4, length=WIDTH)
    mask = torch.arange(WIDTH) >= torch.tensor([[0], [2], [0], [1]])
    prompts = dataclasses.replace(
        prompts,
        clean=Batch(tokens=prompts.clean.tokens, mask=mask),
        patch=Batch(tokens=prompts.patch.tokens, mask=mask),
    )
    suite = toy_suite("mlp_out.0", "resid_post.1", dtype=torch.float32)
    return speaking_toy(dtype=torch.float32), suite, prompts


def of_one_length(prompts):
    """The same prompts without padding."""
    whole = torch.ones_like(prompts.clean.mask)
    return dataclasses.replace(
        prompts,
        clean=Batch(tokens=prompts.clean.tokens, mask=whole),
        patch=Batch(tokens=prompts.patch.tokens, mask=whole),
    )


def parts(dictionary, x):
    """Features and error, by the formula."""
    pre = x @ dictionary.W_enc.T + dictionary.b_enc
    f = torch.relu(pre) * (pre >= pre.topk(5, dim=-1).values[..., -1:])
    return f, x - f @ dictionary.W_dec - dictionary.b_dec


def tensors(hf, batch):
    """Each site's tensor on every prompt alone, padded on the left with nothing."""
    found = {name: [] for name in MODULES}
    handles = [
        module(hf).register_forward_hook(lambda m, a, out, name=name: found[name].append(out))
        for name, module in MODULES.items()
    ]
    with torch.no_grad():
        for tokens, mask in zip(batch.tokens, batch.mask, strict=True):
            hf(tokens[mask][None])
    for handle in handles:
        handle.remove()
    return {
        name: torch.cat(
            [torch.nn.functional.pad(x, (0, 0, WIDTH - x.shape[1], 0), value=torch.nan) for x in xs]
        )
        for name, xs in found.items()
    }


def targets(dictionary, patch, to):
    """What a node goes to at each position of the prompt set, and at all others."""
    found = parts(dictionary, patch)
    if to == "zero":
        return [(torch.zeros_like(x[0]), torch.zeros_like(x[0, 0])) for x in found]
    return [(x.nanmean(0), x.flatten(0, 1).nanmean(0)) for x in found]


def greedy(hf, dictionaries, nodes, values, tokens, positions):
    """Thirty tokens by plain Hugging Face hooks: the whole text of one prompt at every step."""
    text, shift = list(tokens), WIDTH - len(tokens) if positions == "end" else 0

    def cut(name):
        dictionary, ((f_at, f_rest), (e_at, e_rest)) = dictionaries[name], values[name]

        def edit(_module, _args, x):
            x, (f, error) = x.clone(), parts(dictionary, x)
            for node in nodes:
                for p in range(x.shape[1]) if node.site == name else ():
                    column = p + shift
                    known = positions != "sum" and 0 <= column < WIDTH
                    if node.position is not None and not (known and column == node.position):
                        continue
                    if node.feature == "error":
                        x[0, p] += (e_at[column] if known else e_rest) - error[0, p]
                    else:
                        i = node.feature
                        to = f_at[column, i] if known else f_rest[i]
                        x[0, p] += (to - f[0, p, i]) * dictionary.W_dec[i]
            return x

        return edit

    handles = [module(hf).register_forward_hook(cut(name)) for name, module in MODULES.items()]
    with torch.no_grad():
        for _ in range(STEPS):
            text.append(int(hf(torch.tensor([text])).logits[0, -1].argmax()))
    for handle in handles:
        handle.remove()
    return text


@pytest.mark.parametrize(
    ("positions", "to"), [("keep", "zero"), ("end", "mean"), ("sum", "patch"), ("keep", "mean")]
)
def test_generation_under_an_edit_equals_plain_hugging_face_hooks(case, positions, to):
    """With and without a cache, padded and alone."""
    model, suite, prompts = case
    if positions == "keep":
        prompts = of_one_length(prompts)
    hf = toy_hf(dtype=torch.float32)
    patch = tensors(hf, prompts.patch)
    dictionaries = {str(site): dictionary for site, dictionary in suite.items()}
    values = {name: targets(dictionaries[name], patch[name], to) for name in MODULES}
    f, _ = parts(dictionaries["resid_post.1"], tensors(hf, prompts.clean)["resid_post.1"])
    a, b = f.nansum((0, 1)).topk(2).indices.tolist()
    nodes = [Node("resid_post.1", a), Node("mlp_out.0", "error")]
    if positions != "sum":
        nodes += [
            Node("mlp_out.0", 3, 4),
            Node("resid_post.1", b, 5),
            Node("resid_post.1", "error", 2),
        ]
    expected = [greedy(hf, dictionaries, nodes, values, tokens, positions) for tokens in TEXTS]
    assert expected[0] != greedy(hf, dictionaries, [], values, TEXTS[0], positions)
    edit, config = edits.Ablation(ablated=tuple(nodes), to=to), DiscoverConfig(positions=positions)
    batch = pad_left(TEXTS, 0)
    with edits.apply(Analysis.of(model, suite, prompts, config), edit):
        for cached in (True, False):
            found = model.original_model.generate(
                batch.tokens,
                attention_mask=batch.mask.long(),
                max_new_tokens=STEPS,
                do_sample=False,
                use_cache=cached,
                pad_token_id=0,
            )
            rows = [
                row[row.shape[0] - len(e) :].tolist()
                for row, e in zip(found, expected, strict=True)
            ]
            assert rows == expected
        for cached in (True, False):
            (row,) = model.generate(
                torch.tensor([TEXTS[1]]),
                max_new_tokens=STEPS,
                do_sample=False,
                use_past_kv_cache=cached,
                stop_at_eos=False,
                verbose=False,
            )
            assert row.tolist() == expected[1]
    assert max(max(row) for row in expected) < VOCABULARY


def test_a_position_that_no_text_reaches_is_no_silent_edit(case):
    model, suite, prompts = case
    edit = edits.Ablation(ablated=(Node("mlp_out.0", 1), Node("mlp_out.0", 3, 4)))
    config = DiscoverConfig(positions="keep")
    with (
        pytest.raises(RuntimeError, match="mlp_out.0/3@4 never edited: no text"),
        edits.apply(Analysis.of(model, suite, of_one_length(prompts), config), edit),
    ):
        model.original_model(torch.tensor([[1, 2, 3]]))


@pytest.mark.parametrize(("positions", "message"), [("keep", "0 to 5"), ("sum", "leave out the @")])
def test_a_position_that_the_prompts_do_not_have_is_refused(case, positions, message):
    model, suite, prompts = case
    edit = edits.Ablation(ablated=(Node("mlp_out.0", 3, 6),))
    context = edits.apply(analysis_of(model, suite, prompts, positions=positions), edit)
    with pytest.raises(ValueError, match=message), context:
        pass


def test_hooks_are_gone_after_an_edit_and_after_an_error_in_it(case):
    model, suite, prompts = case
    tokens = torch.tensor([TEXTS[1]])
    before = model.original_model(tokens).logits
    edit = edits.Ablation(ablated=(Node("mlp_out.0", "error"),))
    config = DiscoverConfig(positions="sum")
    with edits.apply(Analysis.of(model, suite, prompts, config), edit):
        assert not torch.equal(model.original_model(tokens).logits, before)
    assert torch.equal(model.original_model(tokens).logits, before)
    context = edits.apply(Analysis.of(model, suite, prompts, config), edit)
    with pytest.raises(IndexError), context:
        model.original_model(torch.tensor([[VOCABULARY]]))
    assert torch.equal(model.original_model(tokens).logits, before)
    assert not any(m._forward_pre_hooks for m in [model.original_model, *model.blocks])
