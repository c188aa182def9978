"""The verbs for circuits: discover, verify, ablate, compare, render, and prompt sets."""

import hashlib
import re
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from circuits.cli.options import (
    Device,
    Force,
    Memory,
    Mlp,
    Model,
    ModelDtype,
    Quiet,
    RunFolder,
    Seed,
    SeedOfRun,
    Threads,
    at_least,
    placed,
    say_found,
)
from circuits.cli.progress_bars import bars
from circuits.cli.tables import (
    ablation_table,
    comparison_table,
    console,
    discovery_summary,
    tasks_table,
    verification_table,
)
from circuits.render.words import counted

app = typer.Typer()
prompts_app = typer.Typer(no_args_is_help=True, help="Prompt sets of our own making.")
app.add_typer(prompts_app, name="prompts")


class Estimator(StrEnum):
    ig = "ig"
    ig_inputs = "ig-inputs"
    patching = "patching"
    relp = "relp"
    exact = "exact"


class Positions(StrEnum):
    keep = "keep"
    end = "end"
    sum = "sum"


class Bos(StrEnum):
    auto = "auto"
    always = "always"
    never = "never"


class Reference(StrEnum):
    patch = "patch"
    zero = "zero"
    mean = "mean"


class Method(StrEnum):
    sparse_feature = "sparse-feature"
    replacement = "replacement"


class To(StrEnum):
    zero = "zero"
    mean = "mean"
    patch = "patch"


class Level(StrEnum):
    full = "full"
    quick = "quick"


class Split(StrEnum):
    train = "train"
    test = "test"


