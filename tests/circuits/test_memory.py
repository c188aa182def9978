"""Dictionaries are in memory one at a time, where there is room for one."""

import weakref
from dataclasses import replace

import pytest
import torch
from torch.multiprocessing.reductions import StorageWeakRef

from circuits.analysis import Analysis
from circuits.attribution.decomposed_run import decompose
from circuits.attribution.state import batch_state
from circuits.discovery.config import DiscoverConfig
from circuits.discovery.sparse_feature import discover
from circuits.edits.ablate import ablate
from circuits.edits.ablated_run import ablated_run
from circuits.edits.ablation import Ablation, apply
from circuits.edits.edited import edited_analysis, edited_states, graph_left
from circuits.edits.make import edit
from circuits.edits.rerun import rerun_prompts
from circuits.features.card import make_cards, prompt_texts
from circuits.features.effect_search import by_effect, text_analysis
from circuits.features.named import Named
from circuits.suites import evaluate_suite, feature, suite_overview
from circuits.verification.verify import VerifyConfig, verify
from hooked_qwen.forward import last_logits
from hooked_qwen.load import hook
from hooked_qwen.nodes import Node
from hooked_qwen.placement import ANYWHERE, Placement
from hooked_qwen.sites import Site
from saes.dictionary import DictionarySpec
from saes.evaluation.baselines import Coordinates
from saes.formats import ours
from saes.suite import Suite, load_suite
from tests.circuits.dense import ranking_of
from tests.toys import (
    full_suite,
    random_dictionary,
    toy,
    toy_hf,
    toy_prompts,
    toy_tokenizer,
)

weights: set[StorageWeakRef] = set()
together: list[int] = []


@pytest.fixture(autouse=True)
def watched(monkeypatch):
    """Suites remember how many dictionaries' weights were there together."""
    read = Suite.__getitem__

    def watching(suite, name):
        found = read(suite, name)
        if isinstance(found, Coordinates):
            return found
        weights.add(StorageWeakRef(found.W_dec.untyped_storage()))
        weights.difference_update([known for known in weights if known.expired()])
        together.append(len(weights))
        return found

    monkeypatch.setattr(Suite, "__getitem__", watching)


@pytest.fixture
def analysis(tmp_path):
    model = toy(dtype=torch.float32)
    ours.save(full_suite(torch.float32).values(), tmp_path)
    suite = load_suite(tmp_path, memory=1e-9)
    weights.clear()
    together.clear()
    config = DiscoverConfig(batch_size=2, nodes=10, steps=2)
    return Analysis.of(model, suite, toy_prompts(n=4, length=6), config)


def watched_making(monkeypatch, where, make, part=lambda found: found):
    """Of how many of those that `make` made a part is held as each next one is made."""
    made: list[weakref.ref[object]] = []
    held: list[int] = []

    def watching(*given, **named):
        held.append(sum(known() is not None for known in made))
        found = make(*given, **named)
        made.append(weakref.ref(part(found)))
        return found

    monkeypatch.setattr(f"{where}.{make.__name__}", watching)
    return held


def test_every_verb_holds_one_dictionary_and_one_batch_of_states_at_a_time(analysis, monkeypatch):
    held = watched_making(monkeypatch, "circuits.attribution.state", batch_state)
    found = discover(analysis)
    assert len(held) >= 4, "made for the effects, and again for the edges"
    assert not any(held)
    strongest = tuple(node for node, _ in found.ranking[:5] if node.kind == "feature")
    whole = (strongest[0]._replace(position=None),)
    for to in ("mean", "patch", "zero"):
        held.clear()
        # A new analysis for each verb, as for each command; the first still holds its last batch.
        config = VerifyConfig(level="quick", to=to, draws=1)
        verify(replace(analysis), found.graph, found.ranking, config=config)
        ablation = Ablation(ablated=strongest, to=to)
        ablate(replace(analysis), ablation, found.ranking)
        assert max(held) == 1
        graph_left(analysis, ablation, found.graph)
        with apply(analysis, Ablation(ablated=whole, to=to)):
            last_logits(analysis.model, analysis.prompts.clean)
    assert together, "dictionaries were read"
    assert max(together) == 1


def test_controls_are_within_the_memory_of_the_dictionaries(analysis):
    """Beside the one that is used there are coordinates, square matrices, and none of features."""
    found = discover(analysis)
    together.clear()
    verify(analysis, found.graph, found.ranking, config=VerifyConfig(level="full", draws=1))
    assert max(together) == 1


