"""The scores of texts by the names that they are asked for by, such as `script:cjk`.

regex:PATTERN, script:NAME, language:CODE     of the text alone, `saes.scope.text_scores`
behaviour:NAME                                of its tokens, `saes.scope.behaviour`
probe, means                                  fitted on example texts, `saes.scope.text_scores`
"""

from collections.abc import Callable
from typing import Any

from saes.scope.behaviour import by_behaviour
from saes.scope.text_scores import (
    SCRIPTS,
    LabelledTextMeans,
    Scorer,
    by_language,
    by_means,
    by_probe,
    by_regex,
    by_script,
)

OF_TEXT: dict[str, Callable[[str], Scorer]] = {
    "regex": by_regex,
    "script": by_script,
    "language": by_language,
}
"Scorers that take an argument and need no examples."
OF_TOKENS: dict[str, Callable[[str, Any], Scorer]] = {"behaviour": by_behaviour}
"Those that also take a tokenizer."
FITTED: dict[str, Callable[[LabelledTextMeans], Scorer]] = {"probe": by_probe, "means": by_means}
"Scorers that are fitted on example texts."


def kind_of_scorer(name: str) -> tuple[str, str]:
    """The kind and the argument of a scorer; raises `ValueError` saying which there are."""
    kind, _, argument = name.partition(":")
    if (kind in OF_TEXT | OF_TOKENS and argument) or (kind in FITTED and not argument):
        return kind, argument
    raise ValueError(
        f"there is no score {name!r}: expected regex:PATTERN, script:NAME "
        f"(NAME is one of {', '.join(SCRIPTS)}), language:CODE (such as de), behaviour:NAME (such "
        f"as cjk), {' or '.join(FITTED)}"
    )


def unfitted(name: str, tokenizer: Any) -> Scorer | None:
    """The scorer of that name, None where it is fitted on examples.

    Raises `ValueError` for a name, a pattern, a script, a language or a behaviour that is none.
    """
    kind, argument = kind_of_scorer(name)
    if kind in FITTED:
        return None
    return OF_TEXT[kind](argument) if kind in OF_TEXT else OF_TOKENS[kind](argument, tokenizer)
