"""A cheaper `jaxtyping.jaxtyped` for `--jaxtyping-packages`, which puts it around every function.

jaxtyping's own takes a call's arguments apart by `inspect` and checks them twice, before the call
and again beside what it returned, also where no annotation has an axis: up to a third of a test's
time. Here one beartype wrapper checks arguments and result, in a scope of axis sizes of its own
where an annotation has axes. A tensor that is as annotated is let through by `fits`; jaxtyping
itself, which writes dtypes out and copies its record of sizes at each look, says what is wrong with
another: a quarter of a test's time. A function is checked in its first calls of each test: another
tenth of the time of tests that call it thousands of times.
"""

import inspect
import typing
from collections.abc import Callable, Iterator, Sequence
from dataclasses import is_dataclass
from functools import lru_cache, partial, update_wrapper, wraps
from importlib.machinery import SourceFileLoader
from types import CellType, CodeType, FunctionType, SimpleNamespace
from typing import Any
from unittest.mock import patch

import jaxtyping
from jaxtyping import _import_hook, _storage

Checker = Callable[[Callable], Callable]
in_full = jaxtyping.jaxtyped
look_in_full = type(jaxtyping.AbstractArray).__instancecheck__
CHECKED = 20
"Calls of a function that are checked in each test."
MADE: dict[CodeType, tuple[Any, Any, Any]] = {}
LEFT: dict[int, tuple[CodeType, list[int]]] = {}
"By the address of code: the code, and how many of its calls are still to be checked."
CALLED: list[list[int]] = []
"Those numbers that are of functions called in this test."
FORMS: dict[type, "Form"] = {}
SCOPES = _storage._shape_storage
"Of this thread: `memo_stack` holds the sizes of names in each call."


def install() -> None:
    """To be called before the packages that are checked are imported."""
    jaxtyping.jaxtyped = jaxtyped
    type(jaxtyping.AbstractArray).__instancecheck__ = fits
    # One annotation for the same text, which is known again; jaxtyping makes another each time.
    kind = type(jaxtyping.Float)
    kind.__getitem__ = lru_cache(maxsize=None)(kind.__getitem__)
    _import_hook._JaxtypingLoader.get_code = code_of
    _import_hook._JaxtypingLoader.exec_module = SourceFileLoader.exec_module


def code_of(loader: Any, name: str) -> CodeType | None:
    """A checked module's code, whose compiled file has a name of its own.

    jaxtyping's loader gives out that name for as long as the module runs, so that torch and all
    else that it is the first to import is compiled again: half the time until the first test.
    """
    own = partial(_import_hook._optimized_cache_from_source, loader._typechecker.get_hash())
    with patch("importlib._bootstrap_external.cache_from_source", own):
        return SourceFileLoader.get_code(loader, name)


def jaxtyped(*, typechecker: Checker) -> Callable[[Any], Any]:
    return partial(checked, typechecker=typechecker)


def checked(target: Any, typechecker: Checker) -> Any:
    """A function that raises where arguments or result are not as annotated; so a dataclass."""
    if isinstance(target, type):
        made = vars(target).get("__init__")
        # A method that somebody wrote has been seen on its own.
        if is_dataclass(target) and made and not hasattr(made, "__wrapped__"):
            target.__init__ = checked(made, typechecker)
        return target
    return at_first(target, typechecker) if target.__annotations__ else target


def begin_test() -> None:
    """Every function is checked again from its first call on."""
    for left in CALLED:
        left[0] = CHECKED
    CALLED.clear()


