"""Tasks in Python: the next argument to document, the bracket to close, the value of a name."""

from itertools import permutations

from circuits.tasks.choice import Choice
from circuits.tasks.dealing import Arrangements
from circuits.tasks.words import DIGITS, IDENTIFIERS
from hooked_qwen.families import PromptPair, Template, swap

BRACKETS = ("()", "[]", "{}")
ORDINALS = ("first", "second", "third")


def docstring(choice: Choice) -> tuple[Template, ...]:
    """The argument that a docstring comes to next: `:param size: ...  :param` -> the third one.

        def load(self, file, size, host, port):
            \"\"\"Return the result.

            :param file: the name
            :param size: the limit
            :param

    The patch lists the last two arguments the other way round, so port is right there.

    Source: Heimersheim & Janiak 2023, "A circuit for Python docstrings in a 4-layer
    attention-only transformer".
    Differs: wrong is the argument that follows, where they compare with every other name.
    """

    def build(names: tuple[str, ...]) -> PromptPair:
        method, first, second, third, fourth, one, other = names
        signature = f"def {method}(self, {first}, {second}, {{}}, {{}}):\n"
        documented = f"    :param {first}: the {one}\n    :param {second}: the {other}\n"
        return swap(
            lambda last: (
                f'{signature.format(*last)}    """Return the result.\n\n{documented}    :param'
            ),
            ((third, fourth), (fourth, third)),
            (f" {third}", f" {fourth}"),
        )

    names = Arrangements(choice.pick("identifiers", IDENTIFIERS), 7)
    return (Template(case="third argument", pools=(names,), build=build),)


def brackets(choice: Choice) -> tuple[Template, ...]:
    """The bracket that is still open is the one to close, not the one closed last.

        sizes = [
            left,
            (
                top,
                right,
            ),
            bottom,

    asks for ]; the patch opens another bracket in the first line. The bracket inside is of the
    third kind.

    Source: our own; the language is that of Yao et al. 2021, arXiv:2105.11115.
    """

    def build(outer: tuple[str, str], names: tuple[str, ...]) -> PromptPair:
        [inner] = set(BRACKETS) - set(outer)
        return swap(lambda kind: _nested(kind[0], inner, names), outer, [kind[1] for kind in outer])

    names = Arrangements(choice.pick("identifiers", IDENTIFIERS), 5)
    return tuple(
        Template(case=f"{a} not {b}", pools=(((a, b),), names), build=build)
        for a, b in permutations(BRACKETS, 2)
    )


def _nested(opened: str, inner: str, names: tuple[str, ...]) -> str:
    name, first, deep, deeper, last = names
    return (
        f"{name} = {opened}\n    {first},\n    {inner[0]}\n        {deep},\n        {deeper},\n"
        f"    {inner[1]},\n    {last},\n"
    )


def variable(choice: Choice) -> tuple[Template, ...]:
    """The value that a name was given, at the Python prompt.

        >>> left = 3
        >>> right = 7
        >>> top = 5
        >>> right

    asks for 7; the patch asks for another of the three names.

    Source: Davies et al. 2023, arXiv:2307.03637; Feng & Steinhardt 2023, arXiv:2310.17191.
    Differs: the names are given no arithmetic, and the patch swaps which one is asked for.
    """

    def build(
        asked: tuple[int, int], names: tuple[str, ...], values: tuple[str, ...]
    ) -> PromptPair:
        lines = "".join(f">>> {n} = {v}\n" for n, v in zip(names, values, strict=True))
        return swap(lambda i: f"{lines}>>> {names[i]}\n", asked, [values[i] for i in asked])

    pools = (
        Arrangements(choice.pick("identifiers", IDENTIFIERS), 3),
        Arrangements(choice.pick("digits", DIGITS, before=""), 3),
    )
    return tuple(
        Template(case=f"{ORDINALS[a]} not {ORDINALS[b]}", pools=(((a, b),), *pools), build=build)
        for a, b in permutations(range(3), 2)
    )
