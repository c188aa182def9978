"""What a model is judged by is what the formula says of it."""

import pytest
import torch
import torch.nn.functional as F

from saes.scope.tuned_model import WriteConfig, behaviour_of, cross_entropies, difference, written
from tests.toys import VOCABULARY, toy_hf, toy_tokenizer

ROWS = [[(7 * i + 3 * j) % (VOCABULARY - 1) + 1 for j in range(5 + i % 3)] for i in range(8)]


def test_cross_entropies_are_those_of_each_text_alone():
    model = toy_hf()
    sums, counts = cross_entropies(model, ROWS)
    for row, total, n in zip(ROWS, sums, counts, strict=True):
        tokens = torch.tensor([row])
        logits = model(input_ids=tokens).logits
        expected = F.cross_entropy(logits[0, :-1], tokens[0, 1:], reduction="sum")
        assert float(total) == pytest.approx(float(expected), rel=1e-6)
        assert n == len(row) - 1


def test_what_is_written_is_the_same_for_a_seed_and_in_order():
    model, tokenizer = toy_hf(dtype=torch.float32), toy_tokenizer()
    config = WriteConfig(tokens=5, samples=2, seed=1)
    prompts = ["ab", "abcd", "x"]
    one, same = (written(model, tokenizer, prompts, config) for _ in range(2))
    assert one == same
    assert one != written(model, tokenizer, prompts, WriteConfig(tokens=5, samples=2, seed=2))
    assert [len(samples) for samples in one] == [2, 2, 2]
    lengths = behaviour_of(one, tokenizer, lambda pieces: float(len(pieces)))
    assert lengths.shape == (3,)


def test_a_difference_is_paired_by_prompts():
    found = difference([0.5, 0.7, 0.9], [0.4, 0.6, 0.8])
    assert found["mean"] == pytest.approx(0.1)
    assert found["interval"] == pytest.approx([0.1, 0.1])


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"tokens": 0}, "tokens is 0"),
        ({"samples": 0}, "samples is 0"),
        ({"temperature": 0.0}, "the temperature is 0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, said):
    with pytest.raises(ValueError, match=said):
        WriteConfig(**settings)
