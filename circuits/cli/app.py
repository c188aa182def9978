"""The `circuits` command: each verb calls one function and prints what it did."""

import logging
import os
import sys
import warnings
from collections.abc import Callable, Mapping
from typing import Annotated, Any, cast

import typer

from circuits.cli import (
    blind,
    checks,
    classify,
    cover,
    demo,
    describe,
    dictionaries,
    discovery,
    edits,
    elsewhere,
    estimate,
    features,
    labels,
    prompts,
    render,
    rerun,
    runs,
    search,
    shift,
    steer,
    synthesise,
    training,
    tune,
    weights,
)
from hooked_qwen.notices import Notice

# Typer exports one kind of usage error; the others share its base.
UsageError = cast(type[Exception], typer.BadParameter.__bases__[0])

ABOUT = "Find, prove, edit and draw sparse feature circuits in Qwen language models."
VerbFunction = Callable[..., None]
VERBS: Mapping[str, VerbFunction | Mapping[str, VerbFunction]] = {
    "demo": demo.demo,
    "train": training.train,
    "cache": training.cache,
    "evaluate": dictionaries.evaluate,
    "feature": features.feature,
    "suite": features.suite,
    "features": {"search": search.search},
    "classify": classify.classify,
    "detect": classify.detect,
    "cover": cover.cover,
    "steer": steer.steer,
    "synthesise": synthesise.synthesise,
    "tune": tune.tune,
    "reinforce": tune.reinforce,
    "weights": weights.weights,
    "blind": blind.blind,
    "labels": labels.labels,
    "describe": describe.describe,
    "convert": dictionaries.convert,
    "discover": discovery.discover,
    "verify": runs.verify,
    "ablate": runs.ablate,
    "specificity": checks.specificity,
    "stability": checks.stability,
    "sufficiency": checks.sufficiency,
    "edit": {
        "make": edits.make_edit,
        "show": edits.show_edit,
        "apply": rerun.apply_edit,
        "bake": edits.bake_edit,
    },
    "shift": shift.shift,
    "compare": runs.compare,
    "render": render.render,
    "report": elsewhere.report,
    "import": elsewhere.import_graph,
    "prompts": {"make": prompts.make_prompts, "list": prompts.list_prompts},
    "estimate": estimate.estimate,
}
"Every verb in the order of `--help`; a group has verbs of its own."
GROUPS = {
    "features": "What features are for: finding them.",
    "edit": "Edits as files: features set, moved or cut, in whatever the model runs.",
    "prompts": "Prompt sets of our own making.",
}


def command_line_of(verbs: Mapping[str, VerbFunction | Mapping[str, VerbFunction]]) -> typer.Typer:
    """The command with these verbs."""
    made = typer.Typer(
        add_completion=False,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode="markdown",
        help=ABOUT,
    )
    made.callback()(options)
    for name, verb in verbs.items():
        if isinstance(verb, Mapping):
            group = typer.Typer(no_args_is_help=True, help=GROUPS.get(name))
            for part, of_group in verb.items():
                group.command(part)(of_group)
            made.add_typer(group, name=name)
        else:
            # Without a name its verb is the command's own; typer lists plain verbs before groups.
            lone = typer.Typer()
            lone.command(name)(verb)
            made.add_typer(lone)
    return made


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


def _say_usage(error: Any) -> int:
    """Print one line, or the help of a command that was called with nothing; the exit code."""
    if not error.ctx or not sys.argv[1:] or type(error).__name__ == "NoArgsIsHelpError":
        error.show()
        return error.exit_code
    said = error.format_message().replace("Value error, ", "")
    if "--text" in sys.argv and ("extra argument" in said or "families" in said.lower()):
        hint = "each --text takes one; for several write --text A --text B"
    else:
        hint = f"{error.ctx.command_path} --help lists what it takes"
    print(f"error: {' '.join(said.split()).rstrip('.')}: {hint}", file=sys.stderr)
    return error.exit_code


app = command_line_of(VERBS)


def main(command: typer.Typer | None = None) -> None:
    """Run the command; an error is one line on standard error and a non-zero exit code."""
    command = app if command is None else command
    if "--debug" in sys.argv:
        command()
        return
    try:
        raise SystemExit(command(standalone_mode=False) or 0)
    except UsageError as error:
        raise SystemExit(_say_usage(error)) from None
    except typer.Abort:
        raise SystemExit(1) from None
    except (ValueError, FloatingPointError, OSError, RuntimeError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        raise SystemExit(1) from None
