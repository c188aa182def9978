"""The verbs that train dictionaries, and write activations to train them on."""

from collections.abc import Sequence
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from circuits.cli.estimate import print_training
from circuits.cli.options import (
    Device,
    DryRun,
    Layers,
    Memory,
    Model,
    ModelDtype,
    Quiet,
    Seed,
    Text,
    TextBesideCache,
    Threads,
    at_least,
    placed,
)
from circuits.cli.progress_bars import bars
from circuits.cli.quality_tables import quality_table
from circuits.cli.tables import console
from circuits.render.words import counted
from hooked_qwen.percents import percent
from saes.architectures.table import ARCHITECTURES

if TYPE_CHECKING:
    from saes.evaluation.metrics import Quality


class Family(StrEnum):
    saes = "saes"
    transcoders = "transcoders"


class Arch(StrEnum):
    # A member for each row of the table; typer offers the members of an enumeration only.
    locals().update({name.replace("-", "_"): name for name in ARCHITECTURES})


TOPK = Arch("topk")


class Precision(StrEnum):
    float32 = "float32"
    bfloat16 = "bfloat16"


class Harvest(StrEnum):
    auto = "auto"
    float32 = "float32"
    bfloat16 = "bfloat16"


def train(
    families: Annotated[
        list[Family], typer.Argument(help="What to train: saes, transcoders, or both.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for the dictionaries.")],
    text: TextBesideCache = None,
    model: Model = "bundled",
    layers: Layers = "all",
    sites: Annotated[
        str, typer.Option(help="Sites of SAEs, among resid_post, attn_out, mlp_out.")
    ] = "resid_post,attn_out,mlp_out",
    arch: Annotated[Arch, typer.Option(help="How features are kept few.")] = TOPK,
    skip: Annotated[
        bool, typer.Option("--skip", help="Transcoders get a linear skip connection.")
    ] = False,
    width: Annotated[
        int | None, typer.Option(help="Features in each dictionary; by default 8 x d_model.")
    ] = None,
    k: Annotated[int, typer.Option(help="Features on a token; 0 leaves it to --sparsity.")] = 32,
    sparsity: Annotated[
        float, typer.Option(help="Penalty of relu, gated and jumprelu; its start where k is given.")
    ] = 1.0,
    tokens: Annotated[int, typer.Option(help="Activations each dictionary sees.")] = 500_000,
    learning_rate: Annotated[
        float | None, typer.Option(help="Learning rate, by default 2e-4 x sqrt(16384 / width).")
    ] = None,
    reuse: Annotated[
        int, typer.Option(help="Times each activation is seen; the model reads tokens / reuse.")
    ] = 1,
    precision: Annotated[
        Precision, typer.Option(help="Precision of the product that chooses features.")
    ] = Precision.float32,
    harvest: Annotated[
        Harvest,
        typer.Option(
            help="Precision of the model while it is learned from; auto takes bfloat16 where that "
            "is faster, and safe by measurement."
        ),
    ] = Harvest.auto,
    average: Annotated[
        float, typer.Option(help="Save a running average of the weights with this decay.")
    ] = 0.0,
    cache: Annotated[
        Path | None,
        typer.Option(help="Read activations from here (`circuits cache`); --text is not needed."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the checkpoint in --out.")
    ] = False,
    checkpoint_every: Annotated[float, typer.Option(help="Seconds between checkpoints.")] = 60.0,
    log: Annotated[
        list[str] | None, typer.Option(help="Log to tensorboard or wandb, besides training.jsonl.")
    ] = None,
    dry_run: DryRun = False,
    device: Device = None,
    dtype: ModelDtype = None,
    memory: Memory = None,
    seed: Seed = 0,
    threads: Threads = None,
    quiet: Quiet = False,
) -> None:
    """Train a suite of dictionaries, all sites and layers from one pass over the text.

    Example: `circuits train saes transcoders --text bundled --out dictionaries`
    """
    from circuits.opening import load_model
    from circuits.runs.estimate_training import estimate_training
    from hooked_qwen.load import load_config
    from hooked_qwen.sites import parse_layers
    from hooked_qwen.stream import StreamConfig
    from hooked_qwen.texts import texts_of
    from saes.training import train as training
    from saes.training.config import TrainConfig
    from saes.training.run import RunOptions, check_place, cut_off
    from transcoders.specs import dictionary_specs

    placement = placed(device, dtype, memory)
    at_least(1, tokens=tokens, width=width, reuse=reuse)
    at_least(0, k=k)
    check_place(out)
    if cut_off(out) and not resume:
        console.print(f"starting over: --resume would go on from the checkpoint in {out}")
    if not text and cache is None:
        raise ValueError("there is nothing to train on: give --text, or --cache")
    texts = texts_of(text, seed=seed) if text else None
    sizes = load_config(model)
    specs = dictionary_specs(
        [f.value for f in families],
        parse_layers(layers, sizes.num_hidden_layers),
        [s.strip() for s in sites.split(",")],
        k=k or None,
        architecture=arch.value,
        skip=skip,
    )
    config = TrainConfig(
        width=width or 8 * sizes.hidden_size,
        tokens=tokens,
        learning_rate=learning_rate,
        sparsity=sparsity,
        average=average,
        precision=precision.value,
        seed=seed,
    )
    stream = StreamConfig(reuse=reuse, seed=seed)
    if dry_run:
        found = estimate_training(
            specs,
            model=model,
            config=config,
            stream=stream,
            harvest=harvest.value,
            cached=cache is not None,
            placement=placement,
        )
        print_training(found)
        return
    with bars() as report:
        loaded = load_model(model, report, placement)
        quality = training.train(
            loaded,
            specs,
            texts,
            out,
            config=config,
            stream=stream,
            options=RunOptions(
                resume=resume, checkpoint_every=checkpoint_every, logs=tuple(log or ())
            ),
            cache=cache,
            harvest=harvest.value,
            memory=memory,
            report=report,
        )
    _say_trained(out, [spec.name for spec in specs], quality)


def _say_trained(out: Path, names: list[str], quality: "Sequence[Quality]") -> None:
    from saes.training.log import last_line

    quality_table(names, [asdict(q) for q in quality])
    last = last_line(out)
    console.print(
        f"{counted(len(names), 'dictionary', 'dictionaries')} in {out}\n"
        f"{last['tokens_per_second']:,.0f} activations a second, "
        f"{percent(last['model_share'])} of the time waiting for them",
        highlight=False,
    )


def cache(
    text: Text,
    out: Annotated[
        Path, typer.Option(help="Folder for the activations; goes on where it stopped.")
    ],
    model: Model = "bundled",
    layers: Layers = "all",
    sites: Annotated[
        str, typer.Option(help="Sites, among resid_post, attn_out, mlp_in, mlp_out.")
    ] = "resid_post,attn_out,mlp_in,mlp_out",
    tokens: Annotated[int, typer.Option(help="Activations of each site.")] = 500_000,
    half: Annotated[bool, typer.Option("--half", help="Store bfloat16, half the size.")] = False,
    device: Device = None,
    dtype: ModelDtype = None,
    memory: Memory = None,
    seed: Seed = 0,
    threads: Threads = None,
    quiet: Quiet = False,
) -> None:
    """Write activations to disk, for several trainings on one pass of the model.

    Example: `circuits cache --text bundled --layers 2 --tokens 100000 --out activations`
    """
    from circuits.opening import load_model
    from hooked_qwen.sites import Site, parse_layers
    from hooked_qwen.stream import StreamConfig
    from hooked_qwen.texts import texts_of
    from saes.training import train as training

    placement = placed(device, dtype, memory)
    at_least(1, tokens=tokens)
    texts = texts_of(text, seed=seed)
    kinds = [s.strip() for s in sites.split(",")]
    with bars() as report:
        loaded = load_model(model, report, placement)
        chosen = [Site(k, n) for n in parse_layers(layers, loaded.cfg.n_layers) for k in kinds]
        written = training.cache_activations(
            loaded,
            chosen,
            texts,
            out,
            tokens=tokens,
            stream=StreamConfig(seed=seed),
            half=half,
            memory=memory,
            report=report,
        )
    console.print(
        f"{written.tokens:,} activations of {len(chosen)} sites in {out}", highlight=False
    )
