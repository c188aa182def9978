"""A model steered along features, beside every control: opened, done, written."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from circuits.features.named import Named
from circuits.features.steering import SteerConfig, rows_of_prompts, steered
from circuits.features.steering_choice import ConceptTexts, Select, choose
from circuits.graph import write_json
from circuits.opening import open_model, sources
from circuits.render.charts.steering_map import steering_map
from circuits.render.pages.steer.steer_page import steer_page
from circuits.runs.overwrite import MADE_FROM, check_record, digest
from circuits.runs.pages import feature_names
from circuits.shift.probe import losses
from hooked_qwen.files import write_text_atomically
from hooked_qwen.load import load_tokenizer
from hooked_qwen.nodes import Node
from hooked_qwen.placement import ANYWHERE, Placement
from hooked_qwen.progress import Report, silent
from hooked_qwen.sites import Site
from hooked_qwen.texts import first_texts
from saes.examples.store import open_store
from saes.scope.output_score import NEUTRAL
from saes.scope.scorers import FITTED, unfitted
from saes.scope.text_scores import LabelledTextMeans, Scorer, mean_of_texts
from saes.suite import MlpChoice, Suite, load_suite

BESIDE = (".html", ".svg")
"What is written beside the record: a page, and the heat map as a figure."


def steer(
    dictionaries: str,
    model: str = "bundled",
    *,
    score: str,
    prompt: Sequence[str] = (),
    prompts: Sequence[str] = (),
    feature: Sequence[str] = (),
    positive: Sequence[str] = (),
    negative: Sequence[str] = (),
    text: Sequence[str] = (),
    examples: Path | None = None,
    select: Select = "both",
    top: int = 3,
    candidates: int = 30,
    at: Sequence[str] = (),
    texts: int = 100,
    neutral: str = NEUTRAL,
    config: SteerConfig | None = None,
    mlp: MlpChoice = "sae",
    out: Path | None = None,
    force: bool = False,
    placement: Placement = ANYWHERE,
    report: Report = silent,
) -> dict[str, Any]:
    """A sweep of strengths over features that are named, or chosen between two sets of texts.

    `prompt` are texts to go on from, `prompts` sources of such, as `--text` takes them. A concept's
    `score` is one of `saes.scope.scorers`, of which probe and means are fitted on `positive` and
    `negative` texts, which are sources too. Activations are measured on `text`, else on these, or
    taken from the store of `examples`. Of every source the first `texts` are read. `at` names the
    dictionaries that features are chosen from. The record goes to the file `out`, a page and a
    figure beside it.

    Raises `ValueError` for half a set of examples, for a score that there is none of or that needs
    examples, and where `out` holds something else, unless by `force`.
    """
    config = config or SteerConfig()
    tokenizer = load_tokenizer(model)
    unfitted(score, tokenizer)  # what is none is told before any text is read
    nodes = [Node.parse(one) for one in feature]
    wrong = [str(n) for n in nodes if n.kind != "feature" or n.position is not None]
    if wrong:
        raise ValueError(f"cannot steer along {wrong[0]}: name features, such as resid_post.3/86")
    labelled = _examples(positive, negative, texts)
    if labelled is None and score in FITTED:
        raise ValueError(f"--score {score} is fitted on --positive and --negative texts: give both")
    own = [*prompt, *(first_texts(prompts, texts) if prompts else [])]
    rows_of_prompts(tokenizer, own, config.form)
    if labelled is None and not text and examples is None:
        raise ValueError(
            "features' activations are measured on text: give --text, --examples, or --positive "
            "and --negative"
        )
    read = first_texts(text, texts) if text else list(labelled.texts if labelled else ())
    source = sources(
        dictionaries,
        model,
        text,
        placement,
        mlp=mlp,
        texts=digest(own, read, labelled and [labelled.texts, labelled.positive.tolist()]),
        examples=examples and open_store(examples).manifest,
        chosen=[list(map(str, nodes)), select, top, candidates, list(at), neutral],
        score=score,
        config=asdict(config),
    )
    if out is not None:
        check_record(out, source, beside=BESIDE, force=force)
    suite = _at(load_suite(dictionaries, mlp=mlp, memory=placement.memory), at)
    loaded = open_model(suite, model, placement, report)
    choice = choose(
        loaded,
        suite,
        named=nodes,
        examples=labelled,
        usage_from=read if examples is None else open_store(examples),
        select=select,
        top=top,
        candidates=candidates,
        neutral=neutral,
        seed=config.seed,
        report=report,
    )
    record = steered(
        loaded,
        suite,
        choice,
        own,
        scorer_of(loaded, score, labelled, choice.means, seed=config.seed),
        Named(loaded, suite, feature_names(dictionaries)),
        examples=labelled,
        config=config,
        report=report,
    )
    record = {**record, "model": loaded.cfg.model_name, MADE_FROM: source}
    if out is not None:
        _write(record, out)
    return record


def _examples(positive: Sequence[str], negative: Sequence[str], count: int) -> ConceptTexts | None:
    if bool(positive) != bool(negative):
        raise ValueError("examples are two sets: give --positive and --negative")
    if not positive:
        return None
    sets = [first_texts(sources, count) for sources in (positive, negative)]
    kinds = torch.tensor([True] * len(sets[0]) + [False] * len(sets[1]))
    return ConceptTexts(texts=(*sets[0], *sets[1]), positive=kinds)


def _at(suite: Suite, names: Sequence[str]) -> Suite:
    for name in names:
        if name not in suite:
            raise ValueError(f"there is no dictionary {name}: those there are {', '.join(suite)}")
    return suite.exchanging([n for n in suite if n not in names], {}) if names else suite


def scorer_of(
    model: TransformerBridge,
    name: str,
    examples: ConceptTexts | None,
    means: Mapping[Site, Float[Tensor, "texts d"]],
    *,
    seed: int = 0,
) -> Scorer:
    """The scorer called so; one that is fitted reads the site, of those that the `means` of the
    examples are of, whose probe errs least on a third of them.

    Raises `ValueError` for one that there is not.
    """
    scorer = unfitted(name, model.tokenizer)
    if scorer is not None:
        return scorer
    assert examples is not None, "asked for before"
    errs = losses({s: x.double() for s, x in means.items()}, examples.positive, seed=seed)
    site = min(errs, key=lambda s: errs[s])
    return FITTED[name](
        LabelledTextMeans(
            means=means[site],
            positive=examples.positive,
            site=site,
            reader=lambda texts: mean_of_texts(model, site, texts),
        )
    )


def _write(record: dict[str, Any], out: Path) -> None:
    """The page and the figure first: with a record all is there."""
    page = steer_page(record)
    write_text_atomically(out.with_suffix(".html"), page)
    steering_map(record, out.with_suffix(".svg"))
    write_json(record, out)
