"""How much of a concept a text has, and how much of it repeats itself: scores of what was written.

    regex      1 where a pattern matches, else 0
    script     share of a text's letters that are of one writing system; NaN of a text without any
    language   P(one of some languages) among the 140 of py3langid; NaN of a text without letters
    probe      P(positive) by logistic regression on the residual stream's mean over the text
    means      (x - m0) . (m1 - m0) / |m1 - m0|^2 of that mean x: 0 at the mean of the negative
               texts, 1 at that of the positive ones

The two at the bottom are fitted on example texts and read the model as it is, the text alone: what
stood before it does not count. All lie in 0 to 1, or are cut to it where they are combined.

    repetition = 1 - different n-grams of tokens / n-grams        n = 4

Source of the latter: Welleck et al. 2019, arXiv:1908.04319 (seq-rep-4).

Axes: `texts`; `d` the width of the stream.
"""

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from math import nan
from typing import Any

import torch
from einops import einsum
from jaxtyping import Bool, Float
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from hooked_qwen.forward import run_through
from hooked_qwen.hooks import capture
from hooked_qwen.sites import Site
from hooked_qwen.stream import mean_weights
from hooked_qwen.tokens import by_length, encode_prompt
from saes.evaluation.probing import logistic, standardised
from saes.evaluation.splice import unpadded
from saes.scope.activity import LONGEST, TOKENS_PER_PASS

SCRIPTS: dict[str, tuple[str, ...]] = {
    "cjk": ("CJK", "HIRAGANA", "KATAKANA", "HANGUL", "BOPOMOFO", "IDEOGRAPHIC"),
    "han": ("CJK", "IDEOGRAPHIC"),
    "kana": ("HIRAGANA", "KATAKANA"),
    "hangul": ("HANGUL",),
    "latin": ("LATIN", "FULLWIDTH LATIN"),
    "cyrillic": ("CYRILLIC",),
    "arabic": ("ARABIC",),
    "greek": ("GREEK",),
    "hebrew": ("HEBREW",),
    "devanagari": ("DEVANAGARI",),
    "thai": ("THAI",),
}
"How the Unicode names of a script's letters begin."
N = 4
"Tokens of an n-gram."
SHOWN = 60
"Characters of a pattern that are told at most."
TextScore = Callable[[Sequence[str]], Float[Tensor, " texts"]]


@dataclass(frozen=True, kw_only=True)
class Scorer:
    """How much of a concept texts have."""

    name: str
    "as it was asked for, such as `script:cjk`"
    said: str
    "what it says, in words"
    of: TextScore


@dataclass(frozen=True, kw_only=True, eq=False)
class LabelledTextMeans:
    """The mean of a site's tensor over each of some texts, and how more texts are read."""

    means: Float[Tensor, "texts d"]
    positive: Bool[Tensor, " texts"]
    site: Site
    reader: Callable[[Sequence[str]], Float[Tensor, "texts d"]]
    "the same mean of other texts; a row of NaN for one without tokens"


