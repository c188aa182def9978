"""What states hold sparsely, against the dense formulas: features, references, slopes, effects.

The formulas are written out here with tensors as wide as the dictionaries, from the model's tensors
and the dictionaries' matrices alone.
"""

from dataclasses import dataclass, replace
from functools import cache

import pytest
import torch
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from circuits.attribution.decomposed_run import EMBED
from circuits.attribution.effects import effects_by_prompt, node_effects
from circuits.attribution.means import mean_over
from circuits.attribution.state import batches
from circuits.prompts import EncodedPrompts
from hooked_qwen.forward import last_logits
from hooked_qwen.hooks import capture
from hooked_qwen.load import hook
from hooked_qwen.nodes import Node
from hooked_qwen.sites import Site
from hooked_qwen.tokens import Batch
from tests.circuits.dense import dense
from tests.saes.formulas import KINDS, encode, suite_of
from tests.toys import analysis_of, toy_hf, toy_prompts

PLACES = ("attn_out.0", "mlp_in.0-mlp_out.0", "resid_post.0", "mlp_out.1", "resid_post.2")
LOUD, PAD = 0, 2


@cache
def toy_loud(dtype):
    """A toy that answers one token with a thousand times the usual norm."""
    hf = toy_hf(dtype=dtype)
    with torch.no_grad():
        hf.model.embed_tokens.weight[LOUD] *= 1000
    return hook(hf, name="toy-loud")


def side(batch, pad, loud):
    """The first two prompts padded on the left, beside longer ones; loud tokens at `[row, pos]`."""
    tokens = torch.nn.functional.pad(batch.tokens, (pad, 0), value=1)
    mask = torch.ones_like(tokens, dtype=torch.bool)
    mask[:2, :pad] = False
    tokens[2:, :pad] = batch.tokens[2:, :pad] + 1
    for row, pos in loud:
        tokens[row, pos] = LOUD
    return Batch(tokens=tokens, mask=mask)


def loud_prompts(pad):
    """The first token of every prompt is an outlier, and some others on one side or the other."""
    prompts = toy_prompts(n=5)
    starts = [(0, pad), (1, pad), (2, 0), (3, 0), (4, 0)]
    return replace(
        prompts,
        clean=side(prompts.clean, pad, [*starts, (1, 4), (3, 4)]),
        patch=side(prompts.patch, pad, [*starts, (2, 4), (3, 5)]),
    )


@dataclass(frozen=True)
class Case:
    """Padded prompts need single precision: what is off by rounding is told in the other case."""

    model: TransformerBridge
    dtype: torch.dtype
    prompts: EncodedPrompts

    def suite(self, kind):
        return suite_of(kind, *PLACES, dtype=self.dtype)

    def close(self, found, expected, like=None):
        """To 1e-10, or 1e-6, of each token's own size, or of that of what it is a difference of."""
        reach = 1e-10 if self.dtype == torch.float64 else 1e-6
        assert found.shape == expected.shape
        like = expected if like is None else like
        size = like.abs().amax(-1, keepdim=True).clamp(min=1)
        assert ((found - expected).abs() <= reach * size).all()


@pytest.fixture(scope="module")
def case(request):
    dtype, pad = (torch.float64, 0) if request.param == "double" else (torch.float32, PAD)
    return Case(toy_loud(dtype), dtype, loud_prompts(pad))


@dataclass(frozen=True)
class Plain:
    """One dictionary on one side of the prompts: `[batch, pos, features]` and `[batch, pos, d]`."""

    f: Tensor
    pre: Tensor
    error: Tensor
    outlier: Tensor


def is_loud(x, mask):
    """Ten times the median norm of the prompt's own tokens."""
    found = torch.zeros_like(mask)
    for row in range(len(x)):
        norms = x[row].float().norm(dim=-1)
        found[row] = mask[row] & (norms > 10 * norms[mask[row]].median())
    return found


def plainly(model, suite, batch):
    with capture(model, {EMBED, *suite.reads, *suite.writes}) as values, torch.no_grad():
        last_logits(model, batch)
    found = {}
    for name, d in suite.items():
        read, tensor = values[d.source], values[d.target]
        f = encode(d, read)
        outlier = is_loud(read, batch.mask) | is_loud(tensor, batch.mask)
        error = tensor - f @ d.W_dec - d.b_dec
        found[name] = Plain(f, read @ d.W_enc.T + d.b_enc, error, outlier)
    return values, found


