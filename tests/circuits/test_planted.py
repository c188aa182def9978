"""A circuit planted by hand in a real Qwen3 is found: its nodes and edges, before all others.

The prompt is `filler SUBJECT filler OBJECT filler ?`; the answer is the subject's class. Weights
are sums of `out (x) in` over random orthonormal directions of the stream:

    MLP 0          word -> its class                               at the word
    attention 1    class of the subject (object) -> moved class    at every later position
    MLP 1          moved class AND question mark -> answer         at the question mark
    unembedding    answers -> their logits

The object drives a circuit of the same strength that ends in the logits of other tokens: its
nodes are as active and move as much, and change nothing that the metric sees. Attention 0 copies
words to later positions, where nothing reads them. RMSNorm, SiLU gates, the norms of queries and
keys, rotary positions and softmax are all in place, so every decoy has some small effect.
"""

import random
from itertools import pairwise

import pytest
import torch
from torch import Tensor
from transformers import Qwen3Config, Qwen3ForCausalLM

from circuits.ablation.path_patching import exact_edges
from circuits.attribution.edges import edge_weights
from circuits.discovery.config import DiscoverConfig
from circuits.discovery.ranking import rank_nodes
from circuits.graph import Node
from circuits.prompts import EncodedPrompts, Prompt
from hooked_qwen.load import hook
from hooked_qwen.sites import Site
from hooked_qwen.tokens import Batch
from saes.dictionary import DictionarySpec, SparseDictionary
from saes.suite import Suite
from tests.circuits.dense import dense
from tests.toys import analysis_of

SUBJECT, OBJECT = "AB", "CD"
CLASSES = SUBJECT + OBJECT
WORDS = [f"{c.lower()}{i}" for c in CLASSES for i in range(3)]
MOVED = [f"moved {c}" for c in CLASSES]
ANSWERS = [f"answer {c}" for c in CLASSES]
COPIES = [f"copy of {role} {i}" for role in ("subject", "object") for i in range(3)]
BACKGROUND = ["constant", "subject", "object", "question", "f1", "f2"]
"No dictionary has a feature for these: they are left to the errors."
FEATURES = [*WORDS, *CLASSES, *MOVED, *ANSWERS, *COPIES]
TOKENS = [*WORDS, "f1", "f2", "question", *ANSWERS]
WIDTH, HEAD = len(BACKGROUND) + len(FEATURES), 8
SUBJECT_AT, OBJECT_AT, QUESTION_AT = 1, 3, 5
LOGIT = Node("logit", "logit")


def directions() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(WIDTH, WIDTH, generator=generator, dtype=torch.float64)).Q
    return dict(zip([*BACKGROUND, *FEATURES], basis, strict=True))


E = directions()


def embed(token: str) -> Tensor:
    row = 10 * E["constant"] + 2 * E.get(token, torch.zeros(WIDTH))
    if token in WORDS:
        row = row + 1.5 * E["subject" if token[0].upper() in SUBJECT else "object"]
    return row


def plant_attention(attention, values: list[tuple[tuple[str, ...], str]]) -> None:
    """Head 0 looks at the subject and head 1 at the object; both share their keys and values.

    Of each value's (inputs, output) the first half belongs to head 0. Queries and keys use the
    coordinates that rotary positions turn least.
    """
    q, k = attention.q_proj.weight, attention.k_proj.weight
    q[3], q[HEAD + 7] = E["constant"], E["constant"]
    k[3], k[7], k[2] = E["subject"], E["object"], 0.1 * E["constant"]
    attention.q_norm.weight.fill_(4)
    for i, (inputs, output) in enumerate(values):
        attention.v_proj.weight[i] = sum(E[name] for name in inputs)
        head = 0 if i < len(values) // 2 else 1
        attention.o_proj.weight[:, head * HEAD + i] = 2 * E[output]


def plant_mlp(mlp, neurons: list[tuple[tuple[str, ...], float, str]]) -> None:
    """Neurons (inputs, bias, output) that are on where the inputs' sum outweighs the bias."""
    for i, (inputs, bias, output) in enumerate(neurons):
        mlp.gate_proj.weight[i] = 7 * sum(E[name] for name in inputs) - bias * E["constant"]
        mlp.up_proj.weight[i] = 0.2 * E["constant"]
        mlp.down_proj.weight[:, i] = 0.5 * E[output]