@torch.no_grad()
def mean_of_texts(
    model: TransformerBridge, site: Site, texts: Sequence[str]
) -> Float[Tensor, "texts d"]:
    """The mean of a site's tensor over each text, norm outliers left out; NaN of no tokens."""
    rows = [encode_prompt(model.tokenizer, text)[:LONGEST] for text in texts]
    there = [i for i, row in enumerate(rows) if row]
    found: list[tuple[Tensor, Tensor]] = []
    for index, tokens in by_length([rows[i] for i in there], TOKENS_PER_PASS // LONGEST):
        with capture(model, {site}) as seen:
            run_through(model, unpadded(tokens), site.layer)
        x = seen[site].float()
        shares = mean_weights(x, torch.ones_like(x[..., 0], dtype=torch.bool)).to(x)
        means = einsum(shares, x, "text pos, text pos d -> text d").cpu()
        found.append((torch.tensor([there[i] for i in index]), means))
    width = found[0][1].shape[1] if found else model.cfg.d_model
    every = torch.full((len(texts), width), torch.nan)
    for index, means in found:
        every[index] = means
    return every


def by_regex(pattern: str) -> Scorer:
    """Whether a pattern matches anywhere; raises `ValueError` for one that is none."""
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ValueError(f"{pattern} is no regular expression: {error}") from None

    def of(texts: Sequence[str]) -> Tensor:
        found = [float(compiled.search(text) is not None) for text in texts]
        return torch.tensor(found, dtype=torch.float64)

    line = " ".join(pattern.split())
    shown = line if len(line) <= SHOWN else line[: SHOWN - 1] + "…"
    return Scorer(name=f"regex:{pattern}", said=f"share of texts that match {shown}", of=of)


def by_script(script: str) -> Scorer:
    """The share of letters of a script; raises `ValueError` listing those there are."""
    if script not in SCRIPTS:
        raise ValueError(f"no script is called {script!r}: expected one of {', '.join(SCRIPTS)}")

    def of(texts: Sequence[str]) -> Tensor:
        found = [script_share(text, script) for text in texts]
        return torch.tensor(found, dtype=torch.float64)

    return Scorer(name=f"script:{script}", said=f"share of letters that are {script}", of=of)


def script_share(text: str, script: str) -> float:
    """The share of a text's letters that are of a script.

    NaN of a text without letters, which is in no script and not in another one either.
    """
    letters = [unicodedata.name(c, "") for c in text if c.isalpha()]
    found = sum(name.startswith(SCRIPTS[script]) for name in letters)
    return found / len(letters) if letters else nan


def by_language(codes: str) -> Scorer:
    """The probability of languages, by their ISO 639 codes with commas between: `zh,yue,wuu`.

    Of a text of a few words the first guess is often wrong and its probability low.

    Raises `ValueError` listing those there are.

    Source: Lui & Baldwin 2012, langid.py (naive Bayes over sequences of bytes), by py3langid.
    """
    asked, known = codes.split(","), languages().labels
    if unknown := [code for code in asked if code not in known]:
        raise ValueError(
            f"no language has the code {unknown[0]!r}: expected some of {', '.join(sorted(known))}"
        )

    def of_text(text: str) -> float:
        if not any(map(str.isalpha, text)):
            return nan
        return sum(p for code, p in languages().rank(text) if code in asked)

    def of(texts: Sequence[str]) -> Tensor:
        return torch.tensor(list(map(of_text, texts)), dtype=torch.float64)

    said = f"probability that a text is in {' or '.join(asked)}"
    return Scorer(name=f"language:{codes}", said=said, of=of)


@cache
def languages() -> Any:
    """What tells languages apart; a second to load."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


def by_probe(read: LabelledTextMeans) -> Scorer:
    """The probability that a linear probe gives to a text being one of the positive ones."""
    x = read.means.double()
    every = torch.ones_like(read.positive)
    w, b = logistic(standardised(x, every), read.positive)
    spread = x.std(0, correction=0)
    scale = torch.where(spread > 0, 1 / spread.clamp_min(1e-30), 0.0)

    def of(texts: Sequence[str]) -> Tensor:
        z = (read.reader(texts).double() - x.mean(0)) * scale
        return (z @ w + b).sigmoid().nan_to_num(0.0)

    said = f"probability of the positive kind by a probe of {read.site}"
    return Scorer(name="probe", said=said, of=of)


def by_means(read: LabelledTextMeans) -> Scorer:
    """How far a text lies from the mean of the negative ones to that of the positive ones."""
    x = read.means.double()
    zero, one = x[~read.positive].mean(0), x[read.positive].mean(0)
    way = one - zero

    def of(texts: Sequence[str]) -> Tensor:
        along = (read.reader(texts).double() - zero) @ way / way.square().sum().clamp_min(1e-30)
        return along.nan_to_num(0.0)

    said = f"place between the two means of {read.site}: 0 negative, 1 positive"
    return Scorer(name="means", said=said, of=of)


def repetition(tokens: Sequence[Any], n: int = N) -> float:
    """The share of n-grams that came before; 0 of a text with fewer than two."""
    grams = [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0
