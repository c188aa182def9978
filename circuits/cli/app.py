"""The `circuits` command: each verb calls one function and prints what it did."""

import logging
import os
import sys
import warnings
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from circuits.cli import dictionaries, estimate, runs
from circuits.cli.options import Device, Force, Memory, ModelDtype, Quiet, Seed, Threads, placed
from circuits.cli.progress_bars import bars
from circuits.cli.tables import console
from hooked_qwen.notices import Notice

# Typer exports one kind of usage error; the others share its base.
UsageError = cast(type[Exception], typer.BadParameter.__bases__[0])

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="Find, prove, edit and draw sparse feature circuits in Qwen language models.",
)


@app.callback()
def options(
    debug: Annotated[bool, typer.Option(help="Show a traceback when something fails.")] = False,
) -> None:
    """Find, prove, edit and draw sparse feature circuits in Qwen language models."""
    if not debug:
        warnings.simplefilter("ignore")
        warnings.simplefilter("once", Notice)
        warnings.showwarning = _say
        logging.getLogger("huggingface_hub").setLevel(logging.CRITICAL)
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")


def _say(message: Warning | str, *_: Any, **__: Any) -> None:
    print(f"note: {' '.join(str(message).split())}", file=sys.stderr)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Where everything goes.")] = Path("demo"),
    device: Device = None,
    dtype: ModelDtype = None,
    memory: Memory = None,
    seed: Seed = 0,
    force: Force = False,
    threads: Threads = None,
    quiet: Quiet = False,
) -> None:
    """The whole main job on the bundled model: train, discover, verify, ablate, render.

    Example: `circuits demo --out demo`
    """
    from circuits.demo import run_demo

    placement = placed(device, dtype, memory)
    with bars() as report:
        lines = run_demo(
            out,
            force=force,
            seed=seed,
            placement=placement,
            command=runs.command_line(),
            report=report,
        )
    for line in lines:
        console.print(line, highlight=False)


def _say_usage(error: Any) -> int:
    """Print one line, or the help of a command that was called with nothing; the exit code."""
    if not error.ctx or not sys.argv[1:] or type(error).__name__ == "NoArgsIsHelpError":
        error.show()
        return error.exit_code
    said = error.format_message()
    if "--text" in sys.argv and ("extra argument" in said or "families" in said.lower()):
        hint = "each --text takes one; for several write --text A --text B"
    else:
        hint = f"{error.ctx.command_path} --help lists what it takes"
    print(f"error: {' '.join(said.split()).rstrip('.')}: {hint}", file=sys.stderr)
    return error.exit_code


app.add_typer(dictionaries.app)
app.add_typer(runs.app)
app.add_typer(estimate.app)


def main() -> None:
    """Run the command; an error is one line on standard error and a non-zero exit code."""
    if "--debug" in sys.argv:
        app()
        return
    try:
        raise SystemExit(app(standalone_mode=False) or 0)
    except UsageError as error:
        raise SystemExit(_say_usage(error)) from None
    except typer.Abort:
        raise SystemExit(1) from None
    except (ValueError, FloatingPointError, OSError, RuntimeError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        raise SystemExit(1) from None
