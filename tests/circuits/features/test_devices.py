"""Activations, examples, cards and pages of features are the same from another device."""

import json
from random import Random
from string import ascii_letters

import pytest
import torch
from safetensors.torch import load_file

from circuits.features.asking import by_words
from circuits.features.card import block_texts, make_cards
from circuits.features.describe import describe_features
from circuits.features.detector_cards import ChosenOn, detector_cards
from circuits.features.effect_search import by_effect, text_analysis
from circuits.features.judged_methods import read_texts
from circuits.features.named import Named
from circuits.features.neighbours import feature_card
from circuits.features.strips import strips
from circuits.features.suite_index import suite_record
from circuits.graph import Node
from hooked_qwen.identity import identity
from hooked_qwen.load import hook
from hooked_qwen.shards import write_cache
from hooked_qwen.sites import Site
from hooked_qwen.stream import StreamConfig, activation_batches, shuffled
from saes.examples.store import StoreConfig, build_store
from saes.scope.contexts import ContextConfig, read_contexts
from saes.scope.held_out import SplitConfig
from tests.toys import toy_hf, toy_suite, toy_tokenizer

SITES = ("resid_post.0", "mlp_in.1-mlp_out.1", "resid_post.1")
TEXTS = ["abcdefgh nopq" * 20, "zyx wvut srq" * 30]
VARIED = "".join(Random(0).choices(ascii_letters, k=400))
STREAM = StreamConfig(block_length=8, blocks_per_pass=2, batch_size=16, buffer_size=32)
STORE = StoreConfig(tokens=256, block_length=16, blocks_per_pass=4, top=3, sampled=2)
SITE = Site("mlp_out", 1)


def model_on(device):
    return hook(toy_hf(dtype=torch.float32).to(device), tokenizer=toy_tokenizer(), name="toy")


def plain(value):
    """A value that `==` compares, tensors as lists."""
    if isinstance(value, dict):
        return {str(key): plain(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    return value.tolist() if hasattr(value, "tolist") else value


def files(folder):
    """What a folder's files hold."""
    read = {".safetensors": load_file, ".json": lambda path: json.loads(path.read_text())}
    return {path.name: read[path.suffix](path) for path in sorted(folder.iterdir())}


def streamed(device, folder):
    batches = list(activation_batches(model_on(device), [SITE], TEXTS, config=STREAM))
    return [(b.values[SITE].cpu(), b.outlier[SITE]) for b in batches]


def cached(device, folder):
    model = model_on(device)
    cache = write_cache(model, [SITE], TEXTS, folder, config=STREAM, tokens=64)
    read = next(shuffled(cache.buffers([SITE], model=model, config=STREAM), config=STREAM))
    assert read.values[SITE].device.type == device
    return [files(folder), read.values[SITE].cpu(), read.outlier[SITE]]


def stored(device, folder):
    suite = toy_suite(*SITES, dtype=torch.float32)
    build_store(model_on(device), list(suite.values()), TEXTS, folder, config=STORE)
    return files(folder)


def carded(device, folder):
    nodes = [Node("mlp_out.1", "3", 0), Node("resid_post.1", "7", 2)]
    suite = toy_suite(*SITES, dtype=torch.float32)
    texts = block_texts(torch.randint(1, 60, (4, 8), generator=torch.Generator().manual_seed(0)))
    return make_cards(model_on(device), suite.fitting(model_on(device)), nodes, texts)


def paged(device, folder):
    model = model_on(device)
    suite = toy_suite(*SITES, dtype=torch.float32).fitting(model)
    dictionaries = list(suite.values())
    store = build_store(model, dictionaries, TEXTS, folder, config=STORE)
    card = feature_card(model, dictionaries, store, "resid_post.1/3")
    return [card, suite_record(model, dictionaries, store, {})]


def described(device, folder):
    model, suite = model_on(device), toy_suite("resid_post.1", dtype=torch.float32)
    config = ContextConfig(tokens=384, block_length=16, length=4)
    contexts = read_contexts(model, suite, ["resid_post.1"], [VARIED], config=config)
    enough = (contexts["resid_post.1"].counts() >= 20).nonzero().flatten()[:2].tolist()
    nodes = [Node("resid_post.1", i) for i in enough]
    how = {"explain": None, "judge": by_words, "by": "model", "judged_by": "words"}
    split = SplitConfig(shown=4, judged=2)
    return describe_features(model, suite, contexts, nodes, config=split, **how)


def searched(device, folder):
    model, suite = model_on(device), toy_suite("mlp_out.0", "resid_post.2", dtype=torch.float32)
    named, texts = Named(model, suite, {}), [TEXTS[0][:9], TEXTS[1][:7], "abba", "cab"]
    analysis = text_analysis(model, suite, texts, "next-token")
    positive = torch.tensor([True, True, False, False])
    found = by_effect(analysis, named, metric="next-token", positive=positive, top=4)
    asked = [Node.parse(row["feature"]) for row in found["found"]]
    return [found, strips(model, suite, [("", text) for text in texts], asked, named)]


def told_apart(device, folder):
    model, suite = model_on(device), toy_suite("resid_post.0", "resid_post.2", dtype=torch.float32)
    texts = ["abcd e", "Hello abc", "aaab bbb", "xyz zyx", "what no", "zzz yx"]
    read = read_texts(model, suite, texts)
    positive = torch.arange(6) < 3
    chosen_on = ChosenOn(texts=texts, positive=positive, activity=read.activity)
    nodes = [read.activity.node(int(i)) for i in read.activity.feature.unique()[:3]]
    found = detector_cards(model, suite, nodes, chosen_on)
    return [found, read.activity.largest, read.control.largest, list(read.means.values())]


MADE = [streamed, cached, stored, carded, paged, described, searched, told_apart]


@pytest.mark.parametrize("made", MADE)
def test_what_is_made_on_another_device_is_the_same(other, made, tmp_path):
    with other.complaining():
        there = made(other.name, tmp_path / "there")
    other.agrees(plain(there), plain(made("cpu", tmp_path / "here")))


def test_a_pass_for_examples_waits_no_more_the_more_features_are_looked_at(pretend, tmp_path):
    model = model_on("pretend")
    identity(model)  # computed once

    def waits(config, *sites):
        dictionaries = list(toy_suite(*sites, dtype=torch.float32).fitting(model).values())
        folder = tmp_path / f"{config.tokens} {len(sites)}"
        with pretend.watch() as seen:
            build_store(model, dictionaries, TEXTS, folder, config=config)
        return seen.of("sync").total()

    twice = StoreConfig(**vars(STORE) | {"tokens": 2 * STORE.tokens})
    passes = STORE.tokens // (STORE.block_length * STORE.blocks_per_pass)
    one, several = (waits(twice, *some) - waits(STORE, *some) for some in (SITES[:1], SITES))
    assert one == several <= 2 * passes
    assert waits(STORE, *SITES) - waits(STORE, *SITES[:1]) <= 3 * (len(SITES) - 1)


def test_shuffled_activations_wait_for_the_device_once_a_buffer(pretend):
    model = model_on("pretend")
    buffers = 256 // STREAM.buffer_size
    with pretend.watch() as seen:
        list(activation_batches(model, [SITE], ["abcdefgh" * 33], config=STREAM))
    assert seen.of("sync").total() <= buffers * (1 + 2 * STREAM.passes)
    assert not seen.of("slow")