def words_of(c: str) -> tuple[str, ...]:
    return tuple(w for w in WORDS if w[0].upper() == c)


@torch.no_grad()
def planted():
    config = Qwen3Config(
        vocab_size=len(TOKENS),
        hidden_size=WIDTH,
        intermediate_size=len(CLASSES),
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=HEAD,
        tie_word_embeddings=False,
        max_position_embeddings=16,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6},
    )
    model = Qwen3ForCausalLM(config).double()
    for name, weight in model.named_parameters():
        weight.fill_(1.0 if "norm" in name else 0.0)
    model.model.embed_tokens.weight[:] = torch.stack([embed(token) for token in TOKENS])
    for c in CLASSES:
        model.lm_head.weight[TOKENS.index(f"answer {c}")] = 3 * E[f"answer {c}"]
    first, second = model.model.layers
    pairs = [("a0", "b0"), ("a1", "b1"), ("a2", "b2"), ("c0", "d0"), ("c1", "d1"), ("c2", "d2")]
    plant_attention(first.self_attn, list(zip(pairs, COPIES, strict=True)))
    plant_mlp(first.mlp, [(words_of(c), 0.7, c) for c in CLASSES])
    plant_attention(second.self_attn, [((c,), f"moved {c}") for c in CLASSES])
    plant_mlp(second.mlp, [((f"moved {c}", "question"), 2.2, f"answer {c}") for c in CLASSES])
    return hook(model, name="planted")


def dictionaries() -> Suite:
    """At every site of both layers, a feature for each planted direction, wanted or not."""
    rows = torch.stack([E[name] for name in FEATURES])
    weights = {"W_enc": rows, "b_enc": rows.new_zeros(len(rows)), "W_dec": rows}
    weights["b_dec"] = rows.new_zeros(WIDTH)
    found = {}
    for layer in range(2):
        for kind in ("attn_out", "mlp_out", "resid_post"):
            site = Site(kind, layer)
            spec = DictionarySpec(source=site, target=site, architecture="relu")
            found[site] = SparseDictionary(spec, weights)
    return Suite(found, {})


def prompt_set(n: int = 6) -> EncodedPrompts:
    """Pairs in which subject and object both change their class; either subject comes first."""
    generator = random.Random(0)
    rows: dict[str, list] = {"clean": [], "patch": []}
    right: list[tuple[int, ...]] = []
    wrong: list[tuple[int, ...]] = []
    for i in range(n):
        subjects = SUBJECT if i % 2 else SUBJECT[::-1]
        objects = generator.sample(OBJECT, 2)
        f = generator.choices(("f1", "f2"), k=3)
        for side, s, o in zip(rows, subjects, objects, strict=True):
            s, o = (generator.choice(words_of(c)) for c in (s, o))
            rows[side].append([TOKENS.index(t) for t in (f[0], s, f[1], o, f[2], "question")])
        right.append((TOKENS.index(f"answer {subjects[0]}"),))
        wrong.append((TOKENS.index(f"answer {subjects[1]}"),))
    clean, patch = (
        Batch(tokens=torch.tensor(r), mask=torch.ones(n, 6, dtype=torch.bool))
        for r in rows.values()
    )
    texts = tuple(Prompt(clean="", patch="", answer=("",), wrong=("",)) for _ in range(n))
    return EncodedPrompts(texts, clean, patch, tuple(right), tuple(wrong), None)


def chain(c: str, word_at: int) -> list[Node]:
    """The nodes through which a word's class `c` reaches its answer, after the word itself."""
    at = FEATURES.index
    return [
        Node("mlp_out.0", at(c), word_at),
        Node("resid_post.0", at(c), word_at),
        Node("attn_out.1", at(f"moved {c}"), QUESTION_AT),
        Node("mlp_out.1", at(f"answer {c}"), QUESTION_AT),
        Node("resid_post.1", at(f"answer {c}"), QUESTION_AT),
    ]


def circuit(classes: str, word_at: int) -> tuple[set[Node], set[tuple[Node, Node]]]:
    paths = [[Node("embed", "token", word_at), *chain(c, word_at), LOGIT] for c in classes]
    nodes = {node for path in paths for node in path if node != LOGIT}
    return nodes, {edge for path in paths for edge in pairwise(path)}


