"""SHIFT and what it must beat: classifiers that were trained where both signals agree.

Every method gives what it says of the test texts. Those that change the model, or what is read of
it, come twice: with the head as it was trained, and with one trained again, on the same ambiguous
texts, under the change. Where chance has a part there is a list of several draws.

Sources: SHIFT and its neurons, Marks et al. 2024, arXiv:2403.19647; concept bottleneck, Koh et al.
2020, arXiv:2007.04612; linear erasure, Belrose et al. 2023, arXiv:2306.03819.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from concept_erasure import LeaceFitter
from torch import Tensor

from circuits.attribution.node_effects import NodeEffects
from circuits.edits.ablation import Ablation
from circuits.edits.control_nodes import control_nodes
from circuits.shift.case import AGAIN, HEAD, ShiftCase, TextMeans
from circuits.shift.judging import Judged, by_rule, circuit_features, cut_nodes
from circuits.shift.labelled import LabelledText, without_words
from circuits.shift.pooled import encoded, pooled, pooled_features
from circuits.shift.probe import Probe, fitted_probe
from circuits.shift.scores import ProbePredictions
from hooked_qwen.nodes import Node
from saes.evaluation.baselines import neurons, neurons_inside_mlps
from saes.suite import Suite

CUE_WORDS = 30
Runs = Mapping[str, Sequence[ProbePredictions]]
"By the name of what is done, what it says in each of its draws."


@dataclass(frozen=True, eq=False)
class Judgement:
    """A case whose features are judged."""

    case: ShiftCase
    features: Sequence[Judged]
    ranking: NodeEffects
    "effects of all nodes on the label's probe"


ShiftMethod = Callable[[Judgement], Runs]


def unedited(judged: Judgement) -> Runs:
    """The classifier as it is."""
    return {"nothing changed": [judged.case.says(judged.case.means["balanced"])]}


def shift(judged: Judgement) -> Runs:
    """The features that are cut set to zero at every token; errors stay."""
    return _ablating(judged, "SHIFT", [cut_nodes(judged.features)])


def random_features(judged: Judgement) -> Runs:
    """As many other features at the same sites: any changed ones, and ones as active."""
    case = judged.case
    cut = Ablation(ablated=cut_nodes(judged.features), to="zero")
    draws = control_nodes(cut, judged.ranking, case.analysis.states, seed=case.seed)
    found: dict[str, Sequence[ProbePredictions]] = {}
    for name, chosen in draws.items():
        found |= _ablating(judged, name.partition(" ")[2].partition(" at ")[0], chosen)
    return found


def neurons_of_the_sites(judged: Judgement) -> Runs:
    """The same rule for coordinates of the tensors that dictionaries write."""
    return _neurons(judged, "neurons", neurons(judged.case.suite))


def neurons_in_mlps(judged: Judgement) -> Runs:
    """The same rule for neurons inside the MLPs, and coordinates of what else is written."""
    case = judged.case
    suite = neurons_inside_mlps(case.model, case.suite)
    return _neurons(judged, "neurons inside the MLPs", suite)


def first_layer(judged: Judgement) -> Runs:
    """Of the features that are cut, those next to the embedding: of the first layer's sites."""
    first = min(site.layer for site in judged.case.suite.writes)
    suite = judged.case.suite
    near = [
        n
        for n in cut_nodes(judged.features)
        if all(site.layer == first for site in suite.writes_of(n.site))
    ]
    return _ablating(judged, "features of the first layer", [tuple(near)]) if near else {}


def words_deleted(judged: Judgement) -> Runs:
    """The words that tell the spurious class deleted from every text."""
    case = judged.case
    words = [w for kind in case.data.words for w in kind] or cue_words(case.data.spurious_only)
    if not words:
        return {}

    def read(texts: Sequence[LabelledText]) -> TextMeans:
        left = [replace(t, text=without_words(t.text, words) or t.text) for t in texts]
        return pooled(case.model, encoded(case.model, left), [case.site]).means[case.site]

    said = case.with_both_heads(read(case.data.balanced), lambda: read(case.data.ambiguous))
    return _twice("words deleted", said)


def recalibrated(judged: Judgement) -> Runs:
    """The threshold moved until half of the test texts, labels unseen, are of each class."""
    case = judged.case
    logits = case.probe.logits(case.means["balanced"])
    probe = Probe(case.probe.direction, case.probe.bias - float(logits.median()))
    return {"threshold recalibrated": [case.says(case.means["balanced"], probe)]}


