"""The `circuits` command: each verb calls one function and prints what it did."""

import hashlib
import logging
import os
import re
import sys
import warnings
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from circuits.progress import bars
from circuits.tables import (
    ablation_table,
    comparison_table,
    console,
    probe_table,
    quality_table,
    verification_table,
)

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="Find, prove, edit and draw sparse feature circuits in Qwen language models.",
)
prompts_app = typer.Typer(no_args_is_help=True, help="Prompt sets of our own making.")
app.add_typer(prompts_app, name="prompts")


class Family(StrEnum):
    saes = "saes"
    transcoders = "transcoders"


class Estimator(StrEnum):
    ig = "ig"
    patching = "patching"
    exact = "exact"


class Positions(StrEnum):
    keep = "keep"
    sum = "sum"


class Mlp(StrEnum):
    sae = "sae"
    transcoder = "transcoder"


class Reference(StrEnum):
    patch = "patch"
    zero = "zero"
    mean = "mean"


class Arch(StrEnum):
    topk = "topk"
    batch_topk = "batch-topk"
    jumprelu = "jumprelu"
    relu = "relu"
    gated = "gated"
    matryoshka = "matryoshka"


class Precision(StrEnum):
    float32 = "float32"
    bfloat16 = "bfloat16"


class Layout(StrEnum):
    saelens = "saelens"
    sparsify = "sparsify"
    circuit_tracer = "circuit-tracer"


class Method(StrEnum):
    sparse_feature = "sparse-feature"


class To(StrEnum):
    zero = "zero"
    mean = "mean"
    patch = "patch"


class Split(StrEnum):
    train = "train"
    test = "test"


Model = Annotated[
    str, typer.Option(help="Hub name, local folder, .gguf file, or 'bundled'.", show_default=True)
]
Text = Annotated[
    list[str],
    typer.Option(help="Text files or folders (txt, md, py, jsonl); 'bundled' for our English."),
]
RunFolder = Annotated[Path, typer.Argument(help="A run folder written by `circuits discover`.")]


@app.callback()
def options(
    debug: Annotated[bool, typer.Option(help="Show a traceback when something fails.")] = False,
) -> None:
    """Find, prove, edit and draw sparse feature circuits in Qwen language models."""
    if not debug:
        warnings.simplefilter("ignore")
        logging.getLogger("huggingface_hub").setLevel(logging.CRITICAL)
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Where everything goes.")] = Path("demo"),
) -> None:
    """The whole main job on the bundled model: train, discover, verify, ablate, render.

    Example: `circuits demo --out demo`
    """
    import torch

    from circuits.demo import run_demo

    # The bundled model's matrices are too small to share: a second thread only waits.
    torch.set_num_threads(1)
    with bars() as report:
        lines = run_demo(out, command=_command(), report=report)
    for line in lines:
        console.print(line, highlight=False)