TRUE_NODES, TRUE_EDGES = circuit(SUBJECT, SUBJECT_AT)
DECOY_NODES, _ = circuit(OBJECT, OBJECT_AT)


def auroc(scores: dict, true: set) -> float:
    """Share of pairs (one true, one not) in which the true one has the larger absolute score."""
    assert true <= scores.keys(), f"{true - scores.keys()} have no score"
    yes = torch.tensor([abs(s) for key, s in scores.items() if key in true])
    no = torch.tensor([abs(s) for key, s in scores.items() if key not in true])
    above = (yes[:, None] > no).double() + 0.5 * (yes[:, None] == no).double()
    return float(above.mean())


@pytest.fixture(scope="module")
def analysis():
    return analysis_of(planted(), dictionaries(), prompt_set())


@pytest.fixture(scope="module")
def state(analysis):
    (state,) = analysis.states
    return state


def effects_of(analysis, estimator):
    ranking, _ = rank_nodes(analysis.asked(DiscoverConfig(estimator=estimator)))
    return dict(ranking)


def feature(values: Tensor, name: str) -> Tensor:
    return values[..., FEATURES.index(name)]


def test_the_planted_model_does_its_task(analysis, state):
    metric = analysis.metric
    assert (metric(state.logits, state.rows) > 2).all()
    assert (metric(state.patch_logits, state.rows) < -2).all()


def test_attention_brings_the_class_to_the_question(state):
    here = dense(state, "attn_out.1").f[:, QUESTION_AT]
    word = state.clean.tokens[:, SUBJECT_AT]
    for c in SUBJECT:
        is_class = torch.tensor([TOKENS[int(w)][0].upper() == c for w in word])
        assert torch.equal(feature(here, f"moved {c}") > 1, is_class)


def test_the_mlp_answers_at_the_question_only(state):
    f = dense(state, "mlp_out.1").f
    answered = torch.stack([feature(f, f"answer {c}") for c in SUBJECT]).amax(0)
    assert (answered[:, QUESTION_AT] > 1).all()
    assert (answered[:, :QUESTION_AT] < 0.1).all()


def test_decoys_move_as_much_as_the_circuit(state):
    def moves(classes, word_at):
        for c in classes:
            for node in chain(c, word_at):
                change = dense(state, node.site).change
                yield float(change[:, node.position, node.feature].abs().mean())

    pairs = zip(moves(SUBJECT, SUBJECT_AT), moves(OBJECT, OBJECT_AT), strict=True)
    assert all(decoy > 0.8 * true for true, decoy in pairs)


@pytest.mark.parametrize("estimator", ["patching", "ig", "exact"])
def test_the_true_nodes_come_before_all_others(analysis, estimator):
    effects = effects_of(analysis, estimator)
    assert len(effects) > 10 * len(TRUE_NODES)
    assert auroc(effects, TRUE_NODES) == 1


@pytest.mark.parametrize("estimator", ["patching", "ig"])
def test_the_true_edges_come_before_all_others(analysis, state, estimator):
    """Edges between all nodes with some effect, by weight and by the oracle."""
    analysis = analysis.asked(DiscoverConfig(estimator=estimator))
    ranking, (gradients,) = rank_nodes(analysis)
    nodes = [node for node, effect in ranking if abs(effect) > 1e-9]
    weights = edge_weights(analysis, state, gradients, nodes)
    exact = exact_edges(analysis, state, gradients, list(weights)).sum(1)
    assert auroc(dict(zip(weights, exact.tolist(), strict=True)), TRUE_EDGES) == 1
    assert auroc(weights, TRUE_EDGES) == 1


def test_nodes_named_true_at_random_do_not_come_first(analysis):
    effects = effects_of(analysis, "patching")
    draw = random.Random(0)
    chance = [auroc(effects, set(draw.sample(list(effects), len(TRUE_NODES)))) for _ in range(20)]
    assert sum(chance) / len(chance) == pytest.approx(0.5, abs=0.1)
    assert max(chance) < 0.9


def test_neither_does_the_decoy_circuit(analysis):
    effects = effects_of(analysis, "patching")
    both = {node: e for node, e in effects.items() if node in TRUE_NODES | DECOY_NODES}
    assert auroc(both, DECOY_NODES) < 0.1
