"""Prompt sets of tasks, and what `discover` takes by default for prompts that it is given."""

from collections.abc import Sequence
from pathlib import Path

from circuits import tasks
from circuits.baseline_values import BaselineValue
from circuits.prompts import (
    Positions,
    Prompt,
    WhenUnfit,
    encode_prompts,
    prompt_lines,
    write_prompts,
)
from circuits.runs.overwrite import (
    check_text,
)
from hooked_qwen.load import load_tokenizer
from hooked_qwen.tokens import Bos


def make_prompts(
    task: str,
    n: int,
    *,
    split: tasks.Split,
    seed: int,
    model: str,
    out: Path,
    force: bool = False,
) -> list[Prompt]:
    """Write a prompt set for `model`: in the language that it knows.

    Raises `ValueError` for an unknown task, where the tokenizer knows too few words, and where
    `out` holds something else.
    """
    prompts = tasks.make_for(model, task, n, split=split, seed=seed)
    encode_prompts(prompts, load_tokenizer(model), positions="sum")
    check_text(out, prompt_lines(prompts), force=force)
    write_prompts(prompts, out)
    return prompts


def one_prompt(
    clean: str, patch: str | None, answers: Sequence[str], wrongs: Sequence[str]
) -> Prompt:
    """A prompt given on the command line."""
    return Prompt(clean=clean, patch=patch, answer=tuple(answers), wrong=tuple(wrongs))


def reference_for(prompts: Sequence[Prompt]) -> BaselineValue:
    """What nodes are set to by default: the patch prompts', zero where there are none."""
    return "patch" if any(p.patch is not None for p in prompts) else "zero"


def positions_for(prompts: Sequence[Prompt], model: str, bos: Bos, unfit: WhenUnfit) -> Positions:
    """Kept apart where all prompts have one length; else lined up at their last tokens."""
    tokenizer = load_tokenizer(model)
    encoded = encode_prompts(prompts, tokenizer, positions="sum", bos=bos, unfit=unfit)
    shortest, longest = encoded.lengths
    return "keep" if shortest == longest else "end"
