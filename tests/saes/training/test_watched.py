"""What is watched in training: dead features, what the log shows, numbers that are not finite."""

import pytest
import torch

from saes.training.loop import TrainConfig, fit
from saes.training.recorded_step import StepInputs
from saes.training.step import DictionaryWeights, StepResult, number_like
from saes.training.watched import Watched
from tests.saes.training.test_loop import CONFIG, IN, OUT, SAE, TRANSCODER, planted

WIDTH, TOKENS, D = 4, 10, 3


def after(watched, *fired, fvu=0.5, share=1.0, x=None):
    """What is watched after steps of `TOKENS` tokens, in each of which some features fired."""
    like = torch.zeros(WIDTH, D)
    x = torch.zeros(TOKENS, D) if x is None else x
    none = DictionaryWeights(W_enc=like, b_enc=like[:, 0], W_dec=like, b_dec=like[0])
    for step, on in enumerate(fired):
        result = StepResult(
            gradients=none,
            along=like[:, 0],
            loss=number_like(2.0, like),
            squared_error=number_like(1.0, like),
            fired=torch.isin(torch.arange(WIDTH), torch.tensor(on, dtype=torch.long)),
            l0=number_like(1.5, like),
        )
        given = StepInputs(x=x, y=x, rate=0.1, step=step, fvu_share=share, average_share=1.0)
        watched.note(result, number_like(fvu, like), given)
        watched.tokens += TOKENS
    return watched


def watching(dead_after=15):
    return Watched(WIDTH, dead_after, torch.zeros(WIDTH, D))


def test_a_feature_is_dead_after_tokens_at_which_it_was_off():
    watched = after(watching(), [0, 1])
    assert not watched.any_can_be_dead()
    assert not watched.is_dead().any()
    after(watched, [1, 2])
    assert watched.any_can_be_dead()
    assert watched.is_dead().tolist() == [False, False, False, True]
    assert watched.dead(None).features.tolist() == [3]
    after(watched, [3])
    assert watched.is_dead().tolist() == [True, False, False, False]


def test_a_list_of_a_length_has_the_dead_ones_first_and_counts_them_alone():
    watched = after(watching(), [0, 2], [0, 2])
    listed = watched.dead(3)
    assert set(listed.features[:2].tolist()) == {1, 3}
    assert listed.counted.tolist() == [True, True, False]
    assert watched.list_length() == WIDTH
    assert len(watched.nothing_dead()) == 0


def test_the_log_shows_the_last_step_and_a_running_mean_of_the_fvu():
    watched = after(watching(), [0], [0], fvu=0.8, share=0.5)
    shown = {name: float(value) for name, value in watched.shown.items()}
    assert shown == pytest.approx({"loss": 2, "fvu": 0.6, "l0": 1.5, "dead": 0.75})


def test_what_a_checkpoint_keeps_is_taken_up_from_earlier_versions_too():
    watched = after(watching(), [0], [0])
    taken_up = watching()
    earlier = {name: value for name, value in watched.state().items() if name != "dead"}
    taken_up.restore(earlier)
    assert torch.equal(taken_up.is_dead(), watched.is_dead())
    assert taken_up.any_can_be_dead()
    assert taken_up.shown == watched.shown | {"dead": 0}


def test_the_first_step_that_is_not_finite_is_told():
    watched = after(watching(), [0], [0])
    watched.check_finite(SAE)
    after(watched, [0], [0], [0], fvu=float("nan"))
    with pytest.raises(FloatingPointError, match="loss of mlp_out.0 is not finite at step 0"):
        watched.check_finite(SAE)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("spec", [SAE, TRANSCODER], ids=["sae", "transcoder"])
def test_activations_that_are_not_finite_are_the_models(spec, bad):
    batches = list(planted(20))
    batches[10].values[OUT if spec is SAE else IN][3, 2] = bad
    with pytest.raises(FloatingPointError, match="the model's activations at .* at step 10"):
        fit(batches, [spec], config=TrainConfig(width=20, tokens=32 * 20))


def test_a_loss_that_is_not_finite_names_the_step_and_the_dictionary():
    def broken():
        for step, batch in enumerate(planted(100)):
            if step == 12:
                batch.values[OUT][3, 3] = 1e30
            yield batch

    message = r"the loss of mlp_in\.0-mlp_out\.0 is not finite at step 12: lower the learning rate"
    with pytest.raises(FloatingPointError, match=message):
        fit(broken(), [TRANSCODER], config=CONFIG)
