"""Features described in words, and the descriptions held against what the features do.

`feature-descriptions/1`, strict JSON: for each feature its description, how well a judge who goes
by it tells where the feature is on (`circuits.features.asking`), and the same by descriptions that
say nothing of it:

    own              what the explainer says
    another feature  what it says of another feature of the list, each used once
    nothing          an empty description: what the judge's guesses are worth
    written rule     the automatic name, made from the same passages that the explainer saw

Passages that are judged were not shown (`saes.scope.held_out`). What all features have in common,
in `summary`, is a mean over features with its interval over them; `own - another feature` is the
mean of the differences, and the figure to look at. `firing_counts` are the tokens at which each
feature of a dictionary is on, described or not.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from random import Random
from typing import Any

from transformer_lens.model_bridge import TransformerBridge

from circuits.features.asking import KINDS, JudgeFunction, Question, QuestionKind, marked_text
from circuits.features.card import logit_tokens
from circuits.features.labels import Label
from circuits.features.named import key_of
from circuits.features.names import short_name
from circuits.graph import rounded
from hooked_qwen.nodes import Node
from hooked_qwen.progress import Report, silent
from hooked_qwen.tokens import token_strings
from saes.scope.contexts import Contexts
from saes.scope.held_out import Passage, PassageSplit, SplitConfig, split_contexts
from saes.scope.judgements import JudgementScore, Verdict, mean_interval, score
from saes.suite import Suite

SCHEMA = "feature-descriptions/1"
OWN, OTHER, NOTHING, RULE = "own", "another feature", "nothing", "written rule"
RULE_BY = "model of the written rule"
Explain = Callable[[Sequence[Passage]], str]
"A description of passages in which a feature is on."


@dataclass(frozen=True)
class JudgedPassage:
    """A passage to be judged, and what is true of it."""

    passage: Passage
    right: bool


def items_of(split: PassageSplit, node: Node, seed: int) -> dict[QuestionKind, list[JudgedPassage]]:
    """What is judged of a feature, in an order of its own.

    Who judges by the place in a list would else be right or wrong alike of all features.
    """
    found: dict[QuestionKind, list[JudgedPassage]] = {
        "detection": [
            *(JudgedPassage(p, True) for p in split.on),
            *(JudgedPassage(p, False) for p in split.off),
        ],
        "fuzzing": [
            *(JudgedPassage(p, True) for p in split.on),
            *(JudgedPassage(p, False) for p in split.wrong),
        ],
    }
    for kind, items in found.items():
        Random(f"{seed} {kind} {node}").shuffle(items)
    return found


def describe_features(
    model: TransformerBridge,
    suite: Suite,
    contexts: Mapping[str, Contexts],
    nodes: Sequence[Node],
    *,
    explain: Explain | None,
    judge: JudgeFunction,
    by: str,
    judged_by: str,
    beside: Sequence[Node] = (),
    config: SplitConfig,
    per_question: int = 5,
    report: Report = silent,
) -> dict[str, Any]:
    """Describe features and score the descriptions beside their controls.

    Without `explain` the description is the written rule. Where one feature alone can be described,
    one of `beside` is as well, for it to be held against.

    Raises `ValueError` where none of the features is on in enough contexts.
    """
    splits = {n: split_contexts(contexts[n.site], int(n.feature), config) for n in nodes}
    kept = {node: split for node, split in splits.items() if split is not None}
    if not kept:
        raise ValueError(
            f"none of {len(splits)} features is on in enough contexts of the text to be described: "
            "give more text"
        )
    also: dict[Node, PassageSplit] = {}
    if len(kept) == 1:
        for n in (n for n in beside if n not in kept and not also):
            if (found := split_contexts(contexts[n.site], int(n.feature), config)) is not None:
                also[n] = found
    rules = _rules(model, suite, kept | also)
    texts = dict(rules)
    if explain is not None:
        for i, (node, split) in enumerate((kept | also).items(), 1):
            texts[node] = explain(split.shown)
            report("describing", i, len(kept | also))
    others = _others(list(kept), list(also), config.seed)
    features = []
    for i, (node, split) in enumerate(kept.items(), 1):
        said = {OWN: texts[node], OTHER: texts[others[node]], NOTHING: "", RULE: rules[node]}
        if explain is None:
            del said[RULE]
        items = items_of(split, node, config.seed)
        answers: dict[QuestionKind, dict[str, list[Verdict]]] = {
            kind: _judged(items[kind], said, judge, kind, model.tokenizer, per_question)
            for kind in KINDS
        }
        features.append(_feature(node, split, said, items, answers, model.tokenizer))
        report("judging", i, len(kept))
    return {
        "schema": SCHEMA,
        "by": by,
        "judged_by": judged_by,
        "config": asdict(config) | {"per_question": per_question},
        "summary": {kind: _summary([f["scores"][kind] for f in features]) for kind in KINDS},
        "features": features,
        "left_out": [key_of(node) for node, split in splits.items() if split is None],
        "firing_counts": {
            name: contexts[name].firing_counts().tolist()
            for name in dict.fromkeys(node.site for node in kept)
        },
    }


def _rules(
    model: TransformerBridge, suite: Suite, splits: Mapping[Node, PassageSplit]
) -> dict[Node, str]:
    """The automatic name of each feature, of the passages shown and what it promotes."""
    fitted, found = suite.fitting(model), {}
    for node, split in splits.items():
        peaks = [p.tokens[int(p.values.argmax())] for p in split.shown]
        said = logit_tokens(model, fitted[node.site], [int(node.feature)])
        promoted = said.fields(0, model.tokenizer)["promoted"]
        strings = token_strings(model.tokenizer, peaks)
        found[node] = short_name(strings, [token for token, _ in promoted])
    return found


def _others(kept: Sequence[Node], also: Sequence[Node], seed: int) -> dict[Node, Node]:
    """For each feature another one: in a random order, the next.

    Raises `ValueError` where there is no other.
    """
    order = [*kept]
    Random(seed).shuffle(order)
    if len(order) == 1:
        if not also:
            raise ValueError(
                "one feature alone has no other whose description it could be held against: "
                "describe two or more"
            )
        return {order[0]: also[0]}
    return dict(zip(order, [*order[1:], order[0]], strict=True))


def _judged(
    items: Sequence[JudgedPassage],
    said: Mapping[str, str],
    judge: JudgeFunction,
    kind: QuestionKind,
    tokenizer: Any,
    per_question: int,
) -> dict[str, list[Verdict]]:
    """What the judge says of all items by each description."""
    texts = [marked_text(item.passage, tokenizer, marks=kind == "fuzzing") for item in items]
    found: dict[str, list[Verdict]] = {name: [] for name in said}
    for first in range(0, len(texts), per_question):
        some = tuple(texts[first : first + per_question])
        for name, description in said.items():
            verdicts = judge(Question(kind, some, description))
            if len(verdicts) != len(some):
                raise ValueError(
                    f"the judge gave {len(verdicts)} verdicts on {len(some)} passages: expected "
                    "one for each, True, False or None"
                )
            found[name] += verdicts
    return found


def _feature(
    node: Node,
    split: PassageSplit,
    said: Mapping[str, str],
    items: Mapping[QuestionKind, Sequence[JudgedPassage]],
    answers: Mapping[QuestionKind, Mapping[str, Sequence[Verdict]]],
    tokenizer: Any,
) -> dict[str, Any]:
    truth = {kind: [item.right for item in items[kind]] for kind in KINDS}
    return {
        "feature": key_of(node),
        "text": said[OWN],
        "shown": len(split.shown),
        "descriptions": dict(said),
        "scores": {
            kind: {
                name: _rounded(score(truth[kind], verdicts))
                for name, verdicts in answers[kind].items()
            }
            for kind in KINDS
        },
        "judged": {
            kind: [
                {
                    "tokens": token_strings(tokenizer, item.passage.tokens),
                    "activations": [rounded(v) for v in item.passage.values.tolist()],
                    "marked": item.passage.marked.nonzero().flatten().tolist(),
                    "quantile": item.passage.quantile,
                    "right": item.right,
                    "said": {name: verdicts[i] for name, verdicts in answers[kind].items()},
                }
                for i, item in enumerate(items[kind])
            ]
            for kind in KINDS
        },
    }


def _rounded(found: JudgementScore) -> dict[str, Any]:
    """A score as files hold it."""

    def plain(value: Any) -> Any:
        if isinstance(value, list):
            return [rounded(v) for v in value]
        return rounded(value) if isinstance(value, float) else value

    return {name: plain(value) for name, value in asdict(found).items()}


def _summary(scores: Sequence[Mapping[str, Mapping[str, Any]]]) -> dict[str, Any]:
    """Means over features; and of what the own description adds to each control."""

    def told(values: Sequence[float]) -> dict[str, Any]:
        mean, interval = mean_interval(values)
        ends = None if interval is None else [rounded(end) for end in interval]
        return {"mean": rounded(mean), "interval": ends, "features": len(values)}

    found = {}
    for name in scores[0]:
        known = [s[name] for s in scores if s[name]["balanced_accuracy"] is not None]
        found[name] = told([s["balanced_accuracy"] for s in known]) | {
            "f1": told([s["f1"] for s in known])["mean"],
            "answered": sum(s[name]["answered"] for s in scores),
            "asked": sum(s[name]["asked"] for s in scores),
        }
    for name in list(found)[1:]:
        pairs = [(s[OWN]["balanced_accuracy"], s[name]["balanced_accuracy"]) for s in scores]
        found[f"{OWN} - {name}"] = told([a - b for a, b in pairs if None not in (a, b)])
    return found


def labels_in(record: Mapping[str, Any]) -> dict[str, Label]:
    """The descriptions of a record as labels, with their scores; empty ones are left out."""
    found = {}
    for feature in record["features"]:
        if not feature["text"].strip():
            continue
        scores = {
            kind: {
                **{k: of[OWN][k] for k in ("balanced_accuracy", "interval", "f1", "asked")},
                "controls": {
                    name: score["balanced_accuracy"] for name, score in of.items() if name != OWN
                },
            }
            for kind, of in feature["scores"].items()
        }
        found[feature["feature"]] = Label(
            text=feature["text"],
            by=record["by"],
            scores={"judge": record["judged_by"], **scores},
        )
    return found
