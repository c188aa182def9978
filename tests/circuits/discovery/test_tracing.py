"""The first pass: effects and influence of every node, over prompts."""

import pytest
import torch

from circuits.discovery.methods import discover_by_method
from circuits.discovery.replaced_prompts import ReplacedPrompts
from circuits.discovery.tracing import effects_by_prompt, linear_effects, trace
from hooked_qwen.progress import silent
from tests.circuits.discovery.replaced import LENGTH, analysis


def test_ranking_has_every_feature_and_error_by_effect(one):
    found = discover_by_method(analysis(one))
    effects = [abs(effect) for _, effect in found.ranking]
    assert effects == sorted(effects, reverse=True)
    inner = {n for n in found.graph if n.kind in ("feature", "error")}
    assert set(found.ranking.nodes()) == inner
    assert found.norm_outliers["tokens"] == LENGTH


@pytest.mark.parametrize("reference", ["zero", "patch"])
def test_effects_alone_are_those_that_are_traced_with_influence(prompts, reference):
    opened = ReplacedPrompts(analysis(prompts, reference=reference))
    with torch.no_grad():
        traced, alone = trace(opened, None, silent), linear_effects(opened)
        each = list(effects_by_prompt(opened))
    expected = dict(traced.effects)
    assert dict(alone) == pytest.approx(expected, rel=1e-9, abs=1e-12)
    mean = dict.fromkeys(expected, 0.0)
    for effects in each:
        for node, effect in effects:
            mean[node] += effect / len(prompts)
    assert mean == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_scores_are_means_over_prompts(prompts):
    with torch.no_grad():
        found = trace(ReplacedPrompts(analysis(prompts)), None, silent)
    shares = [one.influence.replacement for one in found.prompts]
    assert found.replacement == pytest.approx(sum(shares) / 3)
    assert min(shares) < found.replacement < max(shares)
    assert 0 < found.completeness < 1
