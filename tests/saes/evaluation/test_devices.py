"""What dictionaries are judged by is the same on another device, which is seldom waited for."""

from dataclasses import asdict

import pytest
import torch

from hooked_qwen.load import hook
from saes.evaluation.baselines import evaluate_with_baselines
from saes.evaluation.metrics import evaluate_jointly
from saes.evaluation.probing import Labelled, probe
from saes.evaluation.try_conventions import try_conventions
from saes.formats.guessed import guessed
from saes.formats.place import local_place
from tests.toys import toy, toy_hf, toy_suite, toy_tokenizer

SITES = ("attn_out.0", "resid_post.0", "mlp_in.1-mlp_out.1", "resid_post.1")
TEXT = torch.randint(1, 60, (24, 16), generator=torch.Generator().manual_seed(0))
JUDGED, FITTED = TEXT[:8], TEXT[8:]


def judged(device, sites=SITES, blocks=JUDGED):
    model = toy(dtype=torch.float32).to(device)
    dictionaries = list(toy_suite(*sites, dtype=torch.float32).values())
    found = [
        asdict(one)
        for one in evaluate_with_baselines(model, dictionaries, blocks, fitted_on=FITTED)
    ]
    return found, asdict(evaluate_jointly(model, dictionaries, blocks))


def test_quality_and_controls_are_the_same_on_another_device(other):
    other.agrees(judged(other.name), judged("cpu"))


@pytest.mark.parametrize("pool", ["mean", "max"])
def test_probes_are_the_same_on_another_device(other, pool):
    letters = torch.randint(26, (24, 6), generator=torch.Generator().manual_seed(0)).tolist()
    texts = ["".join(chr(97 + n) for n in row[: 3 + i % 4]) for i, row in enumerate(letters)]
    examples = [Labelled(text, "xy"[i % 2]) for i, text in enumerate(texts)]

    def probed(device):
        model = hook(toy_hf(dtype=torch.float32), tokenizer=toy_tokenizer(), name="toy").to(device)
        dictionary = toy_suite("resid_post.1", dtype=torch.float32)["resid_post.1"]
        return asdict(probe(model, dictionary, examples, pool=pool))

    other.agrees(probed(other.name), probed("cpu"))


def test_conventions_are_tried_alike_on_another_device(other, tmp_path):
    one = toy_suite("resid_post.1", dtype=torch.float32)["resid_post.1"]
    torch.save({**one.state_dict(), "k": 5, "norm": 2.0}, tmp_path / "layer_1.pt")
    what = guessed(place := local_place(tmp_path))

    def tried(device):
        model = toy(dtype=torch.float32).to(device)
        found = try_conventions(model, what, what.find(place), JUDGED)
        return sorted(one.fvu for one in found.tried), found.untrained

    other.agrees(tried(other.name), tried("cpu"))


def test_waits_do_not_grow_with_the_dictionaries_and_little_with_the_text(pretend):
    def waits(*arguments):
        with pretend.watch() as seen:
            judged("pretend", *arguments)
        return seen.of("sync").total()

    few, many = waits(SITES[:1]), waits(SITES)
    assert many == few
    passes = (len(JUDGED) - 4) // 4
    assert waits(SITES, JUDGED) - waits(SITES, JUDGED[:4]) <= 6 * passes
