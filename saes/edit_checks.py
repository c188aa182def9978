"""What an edit can do in some dictionaries: anything else is refused before a model runs."""

import torch

from hooked_qwen.nodes import EVERY, Node
from hooked_qwen.sites import Site
from saes.edit_file import Condition, Edit, Operation
from saes.edited_pass import Patch
from saes.identity import suite_hash, suite_told
from saes.intervention import require_reads_first
from saes.operations import OPERATIONS, kind_of
from saes.suite import Suite


def check_patch(edit: Edit, patch: Patch | None) -> None:
    """Raise `ValueError` where an operation goes to the patch and there is none."""
    needs_patch = [op.node for op in edit.operations if kind_of(op.do).needs == "patch"]
    if needs_patch and patch is None:
        raise ValueError(f"{needs_patch[0]} goes to the patch's value, and there is no patch here")


def nodes_of(operation: Operation) -> list[Node]:
    """The nodes that an operation names."""
    when = [operation.when.node] if operation.when else []
    return [operation.node, *when, *operation.besides]


def owner_of(suite: Suite, node: Node) -> str:
    """The dictionary of a feature, or one that writes an error's site."""
    return node.site if node.kind == "feature" else suite.writing(Site.parse(node.site))[0]


def check_edit(suite: Suite, edit: Edit) -> None:
    """Raise `ValueError` for an edit of other dictionaries, and for what it cannot do in these."""
    if edit.suite is not None and edit.suite != suite_hash(suite):
        raise ValueError(
            f"the edit is of the dictionaries {edit.suite_told()}, and these are "
            f"{suite_told(suite)}: feature numbers mean nothing in another suite"
        )
    if not edit.operations:
        raise ValueError("the edit has no operation: there is nothing to do")
    for operation in edit.operations:
        for node in nodes_of(operation):
            check_node(suite, node)
        if operation.node.kind == "feature":
            require_reads_first(suite, operation.node.site)
        if OPERATIONS[operation.do].needs == "mean":
            _check_mean(suite, operation.node, edit)
        if operation.when is not None:
            _check_condition(suite, operation.node, operation.when)
        _check_norms(suite, operation)


def check_node(suite: Suite, node: Node) -> None:
    """Raise `ValueError` for what is no feature and no error of the suite."""
    known = list(suite) if node.kind == "feature" else [str(site) for site in suite.writes]
    if node.kind not in ("feature", "error") or node.site not in known:
        raise ValueError(f"there is no dictionary for {node}: the sites are {', '.join(known)}")
    if (
        node.kind == "feature"
        and node.feature != EVERY
        and not 0 <= int(node.feature) < suite[node.site].n_features
    ):
        size = suite[node.site].n_features
        raise ValueError(f"{node.site} has features 0 to {size - 1}, so there is no {node}")


def _check_mean(suite: Suite, node: Node, edit: Edit) -> None:
    mean = torch.as_tensor(edit.mean_of(node))
    wanted: tuple[int, ...] = ()
    if node.kind == "error":
        (name, *_) = suite.writing(Site.parse(node.site))
        size = suite[name].W_dec.shape[1] // len(suite.writes_of(name))
        wanted = (size,)
    elif node.feature == EVERY:
        wanted = (suite[node.site].n_features,)
    if tuple(mean.shape) != wanted:
        raise ValueError(
            f"the mean of {node} has shape {tuple(mean.shape)}, expected {wanted}: is the edit of "
            "another model?"
        )


def _check_condition(suite: Suite, node: Node, when: Condition) -> None:
    if when.node.kind != "feature" or when.node.feature == EVERY:
        raise ValueError(f"a condition is on one feature, not on {when.node}")
    written = suite.writes_of(node.site) if node.kind == "feature" else (Site.parse(node.site),)
    if max(suite.reads_of(when.node.site)) > min(written):
        raise ValueError(
            f"{when.node} is known only after {min(written)}, where {node} is: a condition is on "
            "what has run by then"
        )


def _check_norms(suite: Suite, operation: Operation) -> None:
    node = operation.node
    written = suite.writes_of(node.site) if node.kind == "feature" else (Site.parse(node.site),)
    for site, limit in operation.norm_below:
        if site > max(written):
            raise ValueError(
                f"the norm at {site} is known only after {max(written)}, where {node} is"
            )
        if not limit > 0:
            raise ValueError(f"{node} is edited where the norm at {site} is below {limit}: nowhere")
