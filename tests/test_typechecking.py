"""Shapes and types are checked while the suite runs, by the cheaper wrapper as by jaxtyping's."""

import gc
import random
import sys
from collections.abc import Iterator
from dataclasses import FrozenInstanceError, dataclass
from importlib import import_module
from inspect import isfunction, unwrap
from pkgutil import walk_packages
from typing import Any
from weakref import ref

import pytest
import torch
from beartype import beartype
from beartype.roar import BeartypeCallHintViolation
from jaxtyping import AnnotationError, Bool, Float, Int, Shaped, TypeCheckError, _storage
from torch import Tensor

from hooked_qwen.sites import Site
from saes.features import Features
from tests.typechecking import CHECKED, begin_test, checked, fits, look_in_full

REFUSED = (BeartypeCallHintViolation, TypeCheckError)
X, LONGER = torch.zeros(2, 3), torch.zeros(2, 4)


def wrapped(target):
    return checked(target, beartype)


@wrapped
def added(a: Float[Tensor, "rows d"], b: Float[Tensor, "rows d"]) -> Float[Tensor, "rows d"]:
    return a + b


@wrapped
def first(a: Float[Tensor, "rows d"], *, n: int = 1) -> Float[Tensor, " d"]:
    return a[:n].squeeze(0)


@wrapped
def counted(n: int) -> Float[Tensor, " {n}"]:
    return torch.zeros(3)


@wrapped
def called(name: str) -> int:
    return len(name) if name else "nothing"  # pyright: ignore


@wrapped
def named(name: str, other: "list[NotThere] | None" = None) -> list["NotThere"]:  # pyright: ignore
    return [name, other]


@wrapped
def each(a: Float[Tensor, "rows d"]) -> Iterator[Float[Tensor, " d"]]:
    yield from a


@wrapped
def looked_up(a: dict[str, Float[Tensor, "rows d"]] | None) -> list[Int[Tensor, "rows"]]:
    return [x.long()[:, 0] for x in (a or {}).values()]


@wrapped
@dataclass(frozen=True, kw_only=True)
class Pair:
    x: Float[Tensor, "rows d"]
    y: Float[Tensor, "rows d"]

    @wrapped
    def with_x(self, x: Float[Tensor, "rows d"]) -> "Pair":
        return Pair(x=x, y=self.y) if len(x) else "none"  # pyright: ignore


@pytest.mark.parametrize(
    "call",
    [
        lambda: added(X, LONGER),
        lambda: added(X, X.int()),
        lambda: added(X, b=None),
        lambda: first(X, n=2),
        lambda: first(X, n="1"),
        lambda: counted(2),
        lambda: called(5),
        lambda: called(""),
        lambda: named(1),
        lambda: each(X[0]),
        lambda: looked_up({"a": X[0]}),
        lambda: Pair(x=X, y=LONGER),
        lambda: Pair(x=X, y=X).with_x(torch.zeros(0, 3)),
        lambda: Pair(x=X, y=X).with_x("x"),
    ],
)
def test_what_is_not_as_annotated_is_refused(call):
    with pytest.raises(REFUSED):
        call()


def test_what_is_as_annotated_goes_through():
    assert torch.equal(added(X, b=X), X)
    assert first(X).shape == (3,)
    assert counted(3).shape == (3,)
    assert called("abc") == 3
    assert named("a", "b") == ["a", "b"]  # pyright: ignore
    assert len(list(each(X))) == 2
    assert looked_up({"a": X, "b": X})[0].shape == (2,)
    pair = Pair(x=X, y=X).with_x(X + 1)
    assert torch.equal(pair.x, X + 1)
    with pytest.raises(FrozenInstanceError):
        pair.x = X


def test_axes_have_their_sizes_within_one_call_only():
    @wrapped
    def twice(a: Float[Tensor, "rows d"]) -> Float[Tensor, "rows"]:
        assert added(a[:, :2], a[:, :2]).shape[1] == 2
        return added(a, a).sum(1)

    assert twice(X).shape == (2,)
    assert twice(LONGER).shape == (2,)
    with pytest.raises(REFUSED):
        added(X, LONGER)
    assert twice(X).shape == (2,)


def test_a_function_is_checked_in_its_first_calls_of_each_test():
    for _ in range(CHECKED):
        added(X, X)
    assert added(X, X.int()).shape == X.shape
    begin_test()
    with pytest.raises(REFUSED):
        added(X, X.int())


def test_functions_that_a_line_makes_at_each_run_are_counted_together():
    def made():
        @wrapped
        def doubled(x: int) -> int:
            return 2 * x

        return doubled

    for _ in range(CHECKED):
        made()(1)
    assert made()("ab") == "abab"  # pyright: ignore
    begin_test()
    with pytest.raises(REFUSED):
        made()("ab")  # pyright: ignore


