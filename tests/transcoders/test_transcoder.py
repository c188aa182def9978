"""A transcoder stands in for an MLP: it reads what the MLP reads and writes what the MLP writes."""

import pytest
import torch
from torch import nn

from hooked_qwen.hooks import capture, intervene
from hooked_qwen.load import hook
from hooked_qwen.sites import Site
from saes.dictionary import DictionarySpec, SparseDictionary
from saes.evaluation.metrics import evaluate
from tests.toys import VOCABULARY, toy_hf
from transcoders.transcoder import transcoder

TOKENS = torch.randint(1, VOCABULARY, (4, 7), generator=torch.Generator().manual_seed(0))
LAYER = 1


class One(nn.Module):
    """A gate that is always open, which leaves an MLP linear: down(up(x))."""

    def forward(self, x):
        return torch.ones_like(x)


@pytest.fixture
def linear():
    """A toy whose second MLP is linear, and the transcoder that is that MLP exactly.

    x = relu(x) - relu(-x), so one feature for each sign of each coordinate writes its column.
    """
    hf = toy_hf("qwen3")
    mlp = hf.model.layers[LAYER].mlp
    mlp.act_fn = One()
    matrix = (mlp.down_proj.weight @ mlp.up_proj.weight).detach().clone()
    eye = torch.eye(len(matrix), dtype=matrix.dtype)
    weights = {
        "W_enc": torch.cat([eye, -eye]),
        "W_dec": torch.cat([matrix.T, -matrix.T]),
        "b_enc": matrix.new_zeros(2 * len(matrix)),
        "b_dec": matrix.new_zeros(len(matrix)),
    }
    # At most half of the features are on at once: no more than one of each pair.
    exact = SparseDictionary(transcoder(LAYER, k=len(matrix)), weights)
    return hook(hf, name="toy"), exact


@pytest.mark.parametrize("layer", [0, 12])
def test_a_transcoder_reads_the_mlps_input_and_writes_its_output(layer):
    spec = transcoder(layer, k=4)
    assert (spec.source, spec.target) == (Site("mlp_in", layer), Site("mlp_out", layer))
    assert spec == DictionarySpec(source=spec.source, target=spec.target, architecture="topk", k=4)
    assert spec.name == f"mlp_in.{layer}-mlp_out.{layer}"


@torch.no_grad()
def test_the_exact_transcoder_in_place_of_the_mlp_changes_nothing(linear):
    model, exact = linear
    clean = model(TOKENS)
    with capture(model, [exact.source, exact.target]) as seen:
        model(TOKENS)
    y = exact(seen[exact.source])
    torch.testing.assert_close(y, seen[exact.target], atol=1e-10, rtol=1e-10)
    with intervene(model, {exact.target: lambda _: y}):
        torch.testing.assert_close(model(TOKENS), clean, atol=1e-5, rtol=1e-5)


def test_the_exact_transcoder_is_judged_perfect(linear):
    model, exact = linear
    (quality,) = evaluate(model, [exact], TOKENS)
    assert quality.fvu == pytest.approx(0, abs=1e-20)
    assert quality.loss_recovered == pytest.approx(1, abs=1e-5)
    assert quality.kl == pytest.approx(0, abs=1e-6)


@torch.no_grad()
def test_it_stands_in_for_what_the_mlp_would_have_written_after_an_edit(linear):
    """Unlike an SAE of the MLP's output, it follows a change of the MLP's input."""
    model, exact = linear
    edit = {Site("resid_post", LAYER - 1): lambda x: 1.3 * x.roll(1, dims=-1)}
    with intervene(model, edit), capture(model, [exact.source, exact.target]) as seen:
        model(TOKENS)
    torch.testing.assert_close(exact(seen[exact.source]), seen[exact.target], atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("layer", [-1, -5])
def test_a_layer_that_cannot_be(layer):
    with pytest.raises(ValueError, match="no site is called"):
        transcoder(layer, k=4)
