"""Feature cards against plain recomputation from the weights, and their view on the terminal."""

import json

import pytest
import torch
from rich.cells import cell_len
from rich.console import Console
from transformers import Qwen2Tokenizer

from circuits.features.card import logit_tokens, make_cards, prompt_texts
from circuits.features.names import name_of_card
from circuits.features.neighbours import feature_card
from circuits.features.suite_index import suite_record
from circuits.features.terminal import card_view
from circuits.graph import Node
from hooked_qwen.load import hook
from hooked_qwen.sites import Site
from hooked_qwen.tokens import token_strings
from saes.dictionary import DictionarySpec
from saes.examples.store import StoreConfig, build_store
from tests.toys import (
    random_dictionary,
    speaking_toy,
    toy_hf,
    toy_prompts,
    toy_suite,
    toy_tokenizer,
)

CONFIG = StoreConfig(tokens=8 * 30, block_length=8, blocks_per_pass=7, top=5, sampled=2)
TEXT = "the ab quick brown fox jumps over a lazy dog, cab. Abba!? " * 9
NAMES = ("mlp_out.0", "mlp_in.1-mlp_out.1", "mlp_out.1", "attn_out.2", "mlp_out.2")


def dictionary(text, seed):
    source, _, target = text.partition("-")
    spec = DictionarySpec(source=Site.parse(source), target=Site.parse(target or source), k=4)
    return random_dictionary(spec, width=12, seed=seed, dtype=torch.float32)


def toy_with_gain():
    model = toy_hf("qwen3", torch.float32)
    # A gain of both signs: a card that leaves it out ranks other tokens.
    model.model.norm.weight.data = torch.randn(24, generator=torch.Generator().manual_seed(5))
    return model


@pytest.fixture(scope="module")
def hf():
    return toy_with_gain()


@pytest.fixture(scope="module")
def model(hf):
    return hook(hf, tokenizer=toy_tokenizer(), name="toy")


@pytest.fixture(scope="module")
def suite():
    return [dictionary(text, seed) for seed, text in enumerate(NAMES)]


@pytest.fixture(scope="module")
def store(model, suite, tmp_path_factory):
    return build_store(model, suite, [TEXT], tmp_path_factory.mktemp("s") / "store", config=CONFIG)


@pytest.fixture(scope="module")
def record(model, suite, store):
    return suite_record(model, suite, store, {"mlp_out.0": {"fvu": 0.25}})


def test_promoted_tokens_are_the_direct_path_to_the_logits(model, hf, suite, store):
    gain, unembedding = hf.model.norm.weight, hf.lm_head.weight
    for index in (0, 7):
        card = feature_card(model, suite, store, f"mlp_out.1/{index}")
        scores = unembedding @ (gain * suite[2].W_dec[index])
        scores = (scores - scores.mean()).detach()
        order = scores.argsort(descending=True).tolist()
        for key, ids in (("promoted", order[:8]), ("suppressed", order[::-1][:8])):
            assert [t for t, _ in card[key]] == token_strings(model.tokenizer, ids)
            expected = [float(scores[i]) for i in ids]
            assert [s for _, s in card[key]] == pytest.approx(expected, rel=1e-4)


def test_rows_of_the_vocabulary_that_are_no_token_are_not_promoted(suite):
    hf = toy_hf("qwen3", torch.float32)
    vocabulary = [p for p in toy_tokenizer().get_vocab() if p not in ("!", "?", ".")]
    shorter = Qwen2Tokenizer(vocab={p: i for i, p in enumerate(vocabulary)}, merges=[("a", "b")])
    with torch.no_grad():
        hf.lm_head.weight[len(shorter) :] *= 100
    found = logit_tokens(hook(hf, tokenizer=shorter, name="toy"), suite[2], range(12))
    assert int(torch.cat([found.promoted, found.suppressed]).max()) < len(shorter)


def test_a_card_tells_what_the_store_holds(model, suite, store):
    card = feature_card(model, suite, store, "mlp_in.1-mlp_out.1/2")
    found = store.examples(suite[1])
    assert card["source"], card["target"] == ("mlp_in.1", "mlp_out.1")
    assert card["density"] == pytest.approx(found.density(2))
    assert card["max_activation"] == pytest.approx(found.largest(2))
    for key, passages in (("examples", found.top), ("sampled", found.sampled)):
        for shown, example in zip(card[key], found.of(2, passages), strict=True):
            assert shown["tokens"] == token_strings(model.tokenizer, example.tokens)
            assert shown["values"] == pytest.approx(example.values, rel=5e-3)
            assert shown["peak"] == example.peak
    assert card["label"] == name_of_card(card)
    assert json.loads(json.dumps(card, allow_nan=False)) == card