def test_dataclasses_of_the_same_fields_are_counted_apart():
    def made(annotation):
        @wrapped
        @dataclass
        class Held:
            x: annotation

        return Held

    one, other = made(int), made(str)
    for _ in range(CHECKED):
        one(1)
    assert one("a").x == "a"  # pyright: ignore
    with pytest.raises(REFUSED):
        other(1)  # pyright: ignore


ANNOTATIONS = [
    *(kind[Tensor, "a b"] for kind in (Float, Int, Bool, Shaped)),
    *(Float[Tensor, axes] for axes in ("", "a a", "a 3", "_ b", "a=2 3 b", "#a b", "a b-1", "b-1")),
    *(
        Float[Tensor, axes]
        for axes in (
            "...",
            "*rows",
            "*rows b",
            "a *rows",
            "a ... b",
            "*#rows b",
            "#a a",
            "*#rows #b",
        )
    ),
    Float[Any, "a b"],
]
VALUES = [
    *(torch.zeros(sizes) for sizes in ((), (2,), (2, 3), (3, 3), (1, 3), (2, 3, 4), (2, 3, 3))),
    torch.nn.Parameter(torch.zeros(2, 3)),
    *(torch.zeros(2, 3, dtype=kind) for kind in (torch.int32, torch.bool, torch.bfloat16)),
    None,
    X.numpy(),
]


@pytest.mark.parametrize("seed", range(8))
def test_a_tensor_fits_where_jaxtyping_finds_that_it_does_and_is_remembered_alike(seed):
    draw = random.Random(seed)
    looks = [(draw.choice(ANNOTATIONS), draw.choice(VALUES)) for _ in range(400)]
    # Begun anew now and then: few shapes go together.
    again = [draw.random() < 0.2 for _ in looks]

    def seen(look):
        found = []
        _storage.push_shape_memo({})
        try:
            for (annotation, value), anew in zip(looks, again, strict=True):
                if anew:
                    _storage.pop_shape_memo()
                    _storage.push_shape_memo({})
                try:
                    found.append(look(annotation, value))
                except AnnotationError:
                    found.append("a sum of what has no size yet")
                found.append([dict(memo) for memo in _storage.get_shape_memo()])
        finally:
            _storage.pop_shape_memo()
        return found

    expected = seen(look_in_full)
    assert seen(fits) == expected
    assert {True, False} <= {answer for answer in expected if isinstance(answer, bool)}


def test_functions_made_by_one_line_of_code_are_each_checked_and_none_is_kept():
    def adding(n, hint=int):
        held = Held()

        @wrapped
        def added(a: hint, *, to: Float[Tensor, "rows"]) -> Float[Tensor, "rows"]:
            return held.given(to + a + n, a)

        return added, ref(held)

    for n in (1, 2):
        function, _ = adding(n)
        assert function(1, to=torch.zeros(2)).tolist() == [n + 1, n + 1]
        for wrong in (lambda f=function: f("1", to=X[0]), lambda f=function: f(1, to=X)):
            with pytest.raises(REFUSED):
                wrong()
        with pytest.raises(REFUSED):
            function(7, to=X[0])
    function, held = adding(3, str)
    with pytest.raises(REFUSED):
        function(1, to=X[0])
    del function
    gc.collect()
    assert held() is None
    first, held = adding(1)
    del first
    gc.collect()
    assert held() is None


class Held:
    def given(self, found, a):
        """Seven is answered by what it must not be."""
        return found[:, None] if a == 7 else found


def test_a_function_without_annotations_stays_what_it_is():
    def plain(x):
        return x

    assert wrapped(plain) is plain


def test_the_code_under_test_is_checked():
    with pytest.raises(REFUSED):
        Site.parse(3)  # pyright: ignore
    with pytest.raises(REFUSED):
        Features.of_coordinates("x")  # pyright: ignore


@pytest.mark.parametrize("package", ["hooked_qwen", "saes", "transcoders", "circuits"])
def test_every_annotated_function_of_the_packages_is_checked(package):
    root = import_module(package)
    modules = [import_module(m.name) for m in walk_packages(root.__path__, package + ".")]
    missed = [
        f"{module.__name__}.{name}"
        for module in modules
        for name, found in vars(module).items()
        if is_own(found, module.__name__) and unwrap(found) is found
    ]
    assert missed == []


def is_own(found: object, module: str) -> bool:
    """Whether this is a function of the module with something to check."""
    return (
        isfunction(found)
        and found.__module__ == module
        and any(hint not in (Any, object) for hint in found.__annotations__.values())
    )


def test_it_is_the_cheaper_wrapper_that_checks_them():
    """jaxtyping's own keeps its name in the code of what it returns."""
    assert "jaxtyping" not in Site.parse.__func__.__code__.co_filename


def test_what_checked_modules_import_is_read_from_its_own_compiled_files():
    compiled = {name: str(vars(m).get("__cached__")) for name, m in sys.modules.items()}
    assert "hooked_qwen.sites" in compiled
    assert [name for name, path in compiled.items() if ".opt-jaxtyping" in path] == []