@pytest.mark.parametrize("to", ["mean", "patch", "zero"])
@pytest.mark.parametrize("node", [Node("mlp_out.1", 3), Node("resid_post.0", "error")])
def test_to_cut_one_node_out_no_dictionary_of_another_site_is_read(analysis, tmp_path, to, node):
    for path in tmp_path.glob(f"*/{ours.TENSORS}"):
        if not path.parent.name.endswith(node.site):
            path.write_bytes(b"damaged")
    model = hook(toy_hf("qwen3", torch.float32), tokenizer=toy_tokenizer(), name="toy")

    def opened():
        return Analysis.of(model, load_suite(tmp_path), analysis.prompts, analysis.config)

    ranking = ranking_of(analysis.suite, [node, node._replace(position=2)])
    assert ablate(opened(), Ablation(ablated=(node,), to=to), ranking)["features"] == [str(node)]
    with apply(opened(), Ablation(ablated=(node,), to=to)):
        last_logits(model, analysis.prompts.clean)
    edited = edit(opened(), [node], do=to, errors="drop")
    assert rerun_prompts(opened(), edited)["n"] == 4
    with pytest.raises(ValueError, match="not a readable"):
        discover(opened())


@pytest.mark.parametrize("metric", ["kl", "feature:resid_post.2/4"])
def test_a_batch_under_an_edit_is_let_go_before_the_next_is_made(analysis, metric, monkeypatch):
    config = replace(analysis.config, metric=metric, estimator="ig-inputs")
    given = analysis.model, analysis.suite, toy_prompts(n=6, length=6), config
    where = "circuits.edits.edited"
    states = watched_making(monkeypatch, where, ablated_run, lambda run: run.under)
    edited_analysis(Analysis.of(*given), Ablation(ablated=(Node("mlp_out.1", 7),)))
    assert len(states) >= 3
    assert not any(states)


def test_a_run_is_let_go_before_the_next_is_made_for_a_mean(analysis, monkeypatch):
    config = replace(analysis.config, reference="mean", estimator="patching")
    asked = Analysis.of(analysis.model, analysis.suite, toy_prompts(n=6, length=6), config)
    runs = watched_making(monkeypatch, "circuits.attribution.means", decompose)
    assert asked.means.f
    under = watched_making(monkeypatch, "circuits.edits.edited", ablated_run)
    edited_states(asked, Ablation(ablated=(Node("mlp_out.1", 7),)))
    assert min(len(runs), len(under)) >= 3
    assert not any(runs + under)


def test_a_text_is_let_go_before_the_next_is_read(analysis, monkeypatch):
    model = hook(toy_hf("qwen3", torch.float32), tokenizer=toy_tokenizer(), name="toy")
    texts = ["abba runs", "a dog sits.", "cab or jazz", "big fox!"]
    asked = text_analysis(model, analysis.suite, texts, "next-token")
    held = watched_making(monkeypatch, "circuits.attribution.state", batch_state)
    by_effect(asked, Named(model, asked.suite, {}), metric="next-token", top=3)
    # The tests' type checks look at some state: the first may be there before it is asked for.
    assert len(held) >= 7, "made for the estimates, and again for the exact effects"
    assert not any(held)


def text():
    generator = torch.Generator().manual_seed(0)
    letters = [chr(97 + int(i)) for i in torch.randint(0, 26, (3000,), generator=generator)]
    return ["".join(letters[i : i + 50]) for i in range(0, len(letters), 50)]


def judged(folder, out, placement):
    return evaluate_suite(folder, "toy", text, 256, placement=placement)


def carded(folder, out, placement):
    card, _ = feature(folder, "mlp_out.2/3", "toy", text, out, tokens=512, placement=placement)
    return card


def paged(folder, out, placement):
    return suite_overview(folder, "toy", text, out, tokens=512, placement=placement).read_text()


@pytest.mark.parametrize(("verb", "held"), [(judged, 1), (carded, 1), (paged, 2)])
def test_verbs_for_dictionaries_hold_few_and_say_the_same(tmp_path, monkeypatch, verb, held):
    """The page holds two: features are held against those of each other layer."""
    monkeypatch.chdir(tmp_path)
    toy_hf("qwen3", torch.float32).save_pretrained("toy")
    toy_tokenizer().save_pretrained("toy")
    dictionaries = full_suite(torch.float32)
    extra = random_dictionary(
        DictionarySpec(source=Site("mlp_out", 1), target=Site("mlp_out", 1), k=5),
        dtype=torch.float32,
    )
    folder = tmp_path / "dictionaries"
    ours.save([*dictionaries.values(), extra], folder)
    del dictionaries, extra
    whole = verb(str(folder), tmp_path / "whole", ANYWHERE)
    weights.clear()
    together.clear()
    found = verb(str(folder), tmp_path / "part", Placement(memory=1e-9))
    assert found == whole
    assert together, "dictionaries were read"
    assert max(together) == held
    if verb is judged:
        # Two at a time, each beside an untrained one.
        two = 4.5 * sum(b.nbytes for b in full_suite(torch.float32)["mlp_out.0"].buffers()) / 1e9
        assert verb(str(folder), tmp_path, Placement(memory=two)) == whole
        assert max(together) > 1


def test_cards_hold_one_dictionary_at_a_time(analysis):
    model = hook(toy_hf("qwen3", torch.float32), tokenizer=toy_tokenizer(), name="toy")
    suite = analysis.suite.fitting(model)
    nodes = [Node(name, 3) for name in suite]
    cards = make_cards(model, suite, nodes, prompt_texts(analysis.prompts))
    assert len(cards) == len(suite)
    assert max(together) == 1