def plain_mean(x, plain, mask, by_position):
    """Over tokens that are no outliers; over outliers where nothing else is. And where that is."""
    kinds = mask & ~plain.outlier, mask & plain.outlier
    mean, of_outliers = torch.zeros_like(x[0]), torch.zeros(x.shape[1], dtype=torch.bool)
    for pos in range(x.shape[1]):
        at = [k[:, pos] if by_position else k for k in kinds]
        some = x[:, pos] if by_position else x
        of_outliers[pos] = not at[0].any()
        mean[pos] = some[at[int(of_outliers[pos])]].mean(0)
    return mean, of_outliers


def plain_slope(before, after):
    """Change over change of the pre-activation; 1 if on where that hardly moves."""
    moved = after.pre - before.pre
    small = moved.abs() <= 1e-3 * moved.abs().amax(-1, keepdim=True)
    ratio = (after.f - before.f) / torch.where(moved == 0, 1.0, moved)
    return torch.where(small, (before.f != 0).to(before.f), ratio.clamp(0, 3))


def plain_references(clean, patch, mask, reference, by_position):
    """Of each dictionary, where its features and its site's error are moved to."""
    found = {}
    for name, own in clean.items():
        if reference == "patch":
            to, moves = (patch[name].f, patch[name].error), mask
        elif reference == "zero":
            to, moves = (torch.zeros_like(own.f), torch.zeros_like(own.error)), mask & ~own.outlier
        else:
            f, of_outliers = plain_mean(own.f, own, mask, by_position)
            error, _ = plain_mean(own.error, own, mask, by_position)
            to, moves = (f, error), mask & ~(own.outlier & ~of_outliers)
        stays = own.f, own.error
        found[name] = [
            torch.where(moves.unsqueeze(-1), x, s) for x, s in zip(to, stays, strict=True)
        ]
    return found


REFERENCES = [("patch", True), ("zero", True), ("mean", True), ("mean", False)]


CASES = [("double", kind) for kind in KINDS] + [("padded", "topk"), ("padded", "relu")]
of_every_kind = pytest.mark.parametrize(("case", "kind"), CASES, indirect=["case"])


def analysed(case, suite, reference, by_position):
    """An analysis, and the state of its one batch."""
    positions = "keep" if by_position else "sum"
    analysis = analysis_of(
        case.model, suite, case.prompts, reference=reference, positions=positions, batch_size=5
    )
    (state,) = analysis.states
    return analysis, state


@pytest.mark.parametrize(("reference", "by_position"), REFERENCES)
@of_every_kind
def test_nodes_stand_and_move_as_the_dense_formulas_say(case, kind, reference, by_position):
    suite, prompts = case.suite(kind), case.prompts
    _, state = analysed(case, suite, reference, by_position)
    mask = prompts.clean.mask
    values, clean = plainly(case.model, suite, prompts.clean)
    patch_values, patch = plainly(case.model, suite, prompts.patch)
    assert any(plain.outlier.any() for plain in clean.values())
    moved = plain_references(clean, patch, mask, reference, by_position)
    for name, own in clean.items():
        site = Site.parse(name)
        assert torch.equal(state.outlier[name], own.outlier)
        f, error = moved[name]
        case.close(dense(state, name).f[mask], own.f[mask])
        case.close(dense(state, name).change, f - own.f, like=own.f.abs() + f.abs())
        tensor = values[site].abs() + patch_values[site].abs()
        case.close(state.errors[site].error, own.error, like=tensor)
        case.close(state.errors[site].reference, error, like=tensor)
        total = (f - own.f) @ suite[name].W_dec + error - own.error
        case.close(state.tensor_change(suite, site), total, like=tensor)
        if case.dtype == torch.float64:  # a quotient of differences: single precision loses it
            slope = (own.f != 0).to(own.f)
            slope = plain_slope(own, patch[name]) if reference == "patch" else slope
            case.close(dense(state, name).slope[mask], slope[mask])
        case.close(state.values[site], values[site])


