"""The verb of blind cases."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text as Line

from circuits.cli.options import (
    Device,
    Dictionaries,
    FeatureAsked,
    Memory,
    Mlp,
    MlpUsed,
    Model,
    ModelDtype,
    Quiet,
    Seed,
    Threads,
    at_least,
    placed,
)
from circuits.cli.progress_bars import bars
from circuits.cli.tables import console, say
from circuits.cli.weights import show_connections


def blind(
    dictionaries: Dictionaries,
    which: FeatureAsked,
    out: Annotated[Path, typer.Option(help="The JSON file of the case.")],
    hypothesis: Annotated[
        Path | None,
        typer.Option(
            help='A file with what you believe: JSON with text and tokens ([" are"]) or pattern (a '
            "regular expression that the text ends in), or text alone."
        ),
    ] = None,
    run: Annotated[
        Path | None, typer.Option(help="A run: the feature's edges in its graph are shown too.")
    ] = None,
    model: Model = "bundled",
    text: Annotated[
        list[str] | None, typer.Option(help="Text that the hypothesis is tested on, as for train.")
    ] = None,
    tokens: Annotated[int, typer.Option(help="Tokens of --text.")] = 16_384,
    top: Annotated[int, typer.Option(help="Connections of each kind that are shown.")] = 10,
    mlp: MlpUsed = Mlp.transcoder,
    device: Device = None,
    dtype: ModelDtype = None,
    memory: Memory = None,
    threads: Threads = None,
    seed: Seed = 0,
    quiet: Quiet = False,
) -> None:
    """What is a feature about? By its weights alone first; texts once a hypothesis is written.

    Example: `circuits blind bundled mlp_out.4/421 --out case.json`

    Example: `circuits blind bundled mlp_out.4/421 --out case.json --hypothesis mine.json
    --text bundled`
    """
    from circuits.runs.blind import blind_case
    from hooked_qwen.texts import texts_of

    at_least(1, tokens=tokens, top=top)
    if hypothesis is not None and not text:
        raise ValueError("a hypothesis is tested on a text: say which with --text")
    with bars() as report:
        record = blind_case(
            dictionaries,
            which,
            out,
            model=model,
            mlp=mlp.value,
            top=top,
            run=run,
            hypothesis=hypothesis,
            texts=texts_of(text, seed=seed) if text else None,
            tokens=tokens,
            seed=seed,
            placement=placed(device, dtype, memory),
            report=report,
        )
    if record["revealed"] is None:
        show_connections(record["shown"])
        for node in record["shown"].get("edges", []):
            _show_edges(node)
        say(
            f"\ncase {out}, opened {record['opened']}\nnext write what you believe to a file, and "
            "hand it in with --hypothesis FILE --text TEXT: only then are texts shown"
        )
        return
    _show_outcome(record)
    say(f"case {out}")


def _show_edges(node: Mapping[str, Any]) -> None:
    for side, word in (("reads", "reads"), ("is_read_by", "is read by")):
        console.print(Line(f"\n{node['node']} {word}, in the run", style="bold"))
        table = Table.grid(padding=(0, 2))
        for entry in node[side]:
            table.add_row(f"  {entry['weight']:+#.3g}", entry["node"], Line(entry["label"]))
        console.print(table)


def _show_outcome(record: Mapping[str, Any]) -> None:
    from circuits.render.words import readable

    believed, score = record["hypothesis"], record["score"]
    say(f"{record['feature']}: {believed['text']}")
    say(f"written {believed['written']}, texts shown {record['revealed']}")
    if score is not None:
        own, random = score["feature"], score["random"]
        say(
            f"the rule names {score['named']:,} of {score['tokens']:,} tokens; the feature is on at"
            f" {own['on']:,}: precision {_share(own['precision'])}, recall {_share(own['recall'])} "
            f"({_share(own['recall_weighted'])} by activation), F1 {own['f1']:.2f}"
        )
        say(
            f"the same rule for {len(random['f1'])} random features: F1 {_share(random['mean_f1'])}"
            f" on average, {_share(random['best_f1'])} at best; as good: {random['as_good']}"
        )
    table = Table.grid(padding=(0, 1))
    table.add_column(justify="right", no_wrap=True)
    table.add_column(justify="right", no_wrap=True, max_width=40)
    for example in record["examples"]:
        named = {True: "named", False: "not named", None: ""}[example["named"]]
        words = (readable(example[part]) for part in ("before", "token", "after"))
        before, token, after = words
        table.add_row(
            f"{example['activation']:#.3g}", Line(before[-38:]), Line(token, style="bold"),
            Line(after[:30]), named,
        )  # fmt: skip
    console.print(table)


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"
