"""The bundled model's card, filled in from a run's report."""

from typing import Any

TARGET = 0.95
_CARD = """---
license: mit
language: en
library_name: transformers
tags: [qwen3, mechanistic-interpretability, toy]
---

# The bundled model

A Qwen3 of {parameters:,} parameters ({layers} layers, width {width}, {heads} query heads on
{kv_heads} key-value heads, tied embeddings, bfloat16), trained from scratch on text made by
`hooked_qwen.bundled.language`. It ships with qwen-circuits so that every command runs without a
download, and so that circuits can be looked for where the right answer is known.

## What it can do

Held-out accuracy: the share of prompts where the right next token beats the wrong one. Top-1: the
share where it beats every token; below 100 % where several continuations are right, as any verb is
after *The keys* and any later year in *greater_than*. Every prompt uses a combination of words
that the training text never has (nouns with verbs, names with objects, towns with a capital ...).

| family | held-out accuracy | top-1 | n |
|---|---|---|---|
{rows}

In `two_step` the capital of a town's region is asked for towns of which training text says only
in which region they lie.

## What it cannot do

{hard}

It knows about two thousand words and twelve kinds of sentence; other English is noise to it. The
tokenizer takes any text and loses none of it, but words outside the lexicon fall into pieces the
model has hardly seen. It was trained on {text[length]} positions and no further. Prompts start
without any token before them (there is no BOS); `<|endoftext|>` separates, ends and pads.

## How it was made

First {rounds[tokens]:,} tokens of words said over and over, so that the heads that copy form,
then {text[tokens]:,} tokens of everything, {text[length]} to a row, each seen once. AdamW, peak
rates {rounds[rate]} and {text[rate]}; the forward pass in bfloat16; {minutes:.0f} minutes on one
thread. `python -m experiments.bundled_model.run` makes it again.

All text is generated from word lists written for this project: no data of others, no personal
data. Licence: MIT, as the project.
"""


def _hard(families: dict[str, dict[str, float]]) -> str:
    """Which families miss the target, in a sentence."""
    missed = [f"`{task}`" for task, score in families.items() if score["accuracy"] < TARGET]
    if not missed:
        return f"Every family reaches {TARGET:.0%}."
    return (
        f"Still hard, under {TARGET:.0%} held out: {' and '.join(missed)}. Do not look for their "
        "circuits here: the model guesses."
    )


def card(report: dict[str, Any]) -> str:
    """The card as Markdown."""
    rows = "\n".join(
        f"| {task} | {score['accuracy']:.1%} | {score['top_1']:.1%} | {score['n']} |"
        for task, score in report["families"].items()
    )
    facts = {
        **report,
        **report["recipe"],
        "rows": rows,
        "hard": _hard(report["families"]),
        "minutes": report["seconds"] / 60,
    }
    return _CARD.format(**facts)
