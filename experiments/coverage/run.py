"""What do the shipped tasks cover, what do they share, and does it say how redundant they are?

    python -m experiments.coverage.run --model MODEL --dictionaries DICTS --name NAME --work DIR

Forty prompts of each task. Models whose results are compared are the model as it is and without
one of some blocks each, or with `--models noisy` with noise on its blocks' weights: the more of
them a task's random items rank as all items do, the more redundant it is. With `--common TEXT`
nothing is asked of models, and what the text's first 200 lines turn on is left out of everything;
with `--common-share .5` what more than half of them do. Prompts and results go to DIR, the record
and its figures to `results/NAME.json` and `NAME-*.svg` beside this file; that of `--name bundled`
needs no model.
"""

import argparse
import json
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from transformer_lens.model_bridge import TransformerBridge

from circuits import scope
from circuits.cli.progress_bars import bars
from circuits.features.coverage import UNITS, CoverConfig
from circuits.graph import write_json
from circuits.opening import load_model
from circuits.prompt_files import Prompt, write_prompts
from circuits.prompts import EncodedPrompts, encode_prompts
from circuits.render.charts.coverage import growth_figure, overlap_figure
from circuits.runs.overwrite import MADE_FROM
from circuits.scope.cover import RECORD
from circuits.tasks import as_many_as_exist, names_for
from hooked_qwen.forward import last_logits

RESULTS = Path(__file__).parent / "results"
PROMPTS, WITHOUT = 40, 8
"Prompts of each task, and how many models are compared."
NOISE, DRAWS = (0.3, 0.4, 0.5, 0.6, 0.7), 2
"In standard deviations of a weight's row, and how often each is drawn."
GROUPS = (
    {"agreement_simple", "agreement_nounpp", "agreement_rc", "agreement_within_rc"},
    {"ioi", "pronoun", "profession"},
    {"capital_of", "two_step"},
    {"docstring", "variable", "brackets"},
)
"Tasks of one kind: agreement, people, towns, code."


def main() -> None:
    """Make prompts, let the models answer, cover, and keep what the README tells."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="bundled")
    parser.add_argument("--dictionaries", default="bundled")
    parser.add_argument("--name", default="bundled")
    parser.add_argument("--models", choices=MODELS, default="without a block")
    parser.add_argument("--common", help="a text")
    parser.add_argument("--common-share", type=float, default=0.0)
    parser.add_argument("--work", type=Path, required=True)
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    prompts = {name: made(given.model, name) for name in names_for(given.model)}
    for name, some in prompts.items():
        write_prompts(some, given.work / f"{name}.jsonl")
    with bars() as report:
        scope.cover(
            given.dictionaries,
            [str(given.work / f"{name}.jsonl") for name in prompts],
            given.model,
            common=[given.common] if given.common else [],
            results=None if given.common else results_of(given, prompts),
            config=CoverConfig(common_share=given.common_share),
            out=given.work / "cover",
            force=True,
            report=report,
        )
    if given.models == "noisy":
        keep_results(given.work / "cover", given.name)
    else:
        keep(given.work / "cover", given.name)


def results_of(given: argparse.Namespace, prompts: Mapping[str, Sequence[Prompt]]) -> Path:
    """A file of what each model answers right."""
    results: Path = given.work / "results.jsonl"
    if not results.exists():
        loaded = load_model(given.model)
        models = MODELS[given.models](loaded)
        rows = [
            row for name, some in prompts.items() for row in answered(loaded, models, name, some)
        ]
        results.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return results


def made(model: str, task: str) -> list[Prompt]:
    """Half of the prompts from each split of the words."""
    return [
        prompt
        for split in ("train", "test")
        for prompt in as_many_as_exist(model, task, PROMPTS // 2, split=split)
    ]


Models = Mapping[str, Callable[[], AbstractContextManager[None]]]
"What makes one model another, by what that is called."


@torch.no_grad()
def answered(
    model: TransformerBridge, models: Models, name: str, prompts: Sequence[Prompt]
) -> list[dict[str, Any]]:
    """Which prompts each model answers right: an answer's logit above those of all wrong ones."""
    encoded = encode_prompts(prompts, model.tokenizer, positions="sum")
    rows = []
    for called, changed in models.items():
        with changed():
            right = is_right(model, encoded)
        rows += [
            {"set": name, "item": item, "model": called, "correct": correct}
            for item, correct in enumerate(right)
        ]
        print(name, called, f"{sum(right) / len(right):.2f}", flush=True)
    return rows