def mean_difference(judged: Judgement) -> Runs:
    """The direction between the means of the spurious classes taken out of what is read."""
    case = judged.case
    if "spurious_only" not in case.texts:
        return {}
    x, spurious = case.means["spurious_only"], case.texts["spurious_only"].spurious
    direction = x[spurious].mean(0) - x[~spurious].mean(0)
    direction, centre = direction / direction.norm(), x.mean(0)

    def without(x: TextMeans) -> TextMeans:
        return x - ((x - centre) @ direction).outer(direction)

    return _reading(judged, "mean difference removed", without)


def erased(judged: Judgement) -> Runs:
    """What is read after LEACE, fitted on texts of other classes, erased the spurious class."""
    case = judged.case
    if "spurious_only" not in case.texts:
        return {}
    x, spurious = case.means["spurious_only"], case.texts["spurious_only"].spurious
    fitter = LeaceFitter(x.shape[1], 1, dtype=x.dtype)
    fitter.update(x, spurious.double()[:, None])
    return _reading(judged, "linear erasure (LEACE)", fitter.eraser)


def bottleneck(judged: Judgement) -> Runs:
    """A probe on the activations of the circuit's features that are kept, and nothing else."""
    case = judged.case
    kept = [f.node for f in judged.features if not f.cut]
    if not kept:
        return {}
    train, test = (
        pooled_features(case.model, case.suite, case.texts[name], kept)
        for name in ("ambiguous", "balanced")
    )
    probe = fitted_probe(train, case.texts["ambiguous"].label)
    return {"concept bottleneck: kept features alone": [case.says(test, probe)]}


def ceiling(judged: Judgement) -> Runs:
    """A probe trained where the signals are independent."""
    case = judged.case
    probe = fitted_probe(case.means["balanced_train"], case.texts["balanced_train"].label)
    return {"trained on balanced texts (ceiling)": [case.says(case.means["balanced"], probe)]}


METHODS: tuple[ShiftMethod, ...] = (
    unedited,
    shift,
    random_features,
    neurons_of_the_sites,
    neurons_in_mlps,
    first_layer,
    words_deleted,
    recalibrated,
    mean_difference,
    erased,
    bottleneck,
    ceiling,
)


def cue_words(texts: Sequence[LabelledText], n: int = CUE_WORDS) -> list[str]:
    """The words that tell the spurious class best, by the shares of texts that have them."""
    of_class = [[set(_words(t.text)) for t in texts if t.spurious == c] for c in (0, 1)]
    if not all(of_class):
        return []
    shares = [
        {word: count / len(some) for word, count in Counter(w for t in some for w in t).items()}
        for some in of_class
    ]
    words = sorted({*shares[0], *shares[1]})
    return sorted(words, key=lambda w: -abs(shares[0].get(w, 0) - shares[1].get(w, 0)))[:n]


def _words(text: str) -> list[str]:
    return "".join(c.lower() if c.isalnum() or c == "'" else " " for c in text).split()


def _ablating(judged: Judgement, name: str, draws: Sequence[Sequence[Node]]) -> Runs:
    """Nodes set to zero, by both heads; nothing where there are none to set."""
    case = judged.case
    runs = [list(case.under(lambda n=nodes: case.ablated(n))) for nodes in draws if nodes]
    if not runs:
        return {}
    return {
        name + head: list(said)
        for head, said in zip((HEAD, AGAIN), zip(*runs, strict=True), strict=True)
    }


def _neurons(judged: Judgement, name: str, suite: Suite) -> Runs:
    """As many neurons as features are cut, chosen by the same rule among as many."""
    case = judged.case
    analysis = case.analysis.by(suite)
    spurious = case.spurious_effects(analysis)
    if spurious is None:
        return {}
    label = case.label_effects(analysis)
    n = len(cut_nodes(judged.features))
    judged_neurons = by_rule(
        circuit_features(label, spurious, len(judged.features)), label, spurious
    )
    by_share = sorted((f for f in judged_neurons if f.cut), key=lambda f: -abs(f.spurious or 0.0))
    chosen = tuple(f.node for f in by_share[:n])
    if not chosen:
        return {}
    said = case.under(lambda: case.ablated(chosen, analysis))
    return _twice(name, said)


def _reading(judged: Judgement, name: str, change: Callable[[Tensor], Tensor]) -> Runs:
    """What is read changed, by both heads."""
    means = judged.case.means
    said = judged.case.with_both_heads(
        change(means["balanced"]), lambda: change(means["ambiguous"])
    )
    return _twice(name, said)


def _twice(name: str, said: Iterator[ProbePredictions]) -> Runs:
    return {name + head: [one] for head, one in zip((HEAD, AGAIN), said, strict=True)}
