"""Every way to read weights is a plain formula."""

import pytest
import torch

from hooked_qwen.sites import Site
from saes.dictionary import DictionarySpec, SparseDictionary
from saes.evaluation.readings import Reader, ReadingVariant, Scaling, scaling_by_token
from saes.formats.terms import Terms
from tests.saes.published import draw


@pytest.mark.parametrize("signed", [False, True])
def test_ways_to_read_are_plain_formulas(signed):
    w = {k: draw(*s, seed=i) for i, (k, s) in enumerate({"W_enc": (9, 6), "W_dec": (9, 6)}.items())}
    w |= {"b_enc": draw(9, seed=3) - 2, "b_dec": draw(6, seed=4), "mean": draw(6, seed=5)}
    w = {name: value.double() for name, value in w.items()}
    terms = Terms(axes={"W_enc": "md", "W_dec": "md", "b_enc": "m", "b_dec": "d", "mean": "d"}, k=4)
    x, c = draw(7, 6, seed=6).double(), draw(6, seed=7).double()
    by_token = scaling_by_token("standardised tokens", x - w["mean"])
    ways = {
        "plain": ReadingVariant(Scaling(0.3, 0.7), c, signed),
        "by token": ReadingVariant(by_token, None, signed),
    }
    found = Reader(terms, w, x).errors(x, x, ways)
    z = x - w["mean"]
    a = 1 / z.std(-1, keepdim=True)
    inputs = {"plain": 0.3 * z - c, "by token": (z - z.mean(-1, keepdim=True)) * a}
    outputs = {"plain": lambda y: y / 0.7, "by token": lambda y: y / a + z.mean(-1, keepdim=True)}
    for name, u in inputs.items():
        p = u @ w["W_enc"].T + w["b_enc"]
        kept = p * (p >= p.topk(4).values[:, -1:])
        f = kept if signed else kept.relu()
        y = outputs[name](f @ w["W_dec"] + w["b_dec"]) + w["mean"]
        torch.testing.assert_close(found[name], (x - y).square().sum(-1), atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("ranked_by", ["activation", "norm"])
@pytest.mark.parametrize("architecture", ["topk", "jumprelu"])
def test_what_is_tried_is_what_is_read_afterwards(architecture, ranked_by):
    """With scales that differ, a skip connection, and a feature that writes nothing."""
    shapes = {"W_enc": (9, 6), "W_dec": (9, 6), "b_enc": (9,), "b_dec": (6,), "mean": (6,)}
    shapes |= {"W_skip": (6, 6), "centre": (6,)}
    w = {name: draw(*shape, seed=i).double() for i, (name, shape) in enumerate(shapes.items())}
    w["W_dec"][3] = 0
    k = 4 if architecture == "topk" else None
    if k is None:
        w["threshold"] = torch.full((9,), 0.3).double()
    axes = {name: "md" if len(shape) == 2 else "d" for name, shape in shapes.items()}
    told = {"architecture": architecture, "k": k, "ranked_by": ranked_by, "mean": "mean"}
    terms = Terms(
        axes=axes | {"W_skip": "ts", "b_enc": "m", "threshold": "m"},
        centre="centre",
        scale=0.5,
        target_scale=4.0,
        **told,
    )
    x, y = draw(40, 6, seed=8).double(), draw(40, 6, seed=9).double()
    site = Site("mlp_out", 1)
    spec = DictionarySpec(source=site, target=site, architecture=architecture, k=k)
    one = SparseDictionary(spec, terms.folded(w))
    way = ReadingVariant(Scaling(0.5, 4.0), w["centre"], signed=False)
    tried = Reader(terms, w, x).errors(x, y, {"so": way})["so"]
    torch.testing.assert_close(tried, (y - one(x)).square().sum(-1))
