"""Training on a device: the CPU's numbers, and next to no waiting."""

from dataclasses import replace

import pytest
import torch

from hooked_qwen.stream import ActivationBatch
from saes.architectures.table import ARCHITECTURES
from saes.dictionary import DictionarySpec
from saes.training.calibration import LargestPerToken
from saes.training.loop import CHECK_EVERY, TrainConfig, fit
from tests.saes.training.test_loop import EXACTLY, IN, OUT, assert_same, planted

SIZE = 32
CONFIG = TrainConfig(
    width=48, tokens=SIZE * 60, dead_after=200, learning_rate=5e-3, gradient_norm=0.5, average=0.5
)


def spec(name):
    return DictionarySpec(source=IN, target=OUT, architecture=name, k=4, skip=True)


def on(device, batches):
    for batch in batches:
        yield ActivationBatch(
            {site: value.to(device) for site, value in batch.values.items()},
            {site: flag.to(device) for site, flag in batch.outlier.items()},
        )


@pytest.fixture(params=[torch.float64, torch.float32], ids=str)
def _each_precision(request):
    torch.set_default_dtype(request.param)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.usefixtures("_each_precision")
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_device_trains_the_same_dictionary_and_goes_on_from_a_snapshot(other, name):
    kept, config = [], replace(CONFIG, tokens=SIZE * 40)

    def keep(snapshot):
        if len(kept) < 20:
            kept.append(snapshot())

    def there(batches, **options):
        # Recorded steps have a test of their own.
        plain = {"config": config, "record": lambda device: None}
        (trained,) = fit(on(other.name, batches), [spec(name)], **plain, **options)
        return trained

    whole = there(planted(80, SIZE), keep=keep)
    resumed = there(list(planted(80, SIZE))[kept[-1].step :], after=kept[-1])
    (expected,) = fit(planted(80, SIZE), [spec(name)], config=config)
    # A GPU adds up the tokens that share a feature in any order.
    assert_same(whole, resumed, atol=other.tolerance / 10, rtol=other.tolerance / 10)
    whole.dictionary.to("cpu")
    # In float32 the CPU may find TopK's features by a rough product, and sum in another order.
    single = torch.get_default_dtype() == torch.float32
    rough = single and (name == "topk" or bool(other.tolerance))
    exactly = {"atol": 1e-9, "rtol": 1e-9} if other.tolerance else EXACTLY
    assert_same(expected, whole, **({"atol": 1e-5, "rtol": 1e-4} if rough else exactly))


def waits(pretend, name, batches, config):
    """How often `fit` had waited for the device by the end of each step; nothing is read."""
    by_step = {}
    with pretend.watch() as seen:

        def note(now):
            by_step[now.step] = seen.of("sync").total()

        fit(batches, [spec(name)], config=config, report=note)
    return by_step


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_step_waits_at_most_twice_for_the_device(pretend, name):
    """Once for the tokens that are no outliers, once for the features that are dead."""
    by_step = waits(pretend, name, on("pretend", planted(60, SIZE)), CONFIG)
    steps = [by_step[n] - by_step[n - 1] for n in range(2, 60)]
    assert max(steps) <= 2 + 1
    # One of the steps ends with the look whether the losses were finite.
    assert sum(steps) <= 2 * len(steps) + 1


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_without_auxk_and_with_outliers_known_on_the_host_a_step_never_waits(pretend, name):
    batches = [
        ActivationBatch(batch.values, {site: flag.cpu() for site, flag in batch.outlier.items()})
        for batch in on("pretend", planted(60, SIZE))
    ]
    by_step = waits(pretend, name, batches, replace(CONFIG, aux_coefficient=0.0))
    assert by_step[CHECK_EVERY - 1] == by_step[1]
    assert by_step[CHECK_EVERY] == by_step[1] + 1


def test_the_search_for_a_threshold_waits_once_a_batch(pretend):
    generator, (tokens, features) = torch.Generator().manual_seed(0), (16, 40)
    plain = [torch.randn(tokens, features, generator=generator) for _ in range(12)]
    search, expected = (LargestPerToken(3, len(plain) * tokens // 8) for _ in range(2))
    there = [pre.to("pretend") for pre in plain]
    with pretend.watch() as seen:
        for pre in there:
            search.add(pre)
    for pre in plain:
        expected.add(pre)
    assert float(expected.floor) > 0, "the largest were sorted out on the way"
    assert seen.of("sync").total() == len(plain)
    assert search.floor.item() == expected.floor.item()


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize(("device", "site"), [("cpu", IN), ("pretend", OUT)], ids=str)
@pytest.mark.usefixtures("pretend")
def test_what_is_not_finite_is_found_later_and_named_by_its_step(device, site, name):
    """The steps in between go on, and no snapshot is taken of them."""
    batches = list(planted(60, SIZE))
    batches[12].values[site][3, 2] = torch.nan
    steps = []

    def keep(snapshot):
        if len(steps) in (5, 30):
            snapshot()

    message = f"the model's activations at {site} hold numbers that are not finite, at step 12"
    with pytest.raises(FloatingPointError, match=message):
        fit(on(device, batches), [spec(name)], config=CONFIG, keep=keep, report=steps.append)
    assert len(steps) == 30
    steps.clear()
    with pytest.raises(FloatingPointError, match=message):
        fit(on(device, batches), [spec(name)], config=CONFIG, report=steps.append)
    assert len(steps) == CHECK_EVERY - 1


@pytest.mark.usefixtures("pretend")
def test_a_loss_that_overflows_is_not_the_models():
    batches = list(planted(60, SIZE))
    batches[12].values[OUT][3, 3] = 1e30
    with pytest.raises(FloatingPointError, match="the loss of .* is not finite at step 12: lower"):
        fit(on("pretend", batches), [spec("topk")], config=CONFIG)