def at_first(function: Callable, typechecker: Checker) -> Callable:
    """Checked in the first calls of each test: those that follow in a loop are like them.

    Functions that a line of code makes at each run are counted together. The check is made when it
    is first needed: many functions are never called, and a class that its own methods name is
    there by then.
    """
    whole = None
    code = inspect.unwrap(function).__code__
    left = LEFT.setdefault(id(code), (code, [CHECKED]))[1]

    @wraps(function)
    def call(*args, **kwargs):
        if not left[0]:
            return function(*args, **kwargs)
        nonlocal whole
        if left[0] == CHECKED:
            CALLED.append(left)
        left[0] -= 1
        if whole is None:
            whole = always_checked(function, typechecker)
        return whole(*args, **kwargs)

    return call


def always_checked(function: Callable, typechecker: Checker) -> Callable:
    """Checked at every call, in a scope of sizes of its own where an annotation has axes."""
    if "{" in str([*function.__annotations__.values()]):
        # Sizes that are computed from arguments.
        return in_full(function, typechecker=typechecker)
    annotations = evaluated(function)
    unknown = any(
        value is Any is not function.__annotations__[name] for name, value in annotations.items()
    )
    # beartype checks a generator's arguments when it is first asked for a value.
    if unknown or inspect.isgeneratorfunction(function):
        function = calling(function)
        function.__annotations__ = annotations
    whole = checker_of(function, typechecker)
    return in_scope(whole) if any(map(has_axes, annotations.values())) else whole


def checker_of(target: Callable, typechecker: Checker) -> Callable:
    """`typechecker(target)`, made once for the functions that a line of code makes at each run.

    beartype's wrapper finds the function it calls among its keyword defaults.
    """
    if target.__closure__ is None or hasattr(target, "__wrapped__"):
        return typechecker(target)
    if target.__defaults__ or target.__kwdefaults__:
        return typechecker(target)
    told, bare, whole = MADE.get(target.__code__, (None, None, None))
    if told != target.__annotations__:
        # Without what it has of its surroundings, which would be kept with it.
        cells = tuple(CellType() for _ in target.__closure__)
        bare = FunctionType(target.__code__, target.__globals__, target.__name__, None, cells)
        bare.__annotations__ = dict(target.__annotations__)
        bare.__qualname__, bare.__module__ = target.__qualname__, target.__module__
        whole = typechecker(bare)
        MADE[target.__code__] = (bare.__annotations__, bare, whole)
    defaults = whole.__kwdefaults__ or {}
    if bare not in defaults.values():
        return typechecker(target)
    twin = FunctionType(
        whole.__code__, whole.__globals__, whole.__name__, whole.__defaults__, whole.__closure__
    )
    update_wrapper(twin, target)
    twin.__kwdefaults__ = {k: target if v is bare else v for k, v in defaults.items()}
    return twin


def evaluated(function: Callable) -> dict[str, Any]:
    """A function's annotations; `Any` for what is not defined where the function is."""
    found = resolved(function.__annotations__, function)
    if found is not None:
        return found
    return {
        name: (resolved({name: value}, function) or {name: Any})[name]
        for name, value in function.__annotations__.items()
    }


def resolved(annotations: dict[str, Any], function: Callable) -> dict[str, Any] | None:
    """Annotations without quotes; `None` where one names what only type checkers import."""
    holder = SimpleNamespace(__annotations__=annotations)
    try:
        return typing.get_type_hints(holder, function.__globals__, include_extras=True)
    except NameError:
        return None


def calling(function: Callable) -> Callable:
    @wraps(function)
    def call(*args, **kwargs):
        return function(*args, **kwargs)

    return call


def has_axes(annotation: Any) -> bool:
    if isinstance(annotation, type) and issubclass(annotation, jaxtyping.AbstractArray):
        return True
    return any(map(has_axes, typing.get_args(annotation)))


def in_scope(function: Callable) -> Callable:
    """Axes of one name have one size within a call."""

    @wraps(function)
    def scoped(*args, **kwargs):
        # `push_shape_memo` and its pop, without two calls more.
        try:
            stack = SCOPES.memo_stack
        except AttributeError:
            stack = SCOPES.memo_stack = []
        stack.append(({}, {}, {}, {}))
        try:
            return function(*args, **kwargs)
        finally:
            stack.pop()

    return scoped


