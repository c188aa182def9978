"""How far single words give a class away, and what deleting them leaves.

A bag of words is a logistic regression on which words a text holds. It knows no synonyms and
only the words that it was trained on, so what it reads is there in the words themselves; a model
can read more, such as a first name that no text trained on holds.

Axes: `texts`, `words` those of the texts trained on.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Literal

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from circuits.shift.labelled import LabelledText, ShiftData, only_words, without_words
from saes.evaluation.bootstrap import ratio_interval
from saes.evaluation.probing import logistic

LabelledTexts = Sequence[LabelledText]


def leaks(
    data: ShiftData, trained_on: Literal["balanced_train", "ambiguous"] = "balanced_train"
) -> pd.DataFrame:
    """Accuracy of a bag of words on `balanced`, for the label and for the spurious class.

    One row for the texts as they are, then for each kind of cue the texts without its words, and
    its words alone. `texts` is the share of texts that hold a word of the cue, `worst` the
    label's accuracy in the group where it is lowest, `low` and `high` are 95 % intervals by
    bootstrap over texts.
    """
    kinds = dict(zip(data.cues, data.words, strict=True))
    if len(kinds) > 1:
        kinds["all cues"] = tuple(word for words in data.words for word in words)
    train, test = getattr(data, trained_on), data.balanced
    rows = [{"read": "all words", "texts": 1.0, **_accuracies(train, test, str)}]
    for kind, words in kinds.items():
        share = sum(bool(only_words(x.text, words)) for x in test) / len(test)
        ways = {
            f"without {kind}": partial(without_words, words=words),
            f"{kind} alone": partial(only_words, words=words),
        }
        rows += [
            {"read": read, "texts": share, **_accuracies(train, test, change)}
            for read, change in ways.items()
        ]
    return pd.DataFrame(rows).set_index("read")


def _accuracies(
    train: LabelledTexts, test: LabelledTexts, change: Callable[[str], str]
) -> dict[str, float]:
    """What a bag of words gets right of changed texts, trained on texts changed alike."""
    train, test = ([replace(x, text=change(x.text)) for x in part] for part in (train, test))
    known = sorted({word for x in train for word in _words(x.text)})
    z, z_test = (_presence([x.text for x in part], known) for part in (train, test))
    found: dict[str, float] = {}
    for name in ("label", "spurious"):
        positive, wanted = (
            torch.tensor([bool(getattr(x, name)) for x in part]) for part in (train, test)
        )
        w, b = logistic(z, positive)
        right = ((z_test @ w + b > 0) == wanted).double()
        low, high = ratio_interval(right, torch.ones_like(right)) or (float("nan"),) * 2
        found |= {name: float(right.mean()), f"{name} low": low, f"{name} high": high}
        if name == "label":
            found["worst"] = _worst_group(right, test)
    return found


def _worst_group(right: Float[Tensor, " texts"], test: LabelledTexts) -> float:
    groups = torch.tensor([2 * x.label + x.spurious for x in test])
    return min(float(right[groups == group].mean()) for group in groups.unique())


def _presence(texts: Sequence[str], known: Sequence[str]) -> Float[Tensor, "texts words"]:
    """1 where a text holds a word, else 0."""
    places = {word: i for i, word in enumerate(known)}
    z = torch.zeros(len(texts), len(known), dtype=torch.float64)
    for row, text in enumerate(texts):
        z[row, [places[word] for word in _words(text) if word in places]] = 1
    return z


def _words(text: str) -> set[str]:
    return set(re.findall(r"[\w']+|[^\w\s]", text.lower()))
