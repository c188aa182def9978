"""Edits: ordered operations on features and errors, saved as files and applied to any run.

An operation (`saes.operations` lists them) makes feature i another value f_i' at some tokens, and
every site that its dictionary writes moves by (f_i' - f_i) W_dec_i, whatever else is there.
Operations are done in order: a later one sees what the earlier ones left; an operation downstream
sees what arrives there.

    {"schema": "edit/1", "suite": HASH, "means": {"mlp_out.3/812": 0.7, ...}, "operations": [
      {"node": "mlp_out.3/812@5", "do": "scale", "value": 2.0, "positions": "all",
       "when": {"node": "resid_post.2/7", "above": 0.5}}, ...]}

Axes: `rows` texts of a pass, `pos` its tokens, `nodes` the nodes of one dictionary that operations
name.
"""

import json
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from hooked_qwen.files import write_atomically
from hooked_qwen.hooks import Activation, capture, intervene
from hooked_qwen.nodes import Node
from hooked_qwen.positions import TextPositions, follow_positions
from hooked_qwen.sites import Site
from saes.features import Features
from saes.intervention import require_reads_first
from saes.operations import OPERATIONS, kind_of
from saes.suite import Suite

Where = Literal["all", "prompt", "generated", "last"]
SCHEMA = "edit/1"
Value = float | tuple[float, float]
Mean = float | Float[Tensor, " d_model"]