@app.command()
def discover(
    out: Annotated[Path, typer.Option(help="Run folder to write.")],
    prompts: Annotated[
        Path | None,
        typer.Argument(
            help="Prompt file: JSON Lines or CSV. Its fields: docs/circuits.md, Prompts.",
            show_default=False,
        ),
    ] = None,
    clean: Annotated[str | None, typer.Option(help="In place of a file: one prompt,")] = None,
    patch: Annotated[str | None, typer.Option(help="its counterpart of the same length,")] = None,
    answer: Annotated[
        list[str] | None, typer.Option(help="right answers (else the model's own), and")
    ] = None,
    wrong: Annotated[
        list[str] | None, typer.Option(help="wrong ones (else the whole vocabulary).")
    ] = None,
    model: Model = "bundled",
    dictionaries: Annotated[str, typer.Option(help="Folder, hub name, or 'bundled'.")] = "bundled",
    method: Annotated[Method, typer.Option(help="What kind of graph.")] = Method.sparse_feature,
    estimator: Annotated[Estimator, typer.Option(help="How node effects are found.")] = (
        Estimator.ig
    ),
    metric: Annotated[
        str,
        typer.Option(
            help="What the circuit is a circuit of: logit-difference, log-probability, kl, a "
            "feature's activation as feature:SITE/INDEX[@POSITION], or what a linear probe reads "
            "as readout:SITE[@POSITION]:FILE (.npy or .safetensors)."
        ),
    ] = "logit-difference",
    nodes: Annotated[int, typer.Option(help="Features and errors to keep.")] = 100,
    threshold: Annotated[
        float | None, typer.Option(help="Of these keep those with an effect as large as this,")
    ] = None,
    influence: Annotated[
        float | None, typer.Option(help="or the fewest with this share of the influence,")
    ] = None,
    faithfulness: Annotated[
        float | None, typer.Option(help="or what stays as faithful as this, by elimination.")
    ] = None,
    positions: Annotated[
        Positions | None,
        typer.Option(
            help="Token positions: keep apart (prompts of one length), end: so, last tokens lined "
            "up (of several lengths), or sum. By default what the lengths ask for."
        ),
    ] = None,
    skip_unfit: Annotated[
        bool,
        typer.Option("--skip-unfit", help="Leave out prompts that do not fit the tokenizer."),
    ] = False,
    bos: Annotated[
        Bos,
        typer.Option(help="A BOS token before each prompt: as the tokenizer does, always, never."),
    ] = Bos.auto,
    reference: Annotated[
        Reference | None,
        typer.Option(help="What nodes are moved to: patch by default, zero where there is none."),
    ] = None,
    mlp: Annotated[
        Mlp, typer.Option(help="Which dictionary to use where an MLP has both.")
    ] = Mlp.sae,
    edge_steps: Annotated[
        int,
        typer.Option(help="Points from clean to patch at which an edge is read; 0: at clean."),
    ] = 0,
    edge_threshold: Annotated[
        float, typer.Option(help="Leave out edges under this share of the strongest node.")
    ] = 0.01,
    text: Annotated[
        list[str] | None,
        typer.Option(help="Text for features' examples, besides the prompts, as for train."),
    ] = None,
    device: Device = None,
    dtype: ModelDtype = None,
    memory: Memory = None,
    seed: Seed = 0,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with this run where it was cut off.")
    ] = False,
    force: Force = False,
    threads: Threads = None,
    quiet: Quiet = False,
) -> None:
    """Find the sparse feature circuit of a prompt set.

    Example: `circuits discover prompts.jsonl --model bundled --dictionaries bundled --out run`

    Example: `circuits discover --clean "The keys" --patch "The key" --answer " are"
    --wrong " is" --out run`
    """
    from circuits.discovery.config import DiscoverConfig
    from circuits.metrics.readout import read_metric
    from circuits.prompts import WhenUnfit, read_prompts
    from circuits.runs import commands
    from circuits.runs.inputs import Inputs

    placement = placed(device, dtype, memory)
    if method is Method.replacement:
        raise ValueError(
            "graphs of a replacement model are not built yet: use --method sparse-feature"
        )
    if (prompts is None) == (clean is None):
        raise ValueError("say which prompts: a file, or one with --clean (not both)")
    given = None
    if clean is not None:
        prompts = out / "prompts.jsonl"
        given = [commands.one_prompt(clean, patch, answer or [], wrong or [])]
    elif patch or answer or wrong:
        raise ValueError("--patch, --answer and --wrong go with --clean; a file has its own")
    assert prompts is not None
    listed = given or read_prompts(prompts)
    unfit: WhenUnfit = "skip" if skip_unfit else "refuse"
    fitting = (listed, model, bos.value, unfit)
    config = DiscoverConfig(
        metric=read_metric(metric),
        estimator=estimator.value,
        nodes=nodes,
        threshold=threshold,
        influence=influence,
        faithfulness=faithfulness,
        positions=positions.value if positions else commands.positions_for(*fitting),
        bos=bos.value,
        reference=reference.value if reference else commands.reference_for(listed),
        edge_steps=edge_steps,
        edge_threshold=edge_threshold,
    )
    inputs = Inputs.resolved(model, dictionaries, prompts, mlp.value, unfit)
    say_found(dictionaries, mlp)
    with bars() as report:
        found = commands.discover_run(
            inputs,
            out,
            config=config,
            given=given,
            text=text or (),
            seed=seed,
            force=force,
            resume=resume,
            placement=placement,
            command=command_line(),
            report=report,
        )
    discovery_summary(found.graph)
    console.print(
        f"graph {out / 'graph.json'}\npage  {out / 'graph.html'}\nnext  circuits verify {out}",
        highlight=False,
    )


