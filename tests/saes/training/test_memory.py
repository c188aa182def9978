"""What a training is counted to hold is what it holds."""

import weakref
from dataclasses import replace

from hooked_qwen.stream import StreamConfig, shuffled
from saes.training.loop import BATCHES_FOR_MEAN, fit
from saes.training.memory import activation_bytes
from tests.saes.training.test_loop import CONFIG, IN, OUT, SAE, D, planted

STREAM = StreamConfig(batch_size=32, buffer_size=512, block_length=16, blocks_per_pass=2)


def test_the_activations_there_at_once_are_counted():
    made, there = [], []

    def watched(batches):
        for batch in batches:
            fresh = replace(batch)
            made.append(weakref.ref(fresh))
            yield fresh
            del fresh

    def weigh(_):
        alive = [known() for known in made]
        values = [x for batch in alive if batch is not None for x in batch.values.values()]
        there.append(sum(x.nbytes for x in values))

    batches = watched(shuffled(watched(planted(2, size=512)), config=STREAM))
    fit(batches, [SAE], config=replace(CONFIG, tokens=32 * 16), report=weigh)
    most = activation_bytes([IN, OUT], D, STREAM)
    assert there[0] == most
    one_batch = 4 * 2 * D * 32
    assert there[BATCHES_FOR_MEAN:] == [most - (BATCHES_FOR_MEAN - 1) * one_batch] * 8
    # A pass that takes more than those batches counts in their place.
    more = activation_bytes([IN, OUT], D, STREAM, running=BATCHES_FOR_MEAN * one_batch)
    assert more == most + 2 * one_batch
