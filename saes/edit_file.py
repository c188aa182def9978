"""Edits as things: ordered operations on features and errors, read, saved, composed and inverted.

An operation (`saes.operations` lists them) makes feature i another value f_i' at some tokens.
Operations are done in order: a later one sees what the earlier ones left. How an edit is put into
a model stands in `saes.edit`.

    {"schema": "edit/1", "suite": HASH, "suite_name": WHERE, "means": {"mlp_out.3/812": 0.7, ...},
     "operations": [
      {"node": "mlp_out.3/812@5", "do": "scale", "value": 2.0, "positions": "all",
       "when": {"node": "resid_post.2/7", "above": 0.5}},
      {"node": "resid_post.4/3", "do": "zero", "norm_below": {"resid_post.4": 812.5}},
      {"node": "mlp_out.4/*", "do": "zero", "except": ["mlp_out.4/17"]}, ...]}

`mlp_out.4/*` is every feature of a dictionary but those excepted, so that all that lies outside a
circuit is one line a dictionary. `norm_below` leaves norm outliers (mostly the first token) as
they are: tokens at which the tensor of a site is larger than that.
"""

import json
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from hooked_qwen.files import write_text_atomically
from hooked_qwen.nodes import EVERY, Node
from hooked_qwen.sites import Site
from saes.operations import OPERATIONS, kind_of
from saes.suite import Suite

if TYPE_CHECKING:
    from saes.edited_pass import Patch

Where = Literal["all", "prompt", "generated", "last"]
SCHEMA = "edit/1"
Value = int | float | tuple[int | float, int | float]
Mean = int | float | Float[Tensor, " d_model"]