def is_right(model: TransformerBridge, encoded: EncodedPrompts) -> list[bool]:
    logits = last_logits(model, encoded.clean)
    return [
        bool(row[list(answers)].max() > row[list(wrong)].max())
        for row, answers, wrong in zip(logits, encoded.answer_ids, encoded.wrong_ids, strict=True)
    ]


def without_blocks(model: TransformerBridge) -> Models:
    """The model as it is, and without one of some blocks each."""
    some = torch.linspace(0, len(model.blocks) - 1, WITHOUT - 1)
    left_out = sorted({round(x) for x in some.tolist()})
    return {"whole": nullcontext} | {
        f"without block {block}": partial(without, model, block) for block in left_out
    }


def noisy(model: TransformerBridge) -> Models:
    """The model as it is, and with more and more noise."""
    return {"whole": nullcontext} | {
        f"noise {level} ({seed})": partial(with_noise, model, level, seed)
        for level in NOISE
        for seed in range(DRAWS)
    }


MODELS = {"without a block": without_blocks, "noisy": noisy}


@contextmanager
def with_noise(model: TransformerBridge, level: float, seed: int) -> Generator[None]:
    """The model with normal noise on all matrices between its blocks' inputs and outputs."""
    layers = cast(Any, model.original_model).model.layers
    weights = [weight.data for weight in layers.parameters() if weight.ndim == 2]
    before = [weight.clone() for weight in weights]
    generator = torch.Generator().manual_seed(seed)
    for weight in weights:
        noise = torch.randn(weight.shape, generator=generator).to(weight)
        weight += level * weight.std(1, keepdim=True) * noise
    try:
        yield
    finally:
        for weight, whole in zip(weights, before, strict=True):
            weight.copy_(whole)


@contextmanager
def without(model: TransformerBridge, block: int) -> Generator[None]:
    """The model with one of its blocks passed by."""

    def passed_by(module: Any, args: Any, kwargs: Any, output: Any) -> Any:
        x = args[0] if args else kwargs["hidden_states"]
        return (x, *output[1:]) if isinstance(output, tuple) else x

    layers = cast(Any, model.original_model).model.layers
    handle = layers[block].register_forward_hook(passed_by, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def keep(folder: Path, name: str) -> None:
    """Write to `results/` what the README tells, with some sizes of the growth if it is drawn."""
    record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    for unit in UNITS:
        for one in record["units"][unit]["sets"].values():
            if not record["common"]:
                growth = one["growth"].items()
                one["growth"] = {key: values[:3] + values[3::3] for key, values in growth}
                continue
            if one["subset"]:
                one["subset"]["samples"] = len(one["subset"]["samples"])
            del one["growth"]
    record["groups"] = {unit: told_apart(record, unit) for unit in UNITS}
    RESULTS.mkdir(exist_ok=True)
    write_json(record, RESULTS / f"{name}.json")
    overlap_figure(record, RESULTS / f"{name}-overlap.svg")
    if not record["common"]:
        growth_figure(record, RESULTS / f"{name}-growth.svg")


def keep_results(folder: Path, name: str) -> None:
    """Copy what models got right, and how it goes with what the sets cover."""
    record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    write_json(
        {key: record[key] for key in ("schema", "sets", "results", MADE_FROM)},
        RESULTS / f"{name}.json",
    )


def told_apart(record: Mapping[str, Any], unit: str) -> dict[str, float] | None:
    """Mean overlap of tasks of one kind and of others, and how often the first is the larger.

    None where too few units are left for an overlap of either.
    """
    sides: dict[bool, list[float]] = {True: [], False: []}
    for i, row in enumerate(record["units"][unit]["overlap"]):
        for j, value in enumerate(row):
            if i != j and value is not None:
                pair = {record["sets"][i], record["sets"][j]}
                sides[any(pair <= group for group in GROUPS)].append(value)
    alike, others = sides[True], sides[False]
    if not alike or not others:
        return None
    larger = [(a > b) + (a == b) / 2 for a in alike for b in others]
    return {
        "alike": sum(alike) / len(alike),
        "others": sum(others) / len(others),
        "larger": sum(larger) / len(larger),
    }


if __name__ == "__main__":
    main()