@dataclass(frozen=True, kw_only=True)
class Condition:
    """That a feature is on more strongly than this at the same token, as it arrives there."""

    node: Node
    above: float


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One thing done to one node.

    Raises `ValueError` where what is done needs a value and has none, or the other way round, for
    a node that is no feature or error, and for what cannot be done to an error.
    """

    node: Node
    "a feature or an error; with a position only there, tokens counted from the start of the text"
    do: str
    "a row of `saes.operations.OPERATIONS`"
    value: Value | None = None
    "v, or (low, high); None for zero, mean and patch"
    positions: Where | tuple[int, ...] = "all"
    "`last` is the last token of the prompt and each token generated after it: each was the last "
    "when it was run, with a cache or without"
    when: Condition | None = None

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
    """Operations, in order, and what `mean` stands for, without the prompts that it came from."""

    operations: tuple[Operation, ...]
    means: Mapping[Node, Mean] = field(default_factory=dict)
    "of each node that goes to its mean, with its position or without one"
    suite: str | None = None
    "hash of the dictionaries whose features these are, where it is known"

    def then(self, other: "Edit") -> "Edit":
        """This edit and after it another one."""
        return Edit(
            operations=self.operations + other.operations,
            means={**self.means, **other.means},
            suite=self.suite or other.suite,
        )

    def without(self, nodes: Iterable[Node]) -> "Edit":
        """The edit with what it does to some nodes undone."""
        gone = set(nodes)
        kept = tuple(op for op in self.operations if op.node not in gone)
        return Edit(operations=kept, means=self.means, suite=self.suite)

    def mean_of(self, node: Node) -> Mean:
        """What a node's mean is; raises `ValueError` where the edit does not say."""
        for known in (node, node._replace(position=None)):
            if known in self.means:
                return self.means[known]
        raise ValueError(f"the edit does not say what the mean of {node} is: add it to its `means`")

    def save(self, path: Path) -> None:
        """Write the edit as JSON, whole or not at all."""
        means = {
            str(node): mean.tolist() if isinstance(mean, Tensor) else mean
            for node, mean in self.means.items()
        }
        record = {
            "schema": SCHEMA,
            "suite": self.suite,
            "operations": [operation.record() for operation in self.operations],
            "means": means,
        }
        text = json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
        write_atomically(path, lambda partial: partial.write_text(text, encoding="utf-8"))

    @classmethod
    def load(cls, path: Path) -> "Edit":
        """Read an edit; raises `ValueError` with one line for a file that holds none."""
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            if record["schema"] != SCHEMA:
                raise ValueError(f"its schema is {record['schema']}, expected {SCHEMA}")
            means = {
                Node.parse(name): torch.tensor(mean) if isinstance(mean, list) else mean
                for name, mean in record.get("means", {}).items()
            }
            operations = tuple(Operation.read(each) for each in record["operations"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"cannot read the edit {path}: {error}") from None
        return cls(operations=operations, means=means, suite=record.get("suite"))


Patch = Callable[[Node], Float[Tensor, "#rows #pos *width"]]
"What a node is on each token of the patch run: a feature's value, an error's vector."


@contextmanager
def applied(
    model: TransformerBridge, suite: Suite, edit: Edit, *, patch: Patch | None = None
) -> Generator[None, None, None]:
    """Do the edit in every run inside the block, generation included, with a cache or without.

    Raises `ValueError` for a node that the suite does not have, for a condition on what has not
    run yet, for a mean that the edit does not know, and for operations that go to the patch where
    none is given; and `RuntimeError` on leaving if no run reached a site that is edited.
    """
    suite = suite.fitting(model)
    check(suite, edit)
    needs_patch = [op.node for op in edit.operations if kind_of(op.do).needs == "patch"]
    if needs_patch and patch is None:
        raise ValueError(f"{needs_patch[0]} goes to the patch's value, and there is no patch here")
    names = {_owner(suite, node) for op in edit.operations for node in _nodes(op)}
    named = {op.node.site for op in edit.operations if op.node.kind == "feature"}
    at = {s for name in named for s in suite.writes_of(name)}
    at |= {Site.parse(op.node.site) for op in edit.operations if op.node.kind == "error"}
    read = {s for name in names for s in suite.reads_of(name)}
    read |= {s for site in at for name in suite.writing(site) for s in suite.reads_of(name)}
    with ExitStack() as stack:
        text = stack.enter_context(follow_positions(model))
        elsewhere = read - at
        seen = stack.enter_context(capture(model, elsewhere)) if elsewhere else {}
        run = _Run(suite, edit, patch, text, seen, {})
        stack.enter_context(intervene(model, {site: run.change(site) for site in sorted(at)}))
        yield
    missed = [op for op in edit.operations if not run.done.get(id(op), False)]
    if missed:
        (op, *_) = missed
        where = op.positions if isinstance(op.positions, str) else list(op.positions)
        raise RuntimeError(
            f"{op.do} of {op.node} at the positions {where} was never done: no text that was run "
            "inside the block has such a token"
        )


def _nodes(operation: Operation) -> list[Node]:
    return [operation.node, *([operation.when.node] if operation.when else [])]


def _owner(suite: Suite, node: Node) -> str:
    """The dictionary of a feature, or one that writes an error's site."""
    return node.site if node.kind == "feature" else suite.writing(Site.parse(node.site))[0]


def check(suite: Suite, edit: Edit) -> None:
    """Raise `ValueError` for a node that is not in the suite, and for what cannot be done to it."""
    for operation in edit.operations:
        for node in _nodes(operation):
            check_node(suite, node)
        if operation.node.kind == "feature":
            require_reads_first(suite, operation.node.site)
        if OPERATIONS[operation.do].needs == "mean":
            edit.mean_of(operation.node)
        if operation.when is not None:
            _check_condition(suite, operation.node, operation.when)


def check_node(suite: Suite, node: Node) -> None:
    """Raise `ValueError` for what is no feature and no error of the suite."""
    known = list(suite) if node.kind == "feature" else [str(site) for site in suite.writes]
    if node.kind not in ("feature", "error") or node.site not in known:
        raise ValueError(f"there is no dictionary for {node}: the sites are {', '.join(known)}")
    if node.kind == "feature" and not 0 <= int(node.feature) < suite[node.site].n_features:
        size = suite[node.site].n_features
        raise ValueError(f"{node.site} has features 0 to {size - 1}, so there is no {node}")


def _check_condition(suite: Suite, node: Node, when: Condition) -> None:
    if when.node.kind != "feature":
        raise ValueError(f"a condition is on a feature, not on {when.node}")
    written = suite.writes_of(node.site) if node.kind == "feature" else (Site.parse(node.site),)
    if max(suite.reads_of(when.node.site)) > min(written):
        raise ValueError(
            f"{when.node} is known only after {min(written)}, where {node} is: a condition is on "
            "what has run by then"
        )


@dataclass(frozen=True)
class _Run:
    """What the hooks of one block share."""

    suite: Suite
    edit: Edit
    patch: Patch | None
    text: TextPositions
    seen: dict[Site, Activation]
    done: dict[int, Tensor]
    "whether each operation had a token to be done at"

    def change(self, site: Site) -> Callable[[Activation], Activation]:
        """What happens to the tensor at `site`."""
        names = self.suite.writing(site)

        def edited(value: Activation) -> Activation:
            self.seen[site] = value
            features = {name: self._features(name) for name in names}
            found = self._with_error(site, value, features)
            for name in names:
                move = self._move(name, features[name])
                if move is not None:
                    found = found + self.suite[name].by_site(move)[site]
            return found

        return edited

    def _features(self, name: str) -> Features:
        return self.suite[name].encode(self.suite.read(name, self.seen))

    def _move(self, name: str, f: Features) -> Activation | None:
        """How much what a dictionary writes changes; None where no operation names it."""
        operations = [op for op in self.edit.operations if op.node.site == name]
        operations = [op for op in operations if op.node.kind == "feature"]
        if not operations:
            return None
        columns = {i: n for n, i in enumerate(dict.fromkeys(op.node.feature for op in operations))}
        chosen = torch.tensor(list(columns), device=f.index.device)
        before = f.of(chosen)
        after = before.clone()
        for op in operations:
            at = columns[op.node.feature]
            own = after[..., at]
            after[..., at] = torch.where(self._where(op), self._becomes(op, own), own)
        return (after - before) @ self.suite[name].W_dec[chosen]

    def _with_error(
        self, site: Site, value: Activation, features: Mapping[str, Features]
    ) -> Activation:
        """The tensor with the error set as the operations say."""
        operations = [
            op for op in self.edit.operations
            if op.node.kind == "error" and Site.parse(op.node.site) == site
        ]  # fmt: skip
        if not operations:
            return value
        written = sum(
            self.suite[n].by_site(self.suite[n].decode(f))[site] for n, f in features.items()
        )
        error = value - written
        for op in operations:
            error = torch.where(self._where(op).unsqueeze(-1), self._becomes(op, error), error)
        return written + error

    def _becomes(self, op: Operation, own: Tensor) -> Tensor:
        kind, to = kind_of(op.do), None
        if kind.needs == "mean":
            to = torch.as_tensor(self.edit.mean_of(op.node))
        elif kind.needs == "patch":
            assert self.patch is not None, "asked for above"
            to = self.patch(op.node)
        return kind.become(own, op.value, to)

    def _where(self, op: Operation) -> Bool[Tensor, "rows pos"]:
        """The tokens at which an operation is done."""
        at, lengths = self.text.tokens, self.text.prompt_lengths.unsqueeze(-1)
        found = at >= 0
        if op.node.position is not None:
            found = found & (at == op.node.position)
        if isinstance(op.positions, tuple):
            found = found & torch.isin(at, torch.tensor(op.positions, device=at.device))
        elif op.positions != "all":
            first = lengths - 1 if op.positions == "last" else lengths
            found = found & ((at < lengths) if op.positions == "prompt" else (at >= first))
        self.done[id(op)] = self.done.get(id(op), False) | found.any()
        if op.when is not None:
            chosen = torch.tensor([int(op.when.node.feature)], device=at.device)
            found = found & (self._features(op.when.node.site).of(chosen)[..., 0] > op.when.above)
        return found
