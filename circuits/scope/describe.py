"""Features described in words by whoever is asked, and scored: opened, done, written."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, Literal

from transformer_lens.model_bridge import TransformerBridge

from circuits.features.answers import Answer, local
from circuits.features.asking import asked, by_words, explainer_prompt, phrase
from circuits.features.describe import RULE_BY, Explain, describe_features, labels_in
from circuits.features.neighbours import find_feature
from circuits.graph import write_json
from circuits.opening import load_model, open_model, sources
from circuits.runs.label_run import add_labels, check_keeps_labels
from circuits.runs.overwrite import MADE_FROM, check_record
from hooked_qwen.nodes import Node
from hooked_qwen.notices import notify
from hooked_qwen.placement import ANYWHERE, Placement
from hooked_qwen.progress import Report, silent
from hooked_qwen.texts import texts_of
from saes.on_demand import OnDemand
from saes.scope.contexts import ContextConfig, Contexts, read_contexts
from saes.scope.held_out import LEAST, SplitConfig, split_contexts
from saes.suite import MlpChoice, Suite, load_suite

ITSELF: Literal["model"] = "model"
"In the place of who answers: the model whose features they are."
EXPLAINED, JUDGED = 40, 30
"Tokens of a local model's answer at most."


@dataclass(frozen=True, kw_only=True)
class Answerer:
    """A language model that explains and judges."""

    name: str
    "as files call it"
    explain: Answer
    judge: Answer


def describe(
    dictionaries: str,
    model: str = "bundled",
    *,
    text: Sequence[str],
    features: Sequence[str] = (),
    site: str | None = None,
    count: int = 20,
    answers: Answerer | Answer | str | None = None,
    tokens: int = ContextConfig.tokens,
    split: SplitConfig | None = None,
    labels: Path | None = None,
    mlp: MlpChoice = "sae",
    seed: int = 0,
    out: Path | None = None,
    force: bool = False,
    placement: Placement = ANYWHERE,
    report: Report = silent,
) -> dict[str, Any]:
    """Descriptions of features with their scores, as `circuits.features.describe` has them.

        scope.describe("bundled", text=["bundled"], features=["resid_post.3/86"], answers=ask)

    The features are named, or `count` drawn from those of the dictionary `site` that are on in
    enough contexts. `answers` is any function from prompt to text, a model on this machine by its
    name or folder, or "model" for the model itself; None is the written rule, judged by words.
    Descriptions go to `labels.json` of the folder `labels` (a run, or dictionaries), where a
    person's word stays, and the record to the file `out`.

    Raises `ValueError` where `out` holds something else, where `labels` cannot keep them, and for
    what there is not to describe: all of it before anybody is asked.
    """
    split = split or SplitConfig(seed=seed)
    if bool(features) == bool(site):
        raise ValueError(
            "name features (--features), or draw some of one dictionary (--site): one of both"
        )
    named = None if answers is None else _name(answers, model)
    source = sources(
        dictionaries,
        model,
        text,
        placement,
        features=list(features),
        site=site,
        count=None if features else count,
        by=named,
        tokens=tokens,
        split=vars(split),
        mlp=mlp,
    )
    if out is not None:
        check_record(out, source, force=force)
    suite = load_suite(dictionaries, mlp=mlp, memory=placement.memory)
    nodes = _named(features, suite) if features else []
    if site is not None and site not in suite:
        raise ValueError(f"there is no dictionary {site}: expected one of {', '.join(suite)}")
    names = list(dict.fromkeys([node.site for node in nodes] or [str(site)]))
    if labels is not None:
        check_keeps_labels(labels, names)
    loaded = open_model(suite, model, placement, report)
    contexts = read_contexts(
        loaded,
        suite,
        names,
        texts_of(text, seed=seed)(),
        config=ContextConfig(tokens=tokens),
        source=", ".join(map(str, text)),
        report=lambda done, total: report("contexts", done, total),
    )
    first = contexts[names[0]]
    drawn = nodes or drawn_features(first, names[0], count, split, seed=seed)
    beside = drawn_features(first, names[0], 2, split, seed=seed) if nodes or count == 1 else []
    answerer = None if answers is None else _answerer(answers, loaded, named or "", placement)
    record = describe_features(
        loaded,
        suite,
        contexts,
        drawn,
        explain=None if answerer is None else _explainer(answerer, loaded),
        judge=by_words if answerer is None else asked(answerer.judge),
        by=RULE_BY if answerer is None else f"model {answerer.name}",
        judged_by="words of the description" if answerer is None else f"model {answerer.name}",
        beside=[node for node in beside if node not in drawn],
        config=split,
        report=report,
    )
    _notify_of_unread(record)
    record = {**record, "tokens": tokens, "contexts": len(contexts[names[0]]), MADE_FROM: source}
    if out is not None:
        write_json(record, out)
    if labels is not None:
        add_labels(labels, given=labels_in(record))
    return record


def _notify_of_unread(record: Mapping[str, Any]) -> None:
    """Say so where answers do not read as verdicts: what they judge has no score then."""
    own = [record["summary"][kind]["own"] for kind in ("detection", "fuzzing")]
    total, read = (sum(one[n] for one in own) for n in ("asked", "answered"))
    if read < total:
        notify(f"of {total:,} verdicts {total - read:,} could not be read and do not count")


def _named(features: Sequence[str], suite: Suite) -> list[Node]:
    """The features that are named, each once."""
    opened, names = OnDemand(suite), list(suite)
    found = [find_feature(text, opened) for text in features]
    return list(dict.fromkeys(Node(names[i], index) for i, index in found))


def drawn_features(
    contexts: Contexts, name: str, count: int, split: SplitConfig, *, seed: int
) -> list[Node]:
    """Features of one dictionary at random, of those that are on in enough contexts for all parts.

    Where fewer than two are, of those that are on in enough to be described at all.

    Raises `ValueError` where fewer than two are on in so many.
    """
    counts = contexts.counts()
    for least in (split.shown + 2 * split.judged, LEAST):
        enough = (counts >= least).nonzero().flatten().tolist()
        Random(seed).shuffle(enough)
        chosen: list[int] = []
        for feature in enough:
            # Contexts may read the same: then there are fewer than were counted.
            if len(chosen) < count and split_contexts(contexts, feature, split) is not None:
                chosen.append(feature)
        if len(chosen) >= min(count, 2):
            return [Node(name, index) for index in sorted(chosen)]
    raise ValueError(
        f"no two features of {name} are on in {LEAST} of {len(contexts)} contexts: give more text"
    )


def _name(answers: Answerer | Answer | str, model: str) -> str:
    if isinstance(answers, Answerer):
        return answers.name
    if isinstance(answers, str):
        return Path(model if answers == ITSELF else answers).name
    return getattr(answers, "__name__", type(answers).__name__)


def _answerer(
    answers: Answerer | Answer | str, loaded: TransformerBridge, name: str, placement: Placement
) -> Answerer:
    if isinstance(answers, Answerer):
        return answers
    if isinstance(answers, str):
        asks = loaded
        if answers != ITSELF:
            asks = load_model(answers, placement=placement)
        return Answerer(
            name=name,
            explain=local(asks, tokens=EXPLAINED, stop=("\n",)),
            judge=local(asks, tokens=JUDGED, stop=("]",)),
        )
    return Answerer(name=name, explain=answers, judge=answers)


def _explainer(answerer: Answerer, loaded: TransformerBridge) -> Explain:
    return lambda shown: phrase(answerer.explain(explainer_prompt(shown, loaded.tokenizer)))