class Form:
    """What an annotation asks of a tensor."""

    def __init__(self, annotation: Any):
        axes, self.array_type = annotation.dims, annotation.array_type
        # A sum of axes, and a name that stands for 1 and another size, are left to jaxtyping.
        odd = any(getattr(axis, what, False) for axis in axes for what in ("elem", "treepath"))
        names = [axis.name for axis in axes if hasattr(axis, "name")]
        if len(names) > len({*names}):
            odd |= any(getattr(axis, "broadcastable", False) for axis in axes)
        # Asked by name: torch is not imported for it.
        self.is_plain = not odd and getattr(self.array_type, "__module__", "") == "torch"
        self.dtypes = Dtypes(annotation.dtypes)
        if self.is_plain:
            made: dict[str, Any] = {}
            exec("\n    ".join(lines_of_matches(axes, annotation.index_variadic)), made)
            self.matches = made["matches"]


def lines_of_matches(axes: Sequence[Any], several: int | None) -> Iterator[str]:
    """A function in Python: whether sizes are those of the names; names without a size get it.

    Written out for each annotation, as beartype does: a loop over the axes takes three times as
    long. `several` is where any number of axes may stand.
    """
    yield "def matches(sizes, single, many):"
    n, keep = len(axes), []
    if several is None:
        yield f"if len(sizes) != {n}: return False"
    else:
        yield f"end = len(sizes) - {n - 1 - several}"
        yield f"if end < {several}: return False"
    seen = {}
    for i, axis in enumerate(axes):
        name, size = getattr(axis, "name", None), f"size_{i}"
        may_be_one = getattr(axis, "broadcastable", False)
        if i == several:
            if name is not None:
                yield f"{size} = sizes[{i}:end]"
                yield f"known = many.get({name!r})"
                # Shapes that differ may still be broadcast to each other: jaxtyping sees to it.
                yield f"if known is not None and known[1] != {size}: return False"
                unless_known = "if known is None: " if may_be_one else ""
                keep.append(f"{unless_known}many[{name!r}] = ({may_be_one}, {size})")
            continue
        fixed = getattr(axis, "size", None)
        if name is None and fixed is None:
            continue
        yield f"{size} = sizes[{i if several is None or i < several else i - n}]"
        unless_one = f"{size} != 1 and " if may_be_one else ""
        if fixed is not None:
            yield f"if {unless_one}{size} != {fixed}: return False"
        elif name in seen:
            yield f"if {size} != {seen[name]}: return False"
        else:
            seen[name] = size
            yield f"if {unless_one}single.get({name!r}, {size}) != {size}: return False"
            keep.append(
                f"{'if ' + size + ' != 1: ' if may_be_one else ''}single[{name!r}] = {size}"
            )
    yield from keep
    yield "return True"


class Dtypes(dict[Any, bool]):
    """Which dtypes are among those asked for."""

    def __init__(self, asked: Any):
        self.asked = asked

    def __missing__(self, kind: Any) -> bool:
        any_will_do = not isinstance(self.asked, tuple)
        self[kind] = any_will_do or str(kind).removeprefix("torch.") in self.asked
        return self[kind]


def fits(annotation: Any, value: Any) -> bool:
    """`isinstance(value, annotation)`, and the sizes of the axes that it names are kept.

    A tensor that does not fit, or takes more to see, is looked at by jaxtyping.
    """
    form = FORMS.get(annotation) or FORMS.setdefault(annotation, Form(annotation))
    if form.is_plain:
        if not isinstance(value, form.array_type):
            return False
        if form.dtypes[value.dtype]:
            stack = getattr(SCOPES, "memo_stack", None)
            sizes = stack[-1] if stack else ({}, {})
            if form.matches(value.shape, sizes[0], sizes[1]):
                return True
    return look_in_full(annotation, value)