@app.command()
def train(
    families: Annotated[list[Family], typer.Argument(help="saes, transcoders, or both.")],
    text: Text,
    out: Annotated[Path, typer.Option(help="Folder for the dictionaries.")],
    model: Model = "bundled",
    layers: Annotated[str, typer.Option(help="'all' or such as '0-3,7'.")] = "all",
    sites: Annotated[
        str, typer.Option(help="For SAEs: of resid_post, attn_out, mlp_out.")
    ] = "resid_post,attn_out,mlp_out",
    arch: Annotated[Arch, typer.Option(help="How features are kept few.")] = Arch.topk,
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
    average: Annotated[
        float, typer.Option(help="Save a running average of the weights with this decay.")
    ] = 0.0,
    cache: Annotated[
        Path | None, typer.Option(help="Read activations from here (`circuits cache`).")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the checkpoint in --out.")
    ] = False,
    checkpoint_every: Annotated[float, typer.Option(help="Seconds.")] = 60.0,
    log: Annotated[
        list[str] | None, typer.Option(help="Besides training.jsonl: tensorboard, wandb.")
    ] = None,
    seed: int = 0,
) -> None:
    """Train a suite of dictionaries, all sites and layers from one pass over the text.

    Example: `circuits train saes transcoders --text bundled --out dictionaries`
    """
    from circuits import work
    from hooked_qwen.load import load
    from hooked_qwen.sites import parse_layers
    from hooked_qwen.stream import StreamConfig
    from saes.log import last_line
    from saes.run import RunOptions, check_place, cut_off
    from saes.train_config import TrainConfig

    check_place(out)
    if cut_off(out) and not resume:
        console.print(f"starting over: --resume would go on from the checkpoint in {out}")
    texts = work.texts_of(text)
    loaded = load(model)
    chosen = parse_layers(layers, loaded.cfg.n_layers)
    kinds = [s.strip() for s in sites.split(",")]
    specs = work.dictionary_specs(
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
    with bars() as report:
        quality = work.train(
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
            report=report,
        )
    quality_table([s.name for s in specs], [asdict(q) for q in quality])
    last = last_line(out)
    console.print(
        f"{len(specs)} dictionaries in {out}\n"
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
    layers: Annotated[str, typer.Option(help="'all' or such as '0-3,7'.")] = "all",
    sites: Annotated[
        str, typer.Option(help="Of resid_post, attn_out, mlp_in, mlp_out.")
    ] = "resid_post,attn_out,mlp_in,mlp_out",
    tokens: Annotated[int, typer.Option(help="Activations of each site.")] = 500_000,
    half: Annotated[bool, typer.Option("--half", help="Store bfloat16, half the size.")] = False,
) -> None:
    """Write activations to disk, for several trainings on one pass of the model.

    Example: `circuits cache --text bundled --layers 2 --tokens 100000 --out activations`
    """
    from circuits import work
    from hooked_qwen.load import load
    from hooked_qwen.sites import Site, parse_layers
    from hooked_qwen.stream import StreamConfig

    texts = work.texts_of(text)
    loaded = load(model)
    kinds = [s.strip() for s in sites.split(",")]
    chosen = [Site(k, n) for n in parse_layers(layers, loaded.cfg.n_layers) for k in kinds]
    with bars() as report:
        written = work.cache_activations(
            loaded,
            chosen,
            texts,
            out,
            tokens=tokens,
            stream=StreamConfig(),
            half=half,
            report=report,
        )
    console.print(
        f"{written.tokens:,} activations of {len(chosen)} sites in {out}", highlight=False
    )


@app.command()
def evaluate(
    dictionaries: Annotated[str, typer.Argument(help="A folder of dictionaries, or 'bundled'.")],
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
) -> None:
    """How good dictionaries are, beside untrained ones and the best linear map of the same rank.

    Example: `circuits evaluate bundled --model bundled --text bundled`
    """
    from circuits import work
    from circuits.graph import write_json
    from circuits.render.quality import quality_figure

    with bars() as report:
        record = work.evaluate_suite(
            dictionaries,
            model,
            work.texts_of(text),
            tokens,
            mlp=mlp.value,
            labelled=labelled,
            report=report,
        )
    found = record["dictionaries"]
    quality_table(list(found), list(found.values()), record["joint"])
    if "probes" in record:
        probe_table(record["probes"])
    if out is not None:
        write_json(record, out)
        quality_figure(found, out.with_suffix(".svg"))
        console.print(f"figures in {out} and {out.with_suffix('.svg')}", highlight=False)


@app.command()
def feature(
    dictionaries: Annotated[str, typer.Argument(help="Folder, hub name, or 'bundled'.")],
    which: Annotated[str, typer.Argument(help="SITE/INDEX, such as mlp_out.3/812.")],
    text: Text,
    model: Model = "bundled",
    tokens: Annotated[int, typer.Option(help="Tokens of text to look for examples in.")] = 262_144,
    out: Annotated[
        Path, typer.Option(help="Folder for the examples of all features, made once, and cards.")
    ] = Path("features"),
) -> None:
    """What a feature is about: its strongest examples, density, promoted tokens, neighbours.

    Example: `circuits feature bundled resid_post.2/17 --text bundled`
    """
    from circuits import work
    from circuits.feature_view import card_view

    with bars() as report:
        card, paths = work.feature(
            dictionaries, which, model, work.texts_of(text), out, tokens=tokens, report=report
        )
    console.print(card_view(card))
    for path in paths:
        console.print(str(path), highlight=False)


@app.command()
def suite(
    dictionaries: Annotated[str, typer.Argument(help="Folder, hub name, or 'bundled'.")],
    text: Text,
    model: Model = "bundled",
    tokens: Annotated[int, typer.Option(help="Tokens of text to look for examples in.")] = 262_144,
    mlp: Annotated[
        Mlp, typer.Option(help="Which dictionary to show where an MLP has both.")
    ] = Mlp.sae,
    out: Annotated[
        Path, typer.Option(help="Folder for the examples of all features, made once, and the page.")
    ] = Path("features"),
) -> None:
    """One page with every dictionary and a search over all features.

    Example: `circuits suite bundled --text bundled`
    """
    from circuits import work

    with bars() as report:
        page = work.suite_overview(
            dictionaries,
            model,
            work.texts_of(text),
            out,
            tokens=tokens,
            mlp=mlp.value,
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
    console.print(f"{len(written)} dictionaries in {out}", highlight=False)


@app.command()
def discover(
    prompts: Annotated[Path, typer.Argument(help="Prompt file: JSON Lines or CSV.")],
    out: Annotated[Path, typer.Option(help="Run folder to write.")],
    model: Model = "bundled",
    dictionaries: Annotated[str, typer.Option(help="Folder, or 'bundled'.")] = "bundled",
    method: Annotated[Method, typer.Option(help="What kind of graph.")] = Method.sparse_feature,
    estimator: Annotated[Estimator, typer.Option(help="How node effects are found.")] = (
        Estimator.ig
    ),
    nodes: Annotated[int, typer.Option(help="Features and errors to keep.")] = 100,
    positions: Annotated[
        Positions, typer.Option(help="Keep token positions apart, or sum over them.")
    ] = Positions.keep,
    reference: Annotated[
        Reference, typer.Option(help="What nodes are moved to.")
    ] = Reference.patch,
    mlp: Annotated[
        Mlp, typer.Option(help="Which dictionary to use where an MLP has both.")
    ] = Mlp.sae,
    edge_threshold: Annotated[
        float, typer.Option(help="Leave out edges under this share of the strongest node.")
    ] = 0.01,
    text: Annotated[
        list[str] | None, typer.Option(help="Text for features' examples, besides the prompts.")
    ] = None,
) -> None:
    """Find the sparse feature circuit of a prompt set.

    Example: `circuits discover prompts.jsonl --model bundled --dictionaries bundled --out run`
    """
    from circuits import work
    from circuits.discover import DiscoverConfig
    from circuits.runs import Inputs

    config = DiscoverConfig(
        estimator=estimator.value,
        nodes=nodes,
        positions=positions.value,
        reference=reference.value,
        edge_threshold=edge_threshold,
    )
    inputs = Inputs.resolved(model, dictionaries, prompts, mlp.value)
    texts = work.texts_of(text) if text else None
    with bars() as report:
        found = work.discover_run(
            inputs, out, config=config, texts=texts, command=_command(), report=report
        )
    meta = found.graph.graph
    console.print(
        f"{meta['n_prompts']} prompts, mean {meta['metric']} {meta['clean_metric']:.2f}"
        + ("" if meta["patch_metric"] is None else f", patched {meta['patch_metric']:.2f}")
        + f"\n{found.graph.number_of_nodes()} nodes, {found.graph.number_of_edges()} edges\n"
        f"graph {out / 'graph.json'}\npage  {out / 'graph.html'}\n"
        f"next  circuits verify {out}",
        highlight=False,
    )


@app.command()
def verify(
    run: RunFolder,
    to: Annotated[To, typer.Option(help="What ablated nodes are set to.")] = To.mean,
    seed: int = 0,
) -> None:
    """Hold a run against exact ablation: every node, and the circuit as a whole.

    Example: `circuits verify run`
    """
    from circuits import work
    from circuits.verify import VerifyConfig

    config = VerifyConfig(to=to.value, seed=seed)
    with bars() as report:
        record = work.verify_run(run, config=config, report=report)
    verification_table(record)
    console.print(
        f"record {run / 'verification.json'}\npage   {run / 'graph.html'}", highlight=False
    )


@app.command()
def ablate(
    run: RunFolder,
    features: Annotated[
        str | None, typer.Option(help="Such as 'mlp_out.3/812,resid_post.5/17@4'.")
    ] = None,
    top: Annotated[int | None, typer.Option(help="The graph's n strongest features.")] = None,
    outside: Annotated[
        bool, typer.Option("--outside", help="Everything outside the graph.")
    ] = False,
    to: Annotated[To, typer.Option(help="What they are set to.")] = To.zero,
    prompts: Annotated[Path | None, typer.Option(help="Other prompts to rerun.")] = None,
    name: Annotated[str | None, typer.Option(help="Folder under RUN/ablations.")] = None,
) -> None:
    """Cut features out, rerun the prompts, and find the graph that is left.

    Example: `circuits ablate run --features "mlp_out.3/812,resid_post.4/17"`
    """
    from circuits import work

    if sum([features is not None, top is not None, outside]) != 1:
        raise ValueError("say what to ablate with one of --features, --top or --outside")
    label = name or f"{_ablation_name(features, top)}-{to.value}"
    with bars() as report:
        result = work.ablate_run(
            run,
            features=features,
            top=top,
            outside=outside,
            to=to.value,
            label=label,
            prompts=prompts,
            report=report,
        )
    ablation_table(result)
    console.print(f"result {run / 'ablations' / label}", highlight=False)


@app.command()
def compare(
    run_a: Annotated[Path, typer.Argument(help="A run, or an ablation's folder.")],
    run_b: Annotated[Path, typer.Argument(help="Another.")],
    out: Annotated[Path, typer.Option(help="The page to write.")] = Path("compare.html"),
    rows: Annotated[int, typer.Option(help="Rows to print.")] = 20,
) -> None:
    """What changed between two graphs, as a table and as one page.

    Example: `circuits compare run run/ablations/top-5-zero --out compare.html`
    """
    from circuits import work

    changes = work.compare_runs(run_a, run_b, out)
    comparison_table(changes[:rows], (run_a.name or "A", run_b.name or "B"))
    console.print(f"page {out}", highlight=False)


@app.command()
def render(
    run: RunFolder,
    to: Annotated[str, typer.Option(help="Of html, svg, pdf, separated by commas.")] = "html",
    nodes: Annotated[int, typer.Option(help="Nodes in the figure.")] = 25,
) -> None:
    """Draw a run: the page, and vector figures for a paper.

    Example: `circuits render run --to html,svg,pdf`
    """
    from circuits import work

    for path in work.render_run(run, to.split(","), nodes):
        console.print(str(path), highlight=False)


@prompts_app.command("make")
def make_prompts(
    task: Annotated[str, typer.Argument(help="Such as agreement_nounpp; a wrong one lists all.")],
    out: Annotated[Path, typer.Option(help="JSON Lines file to write.")],
    n: Annotated[int, typer.Option(help="Number of pairs.")] = 40,
    split: Annotated[Split, typer.Option(help="Train and test share no content word.")] = (
        Split.train
    ),
    model: Model = "bundled",
    seed: int = 0,
) -> None:
    """Write a prompt set of the bundled English, checked against a model's tokenizer.

    Example: `circuits prompts make agreement_nounpp --n 40 --out prompts.jsonl`
    """
    from circuits import work

    prompts = work.make_prompts(task, n, split=split.value, seed=seed, model=model, out=out)
    console.print(f"{len(prompts)} pairs in {out}, such as {prompts[0].clean!r}", highlight=False)


def _ablation_name(features: str | None, top: int | None) -> str:
    """A folder name that differs where the ablated nodes do."""
    if features is None:
        return "outside" if top is None else f"top-{top}"
    readable = re.sub(r"[^A-Za-z0-9_.@-]+", "-", features).strip("-")[:40]
    return f"{readable}-{hashlib.sha256(features.encode()).hexdigest()[:6]}"


def main() -> None:
    """Run the command; an error is one line on standard error and a non-zero exit code."""
    if "--debug" in sys.argv:
        app()
        return
    try:
        app()
    except (ValueError, FloatingPointError, OSError, RuntimeError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        raise SystemExit(1) from None


def _command() -> list[str]:
    return ["circuits", *sys.argv[1:]]


def _need_free(out: Path) -> None:
    if out.exists() and any(out.iterdir()):
        raise ValueError(f"{out} is not empty: choose another --out, or remove it first")
