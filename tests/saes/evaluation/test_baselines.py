"""Controls: what is not trained, and what a tensor's own coordinates are."""

import pytest
import torch

from hooked_qwen.hooks import capture
from hooked_qwen.sites import Site
from saes.dictionary import SparseDictionary
from saes.dictionary_spec import DictionarySpec
from saes.evaluation import baselines as controls
from saes.evaluation.low_rank import low_rank
from saes.evaluation.metrics import evaluate
from tests.toys import SIZES, VOCABULARY, full_suite, random_dictionary, shared_toy, toy_suite

D = SIZES["hidden_size"]
MLP = Site("mlp_out", 1)
NAMES = ("mlp_out.1", "resid_post.0", "mlp_in.1-mlp_out.1")
GENERATOR = torch.Generator().manual_seed(4)
FITTED = torch.randint(1, VOCABULARY, (10, 9), generator=GENERATOR)
JUDGED = torch.randint(1, VOCABULARY, (6, 9), generator=GENERATOR)


@pytest.fixture(scope="module")
def model():
    return shared_toy("qwen3")


@torch.no_grad()
def plain_values(model, blocks, dictionary):
    with capture(model, [dictionary.source, dictionary.target]) as seen:
        model(blocks)
    return seen[dictionary.source].flatten(0, 1), seen[dictionary.target].flatten(0, 1)


def one(name, k=5):
    source, _, target = name.partition("-")
    source, target = Site.parse(source), Site.parse(target or source)
    return random_dictionary(DictionarySpec(source=source, target=target, k=k))


def test_neurons_are_the_dictionary_that_their_matrices_say(model):
    """Their products are the identity; the plain dictionary with the same weights makes them."""
    suite = toy_suite("attn_out.1", "mlp_out.1", "resid_post.2")
    basis = controls.neurons_inside_mlps(model, suite)
    assert [str(site) for site in basis] == ["attn_out.1", "mlp_hidden.1", "resid_post.2"]
    assert basis[Site("attn_out", 1)].W_dec is basis[Site("resid_post", 2)].W_dec
    for dictionary in basis.values():
        names = ("W_enc", "b_enc", "W_dec", "b_dec")
        plain = SparseDictionary(dictionary.spec, {n: getattr(dictionary, n) for n in names})
        x, g = torch.randn(2, 5, dictionary.W_dec.shape[1], dtype=torch.float64)
        f = dictionary.encode(x)
        assert dictionary.n_features == x.shape[-1]
        assert torch.equal(dictionary.decode(f), x)
        assert torch.equal(f.dense(), plain.encode(x).dense())
        torch.testing.assert_close(plain.decode(f), x)
        torch.testing.assert_close(dictionary.along(g, f.index), plain.along(g, f.index))


def test_features_of_the_stream_stay_beside_neurons_inside_mlps(model):
    suite = toy_suite("attn_out.1", "mlp_out.1", "resid_post.2")
    mixed = controls.features_and_neurons_inside_mlps(model, suite)
    assert [str(site) for site in mixed] == ["attn_out.1", "mlp_hidden.1", "resid_post.2"]
    for site in ("attn_out.1", "resid_post.2"):
        assert mixed[Site.parse(site)] is suite[Site.parse(site)]
    assert mixed[Site("mlp_hidden", 1)].n_features == model.cfg.d_mlp


def test_dictionaries_are_judged_beside_controls_as_sparse(model):
    dictionaries, reports = [one(name) for name in NAMES], []
    judged = controls.evaluate_with_baselines(
        model, dictionaries, JUDGED, fitted_on=FITTED, report=lambda *now: reports.append(now)
    )
    assert [j.quality for j in judged] == evaluate(model, dictionaries, JUDGED)
    assert [list(j.controls) for j in judged] == [
        ["untrained", "PCA"],
        ["untrained", "PCA"],
        ["untrained", "linear"],
    ]
    linear = evaluate(model, low_rank(model, dictionaries, FITTED), JUDGED)
    assert [list(j.controls.values())[1] for j in judged] == linear
    for one_judged in judged:
        assert all(c.l0 == pytest.approx(5, abs=0.5) for c in one_judged.controls.values())
    assert reports[0] == (0, 6)
    assert reports[-1] == (6, 6)


def test_the_untrained_control_is_as_sparse_where_no_k_is_recorded(model):
    spec = DictionarySpec(source=MLP, target=MLP, architecture="relu")
    dictionary = random_dictionary(spec)
    x, _ = plain_values(model, FITTED, dictionary)
    l0 = float((dictionary.encode(x).dense() != 0).double().sum(-1).mean())
    (judged,) = controls.evaluate_with_baselines(model, [dictionary], JUDGED, fitted_on=FITTED)
    assert judged.controls["untrained"].l0 <= round(l0)
    (control,) = controls.untrained(toy_suite("mlp_out.1")).values()
    assert control.spec.k == 5


def test_controls_are_not_fitted_on_the_text_they_are_judged_on(model):
    with pytest.raises(ValueError, match="fitted on other text than is judged on"):
        controls.evaluate_with_baselines(
            model, [one("mlp_out.1")], JUDGED, fitted_on=torch.cat([FITTED, JUDGED[:1]])
        )


def test_untrained_dictionaries_have_the_shape_of_the_trained(model):
    suite = full_suite()
    control = controls.untrained(suite, seed=3)
    assert list(control) == list(suite)
    for name, dictionary in control.items():
        assert (dictionary.source, dictionary.target) == (Site.parse(name),) * 2
        assert dictionary.W_dec.shape == suite[name].W_dec.shape
        torch.testing.assert_close(
            dictionary.W_dec.norm(dim=-1), torch.ones(20, dtype=torch.float64)
        )
        at_the_mean = dictionary.encode(suite[name].b_dec).dense()
        torch.testing.assert_close(at_the_mean, torch.zeros_like(at_the_mean), atol=1e-12, rtol=0)
    again, other = controls.untrained(suite, seed=3), controls.untrained(suite, seed=90)
    assert torch.equal(control[MLP].W_dec, again[MLP].W_dec)
    assert not torch.equal(control[MLP].W_dec, other[MLP].W_dec)