@app.command()
def verify(
    run: RunFolder,
    to: Annotated[
        To | None,
        typer.Option(help="What ablated nodes are set to: mean, or zero for one lone prompt."),
    ] = None,
    held_out: Annotated[
        Path | None, typer.Option(help="Other prompts of the task to hold the circuit against.")
    ] = None,
    level: Annotated[
        Level,
        typer.Option(help="quick: nodes, edges and the circuit at three sizes, few controls."),
    ] = Level.full,
    device: Device = None,
    dtype: ModelDtype = None,
    memory: Memory = None,
    seed: SeedOfRun = None,
    force: Force = False,
    threads: Threads = None,
    quiet: Quiet = False,
) -> None:
    """Hold a run against exact ablation: its nodes, its edges, and the circuit as a whole.

    Example: `circuits verify run`
    """
    from circuits.runs import commands
    from circuits.runs.folder import read_run
    from circuits.verification.verify import VerifyConfig

    placement = placed(device, dtype, memory)
    config = VerifyConfig(
        to=to.value if to else None,
        level=level.value,
        seed=read_run(run).seed if seed is None else seed,
    )
    with bars() as report:
        record = commands.verify_run(
            run,
            config=config,
            held_out=held_out,
            force=force,
            placement=placement,
            report=report,
        )
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
    device: Device = None,
    dtype: ModelDtype = None,
    memory: Memory = None,
    seed: SeedOfRun = None,
    force: Force = False,
    threads: Threads = None,
    quiet: Quiet = False,
) -> None:
    """Cut features out, rerun the prompts, and find the graph that is left.

    Example: `circuits ablate run --features "mlp_out.3/812,resid_post.4/17"`
    """
    from circuits.runs import commands

    placement = placed(device, dtype, memory)
    if sum([features is not None, top is not None, outside]) != 1:
        raise ValueError("say what to ablate with one of --features, --top or --outside")
    label = _ablation_name(features, top, to, prompts, seed) if name is None else name
    with bars() as report:
        result = commands.ablate_run(
            run,
            features=features,
            top=top,
            outside=outside,
            to=to.value,
            label=label,
            prompts=prompts,
            seed=seed,
            force=force,
            placement=placement,
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
    force: Force = False,
) -> None:
    """What changed between two graphs, as a table and as one page.

    Example: `circuits compare run run/ablations/top-5-zero --out compare.html`
    """
    from circuits.runs import commands

    at_least(1, rows=rows)
    changes = commands.compare_runs(run_a, run_b, out, force=force)
    comparison_table(changes, commands.names_of(run_a, run_b), shown=rows)
    console.print(f"page {out}", highlight=False)


@app.command()
def render(
    run: RunFolder,
    to: Annotated[
        str, typer.Option(help="Of html, svg, pdf, gexf, graphml, separated by commas.")
    ] = "html",
    nodes: Annotated[int, typer.Option(help="Nodes in the figure.")] = 25,
) -> None:
    """Draw a run: the page, and vector figures for a paper.

    Example: `circuits render run --to html,svg,pdf`
    """
    from circuits.runs import commands

    at_least(1, nodes=nodes)
    for path in commands.render_run(run, to.split(","), nodes):
        console.print(str(path), highlight=False)


@prompts_app.command("make")
def make_prompts(
    task: Annotated[
        str, typer.Argument(help="Such as agreement_nounpp; `circuits prompts list` has all.")
    ],
    out: Annotated[Path, typer.Option(help="JSON Lines file to write.")],
    n: Annotated[int, typer.Option(help="Number of pairs.")] = 40,
    split: Annotated[Split, typer.Option(help="Train and test share no content word.")] = (
        Split.train
    ),
    model: Model = "bundled",
    seed: Seed = 0,
    force: Force = False,
) -> None:
    """Write a prompt set of ours in words that are one token to a model.

    Example: `circuits prompts make agreement_nounpp --n 40 --out prompts.jsonl`
    """
    from circuits.runs import commands

    at_least(1, n=n)
    prompts = commands.make_prompts(
        task, n, split=split.value, seed=seed, model=model, out=out, force=force
    )
    console.print(
        f"{counted(len(prompts), 'pair')} in {out}, such as {prompts[0].clean!r}",
        highlight=False,
        markup=False,
    )


@prompts_app.command("list")
def list_prompts(model: Model = "bundled") -> None:
    """The tasks that `circuits prompts make` knows for a model, with an example of each.

    Example: `circuits prompts list --model bundled`
    """
    from circuits.tasks import list_for

    tasks_table(list_for(model))


def _ablation_name(
    features: str | None, top: int | None, to: To, prompts: Path | None, seed: int | None
) -> str:
    """A folder name that differs where the ablated nodes, their value or the prompts do."""
    if features is None:
        chosen = "outside" if top is None else f"top-{top}"
    else:
        readable = re.sub(r"[^A-Za-z0-9_.@-]+", "-", features).strip("-")[:40]
        chosen = f"{readable}-{hashlib.sha256(features.encode()).hexdigest()[:6]}"
    parts = [chosen, to.value]
    if prompts is not None:
        parts.append(f"on-{re.sub(r'[^A-Za-z0-9_]+', '-', prompts.stem).strip('-')[:20]}")
    if seed is not None:
        parts.append(f"seed-{seed}")
    return "-".join(parts)


def command_line() -> list[str]:
    """The command that was given, for the record."""
    return ["circuits", *sys.argv[1:]]