@pytest.mark.parametrize("by_position", [True, False])
@of_every_kind
def test_means_are_those_of_dense_features(case, kind, by_position):
    suite, prompts = case.suite(kind), case.prompts
    found = mean_over(case.model, suite, prompts.clean, by_position=by_position, batch_size=2)
    _, clean = plainly(case.model, suite, prompts.clean)
    at = slice(None) if by_position else slice(1)
    for name, own in clean.items():
        f, of_outliers = plain_mean(own.f, own, prompts.clean.mask, by_position)
        error, _ = plain_mean(own.error, own, prompts.clean.mask, by_position)
        case.close(found.f[name].dense(), f[at])
        case.close(found.error[Site.parse(name)], error[at])
        assert torch.equal(found.of_outliers[name], of_outliers[at])


def drawn_gradients(suite, like):
    generator = torch.Generator().manual_seed(0)
    sites = [EMBED, *suite.writes]
    return {s: torch.randn(like.shape, generator=generator).to(like) for s in sites}


@pytest.mark.parametrize("positions", ["keep", "sum"])
@pytest.mark.parametrize("reference", ["patch", "mean"])
@of_every_kind
def test_effects_are_moves_times_gradients(case, kind, reference, positions):
    """Of every changed node and of no other; on each prompt, and summed over them."""
    suite, prompts = case.suite(kind), case.prompts
    by_position = positions == "keep"
    analysis, state = analysed(case, suite, reference, by_position)
    values, clean = plainly(case.model, suite, prompts.clean)
    patch_values, patch = plainly(case.model, suite, prompts.patch)
    moved = plain_references(clean, patch, prompts.clean.mask, reference, by_position)
    gradients = drawn_gradients(suite, values[EMBED])
    expected: dict[Node, Tensor] = {}

    def add(site, feature, gain, changes):
        for pos in changes.any(0).nonzero().flatten().tolist():
            node = Node(site, feature, pos if by_position else None)
            expected[node] = expected.get(node, 0.0) + gain[:, pos]

    for name, (f, error) in moved.items():
        dictionary, g = suite[name], gradients[Site.parse(name)]
        change = f - clean[name].f
        gain = change * (g @ dictionary.W_dec.T)
        for i in range(dictionary.n_features):
            add(name, i, gain[..., i], change[..., i] != 0)
        change = error - clean[name].error
        add(name, "error", (change * g).sum(-1), change.any(-1))
    if reference == "patch":
        change = patch_values[EMBED] - values[EMBED]
        add("embed", "token", (change * gradients[EMBED]).sum(-1), change.any(-1))

    found = node_effects(analysis, state, gradients)
    listed = dict(found)
    assert len(listed) == len(found)
    reach = 1e-10 * max(float(gain.abs().max()) for gain in expected.values())
    if case.dtype == torch.float32:
        # Loud tokens that move to a mean of others as loud: rounding is of their size.
        reach = 1e-5 * max(float(value.abs().max()) for value in values.values())
    # What moves by no more than rounding may be listed or not.
    totals = {node: float(gain.double().sum()) for node, gain in expected.items()}
    nodes = listed.keys() | totals.keys()
    gaps = {node: abs(listed.get(node, 0.0) - totals.get(node, 0.0)) for node in nodes}
    assert max(gaps.values()) <= reach, max(gaps, key=gaps.__getitem__)
    if case.dtype == torch.float64:
        assert len(listed.keys() ^ totals.keys()) < 0.02 * len(totals)
    some = list(totals)[::7]
    by_prompt = effects_by_prompt(analysis, state, gradients, some)
    gains = torch.stack([expected[node] for node in some]).double()
    torch.testing.assert_close(by_prompt, gains, atol=reach, rtol=0)


@pytest.mark.parametrize("case", ["double", "padded"], indirect=True)
def test_batches_hold_what_one_batch_of_all_holds(case):
    suite, prompts = case.suite("topk"), case.prompts
    (whole,) = batches(case.model, suite, prompts, reference="patch", batch_size=5)
    parts = batches(case.model, suite, prompts, reference="patch", batch_size=2)
    assert [len(part.rows) for part in parts] == [2, 2, 1]
    for name in suite:
        site = Site.parse(name)
        for part in parts:
            mask = part.clean.mask
            for field in ("f", "change", "slope"):
                found, expected = (getattr(dense(s, name), field) for s in (part, whole))
                case.close(found[mask], expected[part.rows][mask])
            change = whole.errors[site].change[part.rows]
            case.close(part.errors[site].change[mask], change[mask])
