"""Recorded steps: the same numbers as steps done one operator after another."""

from dataclasses import replace

import pytest
import torch

from hooked_qwen.stream import ActivationBatch
from saes.architectures.table import ARCHITECTURES
from saes.training.loop import fit
from saes.training.recorded_step import MOST, Recordings, StepInputs, recorder
from saes.training.step import ScratchMemory
from tests.saes.training.test_device import CONFIG, SIZE, on, spec
from tests.saes.training.test_loop import IN, OUT, assert_same, planted
from tests.tape import Tapes

CLOSE = {"atol": 1e-6, "rtol": 1e-5}


@pytest.fixture
def recorded_by(other):
    """What records steps on the other device: CUDA graphs, or what stands in for them."""
    return recorder if other.name == "cuda" else Tapes()


class Counted:
    """Records, and counts what was recorded and replayed."""

    def __init__(self, recorder):
        self.recorder, self.made, self.replayed = recorder, 0, 0

    def __call__(self, device):
        record = self.recorder(device)

        def counted(work):
            self.made += 1
            replay = record(work)
            return lambda: self.again(replay)

        return counted

    def again(self, replay):
        self.replayed += 1
        replay()


def with_outliers(n):
    """Batches of which a number of tokens is left out that changes from one to the next."""
    for number, batch in enumerate(planted(n, SIZE)):
        outlier = torch.zeros(SIZE, dtype=torch.bool)
        outlier[: number % 3] = True
        yield ActivationBatch(batch.values, {IN: outlier, OUT: outlier.roll(1)})


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_recorded_steps_train_the_same_dictionary(other, recorded_by, name):
    """Of every length of the batch and of the list of dead features, from a snapshot too."""
    config, counted, kept, reports = replace(CONFIG, width=160), Counted(recorded_by), [], []
    batches = list(with_outliers(80))

    def keep(snapshot):
        kept.append(snapshot() if len(kept) < 30 else None)

    def there(batches, **options):
        (trained,) = fit(on(other.name, batches), [spec(name)], config=config, **options)
        trained.dictionary.to("cpu")
        return trained

    plain = there(batches, record=lambda device: None, report=lambda now: reports.append(now.dead))
    recorded = there(batches, record=counted, keep=keep)
    made = counted.made
    assert made >= 3, "one for each number of tokens, at least"
    assert counted.replayed > 40
    assert_same(recorded, plain, **CLOSE)
    assert recorded.record["dead_at_end"] == plain.record["dead_at_end"]
    resumed = there(batches[kept[29].step :], record=counted, after=kept[29])
    assert counted.made > made, "what was recorded before a snapshot is not replayed after it"
    assert_same(resumed, plain, **CLOSE)
    if name in ("topk", "batch-topk", "matryoshka"):
        assert max(reports) > 0, "some features are dead on the way"


def test_only_a_gpus_steps_are_recorded():
    assert recorder(torch.device("cpu")) is None


class Steps:
    """Work that notes how it was done."""

    def __init__(self):
        self.plain, self.recorded, self.replayed = 0, [], []

    def work(self, given, dead):
        self.plain += 1

    def record(self, work):
        self.recorded.append(number := len(self.recorded))
        return lambda: self.replayed.append(number)


def given(tokens, dtype=torch.float32, value=1.0):
    x = torch.full((tokens, 3), value, dtype=dtype)
    return StepInputs(x=x, y=x, rate=0.1, step=0, fvu_share=0.5, average_share=0.5)


def test_a_step_is_recorded_when_its_shape_has_been_met_before():
    steps = Steps()
    recordings = Recordings(steps.record, ScratchMemory(), torch.zeros(2))
    for tokens, dead in ((4, 0), (4, 0), (4, 0), (3, 0), (4, 32), (4, 32), (3, 0), (4, 0)):
        recordings.run(steps.work, given(tokens), 4, dead)
    assert steps.plain == 3
    assert steps.replayed == [0, 0, 1, 2, 0]
    recordings.forget()
    recordings.run(steps.work, given(4), 4, 0)
    assert (steps.plain, len(steps.recorded)) == (4, 3)


def test_the_recording_used_longest_ago_goes():
    steps = Steps()
    recordings = Recordings(steps.record, ScratchMemory(), torch.zeros(2))
    most = MOST + 1
    for tokens in range(1, most + 1):
        for _ in range(2):
            recordings.run(steps.work, given(tokens), most, 0)
    assert steps.plain == len(steps.recorded) == most
    for tokens, recorded in ((most, most), (1, most + 1)):
        recordings.run(steps.work, given(tokens), most, 0)
        assert len(steps.recorded) == recorded
    assert steps.plain == most


def test_of_many_shapes_that_come_in_turn_no_more_are_kept():
    steps = Steps()
    recordings = Recordings(steps.record, ScratchMemory(), torch.zeros(2))
    most = 2 * MOST
    for _ in range(3):
        for tokens in range(1, most + 1):
            recordings.run(steps.work, given(tokens), most, 0)
    assert steps.plain == most
    assert len(steps.recorded) == 2 * most
    # Of the last round the last ones are kept, and those before them are not.
    for tokens in range(most, most - MOST, -1):
        recordings.run(steps.work, given(tokens), most, 0)
    assert len(steps.recorded) == 2 * most
    recordings.run(steps.work, given(most - MOST), most, 0)
    assert len(steps.recorded) == 2 * most + 1


def test_a_step_that_cannot_be_recorded_says_what_it_must_not_do():
    def fail(work):
        raise RuntimeError("operation not permitted")

    recordings = Recordings(fail, ScratchMemory(), torch.zeros(2))
    recordings.run(lambda now, dead: None, given(4), 4, 0)
    with pytest.raises(RuntimeError, match="not permitted") as failed:
        recordings.run(lambda now, dead: None, given(4), 4, 0)
    assert failed.value.__notes__ == [
        "A step was being recorded; while it is, it must not wait for its device."
    ]


def test_a_recording_reads_each_batch_where_it_lay_at_first():
    seen = []

    def record(work):
        work()
        return lambda: None

    def work(now, dead):
        seen.append(now)

    recordings = Recordings(record, ScratchMemory(), torch.zeros(2))
    for value in (1.0, 2.0, 3.0):
        x = torch.full((4, 3), value)
        y = torch.full((4, 5), -value)
        now = StepInputs(
            x=x, y=y, rate=value, step=int(value), fvu_share=value, average_share=value
        )
        recordings.run(work, now, 6, 0)
    placed = seen[-1]
    assert (placed.x == 3).all()
    assert (placed.y == -3).all()
    for number in (placed.rate, placed.step, placed.fvu_share, placed.average_share):
        assert number == 3


def test_recordings_that_share_memory_each_read_their_own_batches():
    """The same shape in two precisions, as on two devices."""
    memory, seen = ScratchMemory(), []

    def record(work):
        work()
        return lambda: None

    kinds = (torch.float32, torch.float64)
    of_kinds = [Recordings(record, memory, torch.zeros(2, dtype=kind)) for kind in kinds]
    for value in (1.0, 2.0, 3.0):
        for recordings, kind in zip(of_kinds, kinds, strict=True):
            now = given(4, kind, value)
            recordings.run(lambda now, dead: seen.append(now), now, 4, 0)
    # Recorded in the second round, so each reads there what came in the third.
    for placed, kind in zip(seen[2:4], kinds, strict=True):
        assert placed.x.dtype == kind
        assert (placed.x == 3).all()
