"""`circuits tune` and `circuits reinforce`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from circuits.cli.options import (
    Device,
    Dictionaries,
    DryRun,
    Force,
    Memory,
    Mlp,
    MlpUsed,
    Model,
    ModelDtype,
    MostTexts,
    Quiet,
    Seed,
    Threads,
    at_least,
    placed,
)
from circuits.cli.options import Text as TextOption
from circuits.cli.progress_bars import bars
from circuits.cli.tune_tables import tell

Prompts = Annotated[
    list[str],
    typer.Option(help="Texts to write on after, a prompt each, as --text takes them; 64 at most."),
]
HeldOut = Annotated[
    list[str] | None,
    typer.Option(help="Clean texts to judge on, each source apart; by default a tenth of --text."),
]
Against = Annotated[
    str,
    typer.Option(
        "--behaviour",
        help="What is not wanted: cjk, repetition, or regex:PATTERN, whether a text matches.",
    ),
]
Lora = Annotated[
    int | None,
    typer.Option("--lora", help="Rank of a LoRA adapter; by default every weight is trained."),
]
Steps = Annotated[int, typer.Option(help="Optimiser steps, the same for all that is trained.")]
LearningRate = Annotated[
    float, typer.Option(help="Learning rate at the first step; it falls to 0.")
]
Trainer = Annotated[
    list[str] | None,
    typer.Option(
        help="KEY=VALUE of the arguments of transformers' trainer, such as bf16=true or "
        "gradient_accumulation_steps=8; repeat it for several."
    ),
]
MaxTokens = Annotated[int, typer.Option(help="Tokens that are written after a prompt at most.")]
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
        Path | None,
        typer.Option(help="A file of `circuits features search --out`: its first features too."),
    ] = None,
    top: Annotated[int, typer.Option(help="Features of --found, the first ones.")] = 10,
    behaviour: Against = "cjk",
    held_out: HeldOut = None,
    weight: Annotated[float, typer.Option("--lambda", help="Weight of the penalty.")] = 0.01,
    alpha: Annotated[
        str,
        typer.Option(
            help="Activation from which features cost: mean, theirs in --text, or a number."
        ),
    ] = "mean",
    steps: Steps = 100,
    batch: Annotated[int, typer.Option(help="Texts in a pass.")] = 8,
    lora: Lora = None,
    learning_rate: LearningRate = 1e-4,
    trainer: Trainer = None,
    longest: Longest = 128,
    texts: MostTexts = 1000,
    tokens: MaxTokens = 40,
    samples: Samples = 4,
    mlp: MlpUsed = Mlp.sae,
    out: Out = None,
    dry_run: DryRun = False,
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
    _out_or_dry_run(out, dry_run)
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
            behaviour=behaviour,
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
    tell(record, out, dry_run)


def reinforce(
    dictionaries: Dictionaries,
    feature: Annotated[str, typer.Option(help="What one rollout of a group is steered by.")],
    prompts: Prompts,
    held_out: Annotated[list[str], typer.Option(help="Clean texts to judge on.")],
    model: Model = "bundled",
    behaviour: Against = "repetition",
    strength: Annotated[
        float,
        typer.Option(help="Strength of steering, in units of the feature's largest activation."),
    ] = 1.0,
    steps: Steps = 50,
    group: Annotated[int, typer.Option(help="Rollouts of a prompt.")] = 8,
    prompts_in_step: Annotated[int, typer.Option(help="Prompts in a step.")] = 1,
    lora: Lora = None,
    learning_rate: LearningRate = 1e-5,
    trainer: Trainer = None,
    longest: Longest = 128,
    texts: MostTexts = 200,
    tokens: MaxTokens = 40,
    samples: Samples = 4,
    mlp: MlpUsed = Mlp.sae,
    out: Out = None,
    dry_run: DryRun = False,
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

    _out_or_dry_run(out, dry_run)
    with bars() as report:
        record = scope.reinforce(
            dictionaries,
            model,
            feature=feature,
            prompts=prompts,
            held_out=held_out,
            behaviour=behaviour,
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
            out=None if dry_run else out,
            force=force,
            placement=placed(device, dtype, memory),
            report=report,
        )
    tell(record, out, dry_run)


def _out_or_dry_run(out: Path | None, dry_run: bool) -> None:
    if out is None and not dry_run:
        raise ValueError("give a folder for the model with --out, or --dry-run")


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
