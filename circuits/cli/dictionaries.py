"""The verbs for dictionaries: train, judge, look at, convert."""

from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from circuits.cli.options import (
    Device,
    Dictionaries,
    Force,
    Layers,
    Memory,
    Mlp,
    Model,
    ModelDtype,
    Quiet,
    Seed,
    Text,
    TextBesideCache,
    Threads,
    at_least,
    placed,
    say_found,
)
from circuits.cli.progress_bars import bars
from circuits.cli.tables import console, probe_table, quality_table
from circuits.render.words import counted
from saes.architectures.table import ARCHITECTURES

app = typer.Typer()


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


class Layout(StrEnum):
    saelens = "saelens"
    sparsify = "sparsify"
    circuit_tracer = "circuit-tracer"


@app.command()
def train(
    families: Annotated[list[Family], typer.Argument(help="saes, transcoders, or both.")],
    out: Annotated[Path, typer.Option(help="Folder for the dictionaries.")],
    text: TextBesideCache = None,
    model: Model = "bundled",
    layers: Layers = "all",
    sites: Annotated[
        str, typer.Option(help="For SAEs: of resid_post, attn_out, mlp_out.")
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
        float | None, typer.Option(help="By default 2e-4 x sqrt(16384 / width).")
    ] = None,
    reuse: Annotated[
        int, typer.Option(help="Times each activation is seen; the model reads tokens / reuse.")
    ] = 1,
    precision: Annotated[
        Precision, typer.Option(help="Of the product that chooses features.")
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
    checkpoint_every: Annotated[float, typer.Option(help="Seconds.")] = 60.0,
    log: Annotated[
        list[str] | None, typer.Option(help="Besides training.jsonl: tensorboard, wandb.")
    ] = None,
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
    from circuits import suites
    from hooked_qwen.sites import parse_layers
    from hooked_qwen.stream import StreamConfig
    from hooked_qwen.texts import texts_of
    from saes.training import train as training
    from saes.training.config import TrainConfig
    from saes.training.log import last_line
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
    texts = texts_of(text) if text else None
    with bars() as report:
        loaded = suites.load_model(model, report, placement)
        chosen = parse_layers(layers, loaded.cfg.n_layers)
        kinds = [s.strip() for s in sites.split(",")]
        specs = dictionary_specs(
            [f.value for f in families],
            chosen,
            kinds,
            k=k or None,
            architecture=arch.value,
            skip=skip,
        )
        config = TrainConfig(
            width=width or 8 * loaded.cfg.d_model,
            tokens=tokens,
            learning_rate=learning_rate,
            sparsity=sparsity,
            average=average,
            precision=precision.value,
            seed=seed,
        )
        quality = training.train(
            loaded,
            specs,
            texts,
            out,
            config=config,
            stream=StreamConfig(reuse=reuse, seed=seed),
            options=RunOptions(
                resume=resume, checkpoint_every=checkpoint_every, logs=tuple(log or ())
            ),
            cache=cache,
            harvest=harvest.value,
            memory=memory,
            report=report,
        )
    quality_table([s.name for s in specs], [asdict(q) for q in quality])
    last = last_line(out)
    console.print(
        f"{counted(len(specs), 'dictionary', 'dictionaries')} in {out}\n"
        f"{last['tokens_per_second']:,.0f} activations a second, "
        f"{last['model_share']:.0%} of the time waiting for them",
        highlight=False,
    )


@app.command()
def cache(
    text: Text,
    out: Annotated[
        Path, typer.Option(help="Folder for the activations; goes on where it stopped.")
    ],
    model: Model = "bundled",
    layers: Layers = "all",
    sites: Annotated[
        str, typer.Option(help="Of resid_post, attn_out, mlp_in, mlp_out.")
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
    from circuits import suites
    from hooked_qwen.sites import Site, parse_layers
    from hooked_qwen.stream import StreamConfig
    from hooked_qwen.texts import texts_of
    from saes.training import train as training

    placement = placed(device, dtype, memory)
    at_least(1, tokens=tokens)
    texts = texts_of(text, seed=seed)
    kinds = [s.strip() for s in sites.split(",")]
    with bars() as report:
        loaded = suites.load_model(model, report, placement)
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


@app.command()
def evaluate(
    dictionaries: Dictionaries,
    text: Text,
    model: Model = "bundled",
    tokens: Annotated[int, typer.Option(help="Tokens of text to judge on.")] = 4096,
    mlp: Annotated[
        Mlp, typer.Option(help="Which to splice with all the others, where an MLP has both.")
    ] = Mlp.sae,
    labelled: Annotated[
        Path | None, typer.Option(help="JSONL with text and label: probe single features for it.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Write the figures here as JSON, and beside it an SVG.")
    ] = None,
    device: Device = None,
    dtype: ModelDtype = None,
    memory: Memory = None,
    seed: Seed = 0,
    force: Force = False,
    threads: Threads = None,
    quiet: Quiet = False,
) -> None:
    """How good dictionaries are, beside untrained ones and the best linear map of the same rank.

    Example: `circuits evaluate bundled --model bundled --text bundled`
    """
    from circuits import suites
    from circuits.graph import write_json
    from circuits.render.quality import quality_figure
    from circuits.runs.overwrite import MADE_FROM, check_beside, check_record
    from hooked_qwen.texts import texts_of

    placement = placed(device, dtype, memory)
    at_least(1, tokens=tokens)
    options = {"tokens": tokens, "mlp": mlp.value, "labelled": labelled and str(labelled)}
    options |= {"seed": seed}
    source = {} if out is None else suites.sources(dictionaries, model, text, placement, **options)
    if out is not None:
        check_record(out, source, force=force)
        check_beside(out, ".svg", force=force)
    say_found(dictionaries, mlp)
    with bars() as report:
        record = suites.evaluate_suite(
            dictionaries,
            model,
            texts_of(text, seed=seed),
            tokens,
            mlp=mlp.value,
            labelled=labelled,
            seed=seed,
            placement=placement,
            report=report,
        )
    found = record["dictionaries"]
    quality_table(list(found), list(found.values()), record["joint"])
    if "probes" in record:
        probe_table(record["probes"])
    if out is not None:
        write_json(record | {MADE_FROM: source}, out)
        quality_figure(found, out.with_suffix(".svg"))
        console.print(f"figures in {out} and {out.with_suffix('.svg')}", highlight=False)


@app.command()
def feature(
    dictionaries: Dictionaries,
    which: Annotated[str, typer.Argument(help="SITE/INDEX, such as mlp_out.3/812.")],
    text: Text,
    model: Model = "bundled",
    tokens: Annotated[int, typer.Option(help="Tokens of text to look for examples in.")] = 262_144,
    out: Annotated[
        Path, typer.Option(help="Folder for the examples of all features, made once, and cards.")
    ] = Path("features"),
    device: Device = None,
    dtype: ModelDtype = None,
    memory: Memory = None,
    seed: Seed = 0,
    force: Force = False,
    threads: Threads = None,
    quiet: Quiet = False,
) -> None:
    """What a feature is about: its strongest examples, density, promoted tokens, neighbours.

    Example: `circuits feature bundled resid_post.2/17 --text bundled`
    """
    from circuits import suites
    from circuits.features.terminal import card_view
    from hooked_qwen.texts import texts_of

    placement = placed(device, dtype, memory)
    at_least(1, tokens=tokens)
    source = suites.sources(dictionaries, model, text, placement, tokens=tokens, seed=seed)
    with bars() as report:
        card, paths = suites.feature(
            dictionaries,
            which,
            model,
            texts_of(text, seed=seed),
            out,
            tokens=tokens,
            made_from=source,
            force=force,
            seed=seed,
            placement=placement,
            report=report,
        )
    console.print(card_view(card))
    for path in paths:
        console.print(str(path), highlight=False)


@app.command()
def suite(
    dictionaries: Dictionaries,
    text: Text,
    model: Model = "bundled",
    tokens: Annotated[int, typer.Option(help="Tokens of text to look for examples in.")] = 262_144,
    mlp: Annotated[
        Mlp, typer.Option(help="Which dictionary to show where an MLP has both.")
    ] = Mlp.sae,
    out: Annotated[
        Path, typer.Option(help="Folder for the examples of all features, made once, and the page.")
    ] = Path("features"),
    device: Device = None,
    dtype: ModelDtype = None,
    memory: Memory = None,
    seed: Seed = 0,
    force: Force = False,
    threads: Threads = None,
    quiet: Quiet = False,
) -> None:
    """One page with every dictionary and a search over all features.

    Example: `circuits suite bundled --text bundled`
    """
    from circuits import suites
    from hooked_qwen.texts import texts_of

    placement = placed(device, dtype, memory)
    at_least(1, tokens=tokens)
    options = {"tokens": tokens, "mlp": mlp.value, "seed": seed}
    source = suites.sources(dictionaries, model, text, placement, **options)
    say_found(dictionaries, mlp)
    with bars() as report:
        page = suites.suite_overview(
            dictionaries,
            model,
            texts_of(text, seed=seed),
            out,
            tokens=tokens,
            mlp=mlp.value,
            made_from=source,
            force=force,
            seed=seed,
            placement=placement,
            report=report,
        )
    console.print(f"page {page}", highlight=False)


@app.command()
def convert(
    dictionaries: Annotated[str, typer.Argument(help="Dictionaries of any layout that is read.")],
    out: Annotated[Path, typer.Argument(help="Folder to write.")],
    to: Annotated[Layout, typer.Option(help="The layout to write.")],
    only: Annotated[
        Mlp | None, typer.Option(help="Leave out the others: some layouts cannot hold both.")
    ] = None,
) -> None:
    """Write dictionaries in the layout of another library.

    Example: `circuits convert bundled for-saelens --to saelens --only sae`
    """
    from saes.formats.convert import convert as convert_dictionaries

    _need_free(out)
    written = convert_dictionaries(dictionaries, out, to.value, only=only.value if only else None)
    console.print(
        f"{counted(len(written), 'dictionary', 'dictionaries')} in {out}", highlight=False
    )


def _need_free(out: Path) -> None:
    if out.exists() and any(out.iterdir()):
        raise ValueError(f"{out} is not empty: choose another --out, or remove it first")