def test_cards_of_a_run_come_from_its_prompts():
    model = speaking_toy()
    suite, prompts = toy_suite("mlp_out.1", "attn_out.0"), toy_prompts(6)
    nodes = [Node("mlp_out.1", 4, 2), Node("mlp_out.1", 1), Node("mlp_out.1", 4, 3)]
    nodes += [Node("attn_out.0", 2), Node("attn_out.0", "error"), Node("logit", " a")]
    cards = make_cards(model, suite, nodes, prompt_texts(prompts))
    assert set(cards) == {"mlp_out.1/4", "mlp_out.1/1", "attn_out.0/2"}
    for card in cards.values():
        assert card["tokens_seen"] == 2 * 6 * 6
        assert len(card["promoted"]) == len(card["suppressed"]) == 8
        for example in card["examples"]:
            assert example["values"][example["peak"]] == max(example["values"]) > 0
            assert len(example["tokens"]) == len(example["values"])
    assert make_cards(model, suite, [], prompt_texts(prompts)) == {}


def hostile_card(card, text):
    examples = [{"tokens": [text] * 5, "values": [0, 1.0, -1.0, 0.5, 0], "peak": 1}]
    nearest = [{"feature": "mlp_out.1/2", "label": text, "cosine": -0.5}]
    return card | {
        "label": text,
        "max_activation": 1.0,
        "examples": examples,
        "sampled": examples,
        "promoted": [[text, 1.0]],
        "suppressed": [[text, -1.0]],
        "nearest": {"decoder": nearest, "encoder": [], "layers": nearest},
    }


def printed(card, **options):
    console = Console(width=100, **options)
    with console.capture() as captured:
        console.print(card_view(card))
    return captured.get()


@pytest.mark.parametrize(
    "text",
    [
        "\x1b[2J\x1b]0;t\x07",
        "[red]markup[/red]",
        "\u202egnitirw",
        "a\nb\tc\rd",
        "中文" * 40,
        "x" * 400,
        "",
    ],
)
def test_the_terminal_shows_any_token_as_text(model, suite, store, text):
    card = hostile_card(feature_card(model, suite, store, "mlp_out.1/3"), text)
    shown = printed(card, color_system=None)
    assert not set(shown) & set("\x1b\x07\r\t\u202e")
    assert max(map(cell_len, shown.splitlines())) <= 100
    if text.startswith("["):
        assert text in shown


def test_the_terminal_shades_tokens_by_activation(model, suite, store):
    card = hostile_card(feature_card(model, suite, store, "mlp_out.1/3"), " ab")
    shown = printed(card, force_terminal=True, color_system="truecolor")
    assert shown.count("\x1b[1;4;30;48;2;224;142;11m") == 2, "the strongest, in both lists"
    assert shown.count("48;2;247;203;104m") == 2, "half as strong; negative values have no ground"


def test_a_feature_that_never_fires_has_a_view(model, suite, store):
    card = feature_card(model, suite, store, "mlp_out.1/3")
    silent = card | {"max_activation": None, "density": 0.0, "examples": [], "sampled": []}
    assert "never active on any of 240 tokens" in printed(silent)


def test_a_suite_record_holds_every_card(model, suite, store, record):
    arrays, words = record["arrays"], record["vocabulary"]
    feature = 0
    for each in suite:
        found = store.examples(each)
        for index in range(each.n_features):
            assert arrays["density"][feature] == pytest.approx(found.density(index))
            assert arrays["largest"][feature] == pytest.approx(found.largest(index) or 0.0)
            top = found.of(index, found.top)
            for place, example in enumerate(top):
                row, at = arrays["row"][feature, place], arrays["position"][feature, place]
                assert (
                    words[arrays["tokens"][row, at]]
                    == token_strings(model.tokenizer, [example.tokens[example.peak]])[0]
                )
            assert (arrays["row"][feature, len(top) : 5] == len(arrays["tokens"])).all()
            feature += 1
    assert len(record["labels"]) == feature == 60
    card = feature_card(model, suite, store, "mlp_out.1/3")
    assert record["labels"][27] == card["label"]
    assert [words[i] for i in arrays["promoted"][27]] == [t for t, _ in card["promoted"]]


def test_a_suite_record_says_what_its_dictionaries_are(record):
    assert [d["name"] for d in record["dictionaries"]] == list(NAMES)
    assert [d["first"] for d in record["dictionaries"]] == [0, 12, 24, 36, 48]
    assert [d["quality"] for d in record["dictionaries"]] == [{"fvu": 0.25}, {}, {}, {}, {}]


def test_a_page_of_too_many_features_is_refused(model, suite, store):
    with pytest.raises(ValueError, match="at most 59 features, these dictionaries have 60: choose"):
        suite_record(model, suite, store, {}, most=59)
