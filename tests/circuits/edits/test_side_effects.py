"""Side effects and their controls: laws of what is moved, drawn and ranked."""

import pytest
import torch

from circuits.edits.edit_controls import (
    ALIKE,
    DIRECTION,
    NEURONS,
    RANDOM,
    activity_over,
)
from circuits.edits.rerun import Edited
from circuits.edits.side_effects import SideEffectsConfig, side_effects
from hooked_qwen.hooks import capture
from hooked_qwen.nodes import Node
from hooked_qwen.sites import Site
from saes.edit import Edit, Operation
from tests.toys import shared_toy, toy_prompts, toy_suite

SITES = ("mlp_out.0", "resid_post.1")
EDIT = Edit(
    operations=(
        Operation(node=Node(SITES[0], 3), do="set", value=6.0),
        Operation(node=Node(SITES[1], 5), do="zero"),
        Operation(node=Node(SITES[1], 13), do="zero", positions="last"),
    )
)
BLOCKS = torch.randint(1, 50, (4, 12), generator=torch.Generator().manual_seed(2))


def edited_toy():
    """The toy under the edit, and how active its features are."""
    model, suite = shared_toy(), toy_suite(*SITES)
    edited = Edited(model=model, suite=suite, edit=EDIT)
    return edited, activity_over(model, suite, SITES, BLOCKS)


@pytest.fixture(scope="module")
def opened():
    return edited_toy()


def test_activity_is_the_mean_over_the_text(opened):
    edited, activity = opened
    with torch.no_grad(), capture(edited.model, {Site.parse(SITES[1])}) as seen:
        edited.model(BLOCKS)
    x = seen[Site.parse(SITES[1])]
    expected = edited.suite[SITES[1]].encode(x).dense().mean((0, 1))
    torch.testing.assert_close(activity.features[SITES[1]], expected)
    torch.testing.assert_close(activity.coordinates[Site.parse(SITES[1])], x.mean((0, 1)))


def test_shares_are_ranked_and_are_what_the_runs_say(opened):
    edited, _ = opened
    behaviours = {"one": toy_prompts(5, seed=1), "two": toy_prompts(6, seed=2)}
    config = SideEffectsConfig(draws=2)
    record = side_effects(edited.model, edited.suite, EDIT, behaviours, BLOCKS, config)
    rows = record["behaviours"]
    shown = [abs(row["share"]["value"]) for row in rows if row["share"]["value"] is not None]
    assert shown == sorted(shown, reverse=True)
    for row in rows:
        prompts = behaviours[row["name"]]
        right, wrong = (torch.tensor(ids)[:, 0] for ids in (prompts.answer_ids, prompts.wrong_ids))

        def metric(tokens, right=right, wrong=wrong):
            logits = edited.model(tokens)[:, -1]
            at = torch.arange(len(tokens))
            return logits[at, right] - logits[at, wrong]

        with torch.no_grad():
            before, swapped = metric(prompts.clean.tokens), metric(prompts.patch.tokens)
            with edited.applied():
                after = metric(prompts.clean.tokens)
        change, contrast = float((after - before).mean()), float((before - swapped).mean())
        assert row["change"]["value"] == pytest.approx(change, abs=1e-6)
        if row["share"]["value"] is not None:
            assert row["share"]["value"] == pytest.approx(change / contrast, rel=1e-5)
        for control in row["controls"].values():
            if control["share"]["value"] is not None:
                mean = sum(control["draws"]) / 2
                assert control["share"]["value"] == pytest.approx(mean, abs=1e-6)
                beyond = row["share"]["value"] - mean
                assert control["beyond"]["value"] == pytest.approx(beyond, abs=1e-6)
    assert record["text"]["kl"]["value"] > 0
    assert set(record["text"]["controls"]) == {RANDOM, ALIKE, NEURONS, DIRECTION}


def test_an_edit_to_the_patch_has_no_side_effects_to_look_at(opened):
    edited, _ = opened
    edit = Edit(operations=(Operation(node=Node(SITES[1], 5), do="patch"),))
    with pytest.raises(ValueError, match="other text has none of"):
        side_effects(edited.model, edited.suite, edit, {}, BLOCKS)