@dataclass(frozen=True, kw_only=True)
class Condition:
    """That a feature is on more strongly than this at the same token, as it arrives there.

    circuits.Condition(node=circuits.Node("resid_post.2", 7), above=0.5)
    """

    node: Node
    above: int | float

    def __post_init__(self) -> None:
        if not isfinite(self.above):
            raise ValueError(f"{self.node} is to be above {self.above}: expected a finite number")


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One thing done to one node.

        circuits.Operation(node=circuits.Node("mlp_out.3", 812), do="scale", value=0.5)

    Raises `ValueError` where what is done needs a value and has none, or the other way round, for
    a node that is no feature or error, and for what cannot be done to an error.
    """

    node: Node
    "a feature or an error; with a position only there, tokens counted from the start of the text"
    do: str
    "a row of `saes.operations.OPERATIONS`"
    value: Value | None = None
    "v, or (low, high); None for an operation without one"
    positions: Where | tuple[int, ...] = "all"
    "`last` is the last token of the prompt and each token generated after it: each was the last "
    "when it was run, with a cache or without"
    when: Condition | None = None
    besides: tuple[Node, ...] = ()
    "left out: of every feature of a dictionary some, of an error some positions"
    norm_below: tuple[tuple[Site, int | float], ...] = ()
    "only at tokens whose tensor at each of these sites, of those that have run, has at most this "
    "norm: norm outliers stay as they are"

    def __post_init__(self) -> None:
        if self.node.kind not in ("feature", "error"):
            raise ValueError(f"{self.node} is a {self.node.kind}: expected a feature or an error")
        _check_words(self.do, self.positions)
        kind = kind_of(self.do)
        if self.node.kind == "error" and not kind.of_errors:
            able = ", ".join(name for name, other in OPERATIONS.items() if other.of_errors)
            raise ValueError(
                f"cannot {self.do} {self.node}: an error is a vector, and takes {able}"
            )
        kind.check_value(f"{self.do} of {self.node}", self.value)
        for node in self.besides:
            self._check_excepted(node)

    def _check_excepted(self, node: Node) -> None:
        """A feature of every one of its dictionary, or the error of the same site at a position."""
        of_every = self.node.feature == EVERY and node.kind == "feature" and node.feature != EVERY
        of_error = node.kind == self.node.kind == "error" and node.position is not None
        if node.site != self.node.site or not (of_every or of_error):
            raise ValueError(
                f"cannot except {node} from {self.node}: features are excepted from SITE/{EVERY}, "
                "and positions SITE/error@POSITION from SITE/error"
            )

    @property
    def needs(self) -> str | None:
        """What must be known of the node: `mean`, `patch`, or nothing."""
        return kind_of(self.do).needs

    def inverse(self) -> "Operation":
        """What undoes it; raises `ValueError` where nothing does."""
        found = kind_of(self.do).inverse
        value = None if found is None else found(self.value)
        if value is None:
            able = ", ".join(name for name, kind in OPERATIONS.items() if kind.inverse)
            told = f" by {self.value:g}" if isinstance(self.value, int | float) else ""
            raise ValueError(
                f"{self.do}{told} of {self.node} has no inverse, for it forgets what the feature "
                f"was: only {able} have one, and scale by 0 has none"
            )
        return replace(self, value=value)

    def record(self) -> dict[str, Any]:
        """The operation as a file holds it."""
        found: dict[str, Any] = {"node": str(self.node), "do": self.do}
        if self.value is not None:
            found["value"] = list(self.value) if isinstance(self.value, tuple) else self.value
        found["positions"] = (
            self.positions if isinstance(self.positions, str) else list(self.positions)
        )
        if self.when is not None:
            found["when"] = {"node": str(self.when.node), "above": self.when.above}
        if self.besides:
            found["except"] = [str(node) for node in self.besides]
        if self.norm_below:
            found["norm_below"] = {str(site): limit for site, limit in self.norm_below}
        return found

    @classmethod
    def read(cls, record: Mapping[str, Any]) -> "Operation":
        """What `record` made; raises `ValueError` for anything else."""
        value, positions = record.get("value"), record.get("positions", "all")
        when = record.get("when")
        _check_words(record["do"], positions)
        return cls(
            node=Node.parse(record["node"]),
            do=record["do"],
            value=tuple(value) if isinstance(value, list) else value,
            positions=tuple(positions) if isinstance(positions, list) else positions,
            when=when and Condition(node=Node.parse(when["node"]), above=when["above"]),
            besides=tuple(map(Node.parse, record.get("except", ()))),
            norm_below=tuple(
                (Site.parse(site), limit) for site, limit in record.get("norm_below", {}).items()
            ),
        )


def _check_words(do: Any, positions: Any) -> None:
    kind_of(do)
    if isinstance(positions, str) and positions not in get_args(Where):
        raise ValueError(
            f"no tokens are called {positions!r}: expected {', '.join(get_args(Where))}, or "
            "positions"
        )


@dataclass(frozen=True, kw_only=True)
class Edit:
    """Operations, in order, and what `mean` stands for, without the prompts that it came from.

    half = circuits.edit(circuit, top=5, do="scale", value=0.5)
    half.then(circuits.edit(circuit, "resid_post.3/5")).save("edit.json")
    """

    operations: tuple[Operation, ...]
    means: Mapping[Node, Mean] = field(default_factory=dict)
    "of each node that goes to its mean, with its position or without one"
    suite: str | None = None
    "hash of the dictionaries whose features these are, where it is known"

    suite_name: str | None = None
    "where these lay when the edit was made: for people, nothing goes by it"

    def then(self, other: "Edit") -> "Edit":
        """This edit and after it another one.

        Raises `ValueError` for edits of different dictionaries, or of different means of a node.
        """
        if self.suite and other.suite and self.suite != other.suite:
            raise ValueError(
                f"one edit is of {self.suite_told()}, the other of {other.suite_told()}: features "
                "of different dictionaries cannot be edited together"
            )
        for node in self.means.keys() & other.means.keys():
            if not _same(self.means[node], other.means[node]):
                raise ValueError(
                    f"the two edits have different means of {node}: take both from one prompt set"
                )
        known = self if self.suite else other
        return Edit(
            operations=self.operations + other.operations,
            means={**self.means, **other.means},
            suite=known.suite,
            suite_name=known.suite_name,
        )

    def inverse(self) -> "Edit":
        """What undoes the edit when it is done after it; `ValueError` where nothing does."""
        undone = tuple(operation.inverse() for operation in reversed(self.operations))
        return replace(self, operations=undone)

    def applied(
        self, opened: "OpenedModel", *, patch: "Patch | None" = None, must_fire: bool = True
    ) -> AbstractContextManager[None]:
        """The edit in every run inside the block: logits, generation, probes (`saes.edit.applied`).

        with edit.applied(analysis):
            analysis.model.generate("The keys near the cabinet")
        """
        from saes.edit import applied

        return applied(opened.model, opened.suite, self, patch=patch, must_fire=must_fire)

    def _repr_html_(self) -> str:
        from saes.edit_words import as_html

        return as_html(self)

    def suite_told(self) -> str:
        """Which dictionaries it is of, for people."""
        return f"{self.suite_name or 'a suite without a name'} ({self.suite or 'no hash'})"

    def without(self, nodes: Iterable[Node]) -> "Edit":
        """The edit with what it does to some nodes undone."""
        gone = set(nodes)
        kept = tuple(op for op in self.operations if op.node not in gone)
        return replace(self, operations=kept)

    def mean_of(self, node: Node) -> Mean:
        """What a node's mean is; raises `ValueError` where the edit does not say."""
        for known in (node, node._replace(position=None)):
            if known in self.means:
                return self.means[known]
        raise ValueError(f"the edit does not say what the mean of {node} is: add it to its `means`")

    def text(self) -> str:
        """The edit as its file holds it."""
        means = {str(node): _mean_record(node, mean) for node, mean in self.means.items()}
        record = {
            "schema": SCHEMA,
            "suite": self.suite,
            **({"suite_name": self.suite_name} if self.suite_name else {}),
            "operations": [operation.record() for operation in self.operations],
            "means": means,
        }
        return json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False) + "\n"

    def save(self, path: str | Path) -> None:
        """Write the edit as JSON, whole or not at all."""
        text = self.text()
        write_text_atomically(Path(path), text)

    @classmethod
    def load(cls, path: str | Path) -> "Edit":
        """Read an edit; raises `ValueError` with one line for a file that holds none."""
        try:
            record = json.loads(Path(path).read_text(encoding="utf-8"))
            if record["schema"] != SCHEMA:
                raise ValueError(f"its schema is {record['schema']}, expected {SCHEMA}")
            means = {
                Node.parse(name): _mean_read(mean) for name, mean in record.get("means", {}).items()
            }
            operations = tuple(Operation.read(each) for each in record["operations"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"cannot read the edit {path}: {error}") from None
        return cls(
            operations=operations,
            means=means,
            suite=record.get("suite"),
            suite_name=record.get("suite_name"),
        )


def _mean_record(node: Node, mean: Mean) -> Any:
    """A number, a list, or of every feature of a dictionary those whose mean is not zero."""
    if not isinstance(mean, Tensor):
        return mean
    if node.feature != EVERY:
        return mean.tolist()
    on = mean.nonzero().flatten().tolist()
    return {"features": len(mean), **{str(i): float(mean[i]) for i in on}}


def _mean_read(record: Any) -> Mean:
    if isinstance(record, list):
        return torch.tensor(record)
    if not isinstance(record, dict):
        return record
    found = torch.zeros(record["features"])
    for i, mean in record.items():
        if i != "features":
            found[int(i)] = mean
    return found


def _same(a: Mean, b: Mean) -> bool:
    one, other = torch.as_tensor(a), torch.as_tensor(b)
    return one.shape == other.shape and bool((one == other).all())


@runtime_checkable
class OpenedModel(Protocol):
    """A model and its dictionaries, such as a `circuits.Analysis`."""

    @property
    def model(self) -> TransformerBridge: ...

    @property
    def suite(self) -> Suite: ...
