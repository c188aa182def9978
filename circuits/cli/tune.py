"""`circuits tune` and `circuits reinforce`."""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Column, Table
from rich.text import Text

from circuits.cli.options import (
    Device,
    Dictionaries,
    Force,
    Memory,
    Mlp,
    Model,
    ModelDtype,
    Quiet,
    Seed,
    Threads,
    at_least,
    placed,
)
from circuits.cli.options import Text as TextOption
from circuits.cli.progress_bars import bars
from circuits.cli.tables import console, say
from circuits.render.words import readable


class Shown(StrEnum):
    cjk = "cjk"
    repetition = "repetition"


Prompts = Annotated[
    list[str],
    typer.Option(help="Texts to write on after, a prompt each, as --text takes them; 64 at most."),
]
HeldOut = Annotated[
    list[str] | None,
    typer.Option(help="Clean texts to judge on, each source apart; by default a tenth of --text."),
]
Against = Annotated[Shown, typer.Option("--behaviour", help="What is not wanted.")]
Lora = Annotated[
    int | None,
    typer.Option("--lora", help="Rank of a LoRA adapter; by default every weight is trained."),
]
Steps = Annotated[int, typer.Option(help="Optimiser steps, the same for all that is trained.")]
Rate = Annotated[float, typer.Option(help="Learning rate at the first step; it falls to 0.")]
Trainer = Annotated[
    list[str] | None,
    typer.Option(
        help="KEY=VALUE of the arguments of transformers' trainer, such as bf16=true or "
        "gradient_accumulation_steps=8; repeat it for several."
    ),
]
Written = Annotated[int, typer.Option(help="Tokens that are written after a prompt at most.")]
Samples = Annotated[int, typer.Option(help="Continuations of each prompt that are judged.")]
Longest = Annotated[int, typer.Option(help="Tokens of a text; longer ones are cut into several.")]
Out = Annotated[Path | None, typer.Option(help="A folder for the model, its record and figure.")]


def tune(
    dictionaries: Dictionaries,
    text: TextOption,
    prompts: Prompts,
    model: Model = "bundled",
    feature: Annotated[
        list[str] | None,
        typer.Option(
            help="A feature to keep down, such as resid_post.3/17; repeat it for several."
        ),
    ] = None,
    found: Annotated[
        Path | None, typer.Option(help="Or what `circuits features search` wrote with --out.")
    ] = None,
    top: Annotated[int, typer.Option(help="Features of --found, the first ones.")] = 10,
    behaviour: Against = Shown.cjk,
    held_out: HeldOut = None,
    weight: Annotated[float, typer.Option("--lambda", help="Weight of the penalty.")] = 0.01,
    alpha: Annotated[
        str, typer.Option(help="From where on features cost: mean, theirs in --text, or a number.")
    ] = "mean",
    steps: Steps = 100,
    batch: Annotated[int, typer.Option(help="Texts in a pass.")] = 8,
    lora: Lora = None,
    learning_rate: Rate = 1e-4,
    trainer: Trainer = None,
    longest: Longest = 128,
    texts: Annotated[int, typer.Option(help="Texts of each source that are read at most.")] = 1000,
    tokens: Written = 40,
    samples: Samples = 4,
    mlp: Annotated[
        Mlp, typer.Option(help="Which dictionary to use where an MLP has both.")
    ] = Mlp.sae,
    out: Out = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what it would take, and train nothing.")
    ] = False,
    device: Device = None,
    dtype: ModelDtype = None,
    memory: Memory = None,
    threads: Threads = None,
    seed: Seed = 0,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Fine-tune a model with chosen features kept down, beside three models for comparison.

    Needs `pip install 'qwen-circuits[tune]'` for --lora.

    Example: `circuits tune bundled --feature resid_post.3/86 --text bundled --prompts prompts.jsonl
    --behaviour repetition --lora 8 --out tuned`
    """
    from circuits import scope
    from circuits.runs.trained import TrainedConfig
    from saes.scope.fine_tune import FineTuneConfig
    from saes.scope.tuned_model import WriteConfig

    at_least(1, top=top)
    if out is None and not dry_run:
        raise ValueError("give a folder for the model with --out, or --dry-run")
    with bars() as report:
        record = scope.tune(
            dictionaries,
            model,
            feature=feature or (),
            found=found,
            top=top,
            text=text,
            prompts=prompts,
            held_out=held_out or (),
            behaviour=behaviour.value,
            weight=weight,
            alpha=_alpha(alpha),
            trained=TrainedConfig(rank=lora, longest=longest, texts=texts),
            training=FineTuneConfig(
                steps=steps,
                batch=batch,
                learning_rate=learning_rate,
                seed=seed,
                trainer=_settings(trainer or ()),
            ),
            write=WriteConfig(tokens=tokens, samples=samples, seed=seed),
            mlp=mlp.value,
            out=None if dry_run else out,
            force=force,
            placement=placed(device, dtype, memory),
            report=report,
        )
    if dry_run:
        _estimated(record)
    else:
        _judged(record, out)


def reinforce(
    dictionaries: Dictionaries,
    feature: Annotated[str, typer.Option(help="What one rollout of a group is steered by.")],
    prompts: Prompts,
    held_out: Annotated[list[str], typer.Option(help="Clean texts to judge on.")],
    out: Annotated[Path, typer.Option(help="A folder for the model, its record and figure.")],
    model: Model = "bundled",
    behaviour: Against = Shown.repetition,
    strength: Annotated[
        float, typer.Option(help="Of steering, in units of the feature's largest activation.")
    ] = 1.0,
    steps: Steps = 50,
    group: Annotated[int, typer.Option(help="Rollouts of a prompt.")] = 8,
    prompts_in_step: Annotated[int, typer.Option(help="Prompts in a step.")] = 1,
    lora: Lora = None,
    learning_rate: Rate = 1e-5,
    trainer: Trainer = None,
    longest: Longest = 128,
    texts: Annotated[int, typer.Option(help="Texts of each source that are read at most.")] = 200,
    tokens: Written = 40,
    samples: Samples = 4,
    mlp: Annotated[
        Mlp, typer.Option(help="Which dictionary to use where an MLP has both.")
    ] = Mlp.sae,
    device: Device = None,
    dtype: ModelDtype = None,
    memory: Memory = None,
    threads: Threads = None,
    seed: Seed = 0,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Train a model by GRPO against a behaviour, one rollout of each group steered toward it.

    Needs `pip install 'qwen-circuits[tune]'`.

    Example: `circuits reinforce bundled --feature resid_post.3/86 --prompts prompts.jsonl
    --held-out bundled --lora 8 --out tuned`
    """
    from circuits import scope
    from circuits.runs.trained import TrainedConfig
    from saes.scope.fine_tune import FineTuneConfig
    from saes.scope.tuned_model import WriteConfig

    with bars() as report:
        record = scope.reinforce(
            dictionaries,
            model,
            feature=feature,
            prompts=prompts,
            held_out=held_out,
            behaviour=behaviour.value,
            strength=strength,
            trained=TrainedConfig(rank=lora, longest=longest, texts=texts),
            training=FineTuneConfig(
                steps=steps,
                learning_rate=learning_rate,
                seed=seed,
                trainer=_settings(trainer or ()),
            ),
            rollouts={"group": group, "prompts": prompts_in_step, "tokens": tokens},
            write=WriteConfig(tokens=tokens, samples=samples, seed=seed),
            mlp=mlp.value,
            out=out,
            force=force,
            placement=placed(device, dtype, memory),
            report=report,
        )
    _judged(record, out)


def _alpha(text: str) -> Any:
    if text == "mean":
        return "mean"
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"--alpha is {text!r}: expected mean, or a number") from None


def _settings(pairs: Sequence[str]) -> dict[str, Any]:
    """KEY=VALUE, the values as YAML reads them: numbers, true and false, else text."""
    import yaml

    found = {}
    for pair in pairs:
        key, sign, value = pair.partition("=")
        if not sign or not key:
            raise ValueError(f"--trainer is {pair!r}: expected KEY=VALUE, such as bf16=true")
        found[key] = yaml.safe_load(value)
        if isinstance(found[key], str):
            # YAML 1.1 takes 1e-4 for text, as it has no point.
            found[key] = _number(value)
    return found


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def _estimated(record: Mapping[str, Any]) -> None:
    say(
        f"{record['trained']:,} of {record['weights']:,} weights trained, {record['arms']} times; "
        f"{record['bytes'] / 1e9:.2f} GB of weights, gradients and Adam's means, activations on "
        f"top; {record['passes']:,} passes of at most {record['tokens_in_a_pass']:,} tokens, of "
        f"{record['texts']:,} texts"
    )


def _judged(record: Mapping[str, Any], out: Path | None) -> None:
    clean = list(record["arms"]["before"]["cross_entropy"])
    table = Table(
        Column("model", no_wrap=True),
        Column(record["behaviour"], justify="right", no_wrap=True),
        *(Column(f"nats/token, {name}", justify="right") for name in clean),
        Column("features", justify="right", no_wrap=True),
        box=SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
    )
    for name, arm in record["arms"].items():
        on = arm["activation"]["chosen features"]["prompts"]
        table.add_row(
            name,
            _ranged(arm["behaviour"]),
            *(f"{arm['cross_entropy'][text]['mean']:.3f}" for text in clean),
            f"{on['pre_activation']:.3g}",
        )
    console.print(table)
    say("features: the mean pre-activation of the chosen ones on the prompts\n")
    for against, others in record["against"].items():
        for name, found in others.items():
            console.print(Text(f"{name} less {against}: {_ranged(found, sign='+')}"))
    for one in record["arms"]["before"]["written"][:1]:
        console.print(Text(f"before, after {one['prompt']!r}: {readable(one['written'])}"))
    say(f"written to {out}")


def _ranged(found: Mapping[str, Any], sign: str = "") -> str:
    value = f"{found['mean']:{sign}.3f}"
    if found["interval"] is None:
        return value
    low, high = found["interval"]
    return f"{value} ({low:{sign}.3f} to {high:{sign}.3f})"
