"""What the nodes of an edit are on the patch prompts: for operations that go to the patch's value.

    with edit.applied(analysis, patch=patch_values(analysis, edit)):
        analysis.model(analysis.prompts.clean.tokens, ...)

holds for runs of the clean prompts, all of them in their order; in any other text a node has no
patch of its own.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.analysis import Analysis
from circuits.graph import Node
from hooked_qwen.forward import last_logits
from hooked_qwen.hooks import capture
from hooked_qwen.nodes import EVERY
from hooked_qwen.sites import Site
from saes.edit_file import Edit
from saes.edited_pass import Patch


@torch.no_grad()
def patch_values(analysis: Analysis, edit: Edit, rows: Int[Tensor, " rows"] | None = None) -> Patch:
    """Of every node that goes to its patch, the value on the patch prompts, or on some `rows`.

    Raises `ValueError` where the prompts have no patch.
    """
    batch, suite = analysis.prompts.patch, analysis.suite
    if batch is None:
        raise ValueError("the prompts have no patch for a node to go to: give each one a patch")
    if rows is not None:
        batch = batch.rows(rows)
    nodes = list(dict.fromkeys(op.node for op in edit.operations if op.needs == "patch"))
    names = [
        name
        for node in nodes
        for name in (suite.writing(Site.parse(node.site)) if node.kind == "error" else [node.site])
    ]
    sites = {s for name in names for s in (*suite.reads_of(name), *suite.writes_of(name))}
    with capture(analysis.model, sites) as seen:
        last_logits(analysis.model, batch)
    found: dict[Node, Float[Tensor, "rows pos *width"]] = {}
    for node in nodes:
        found[node] = (
            _error(analysis, node, seen) if node.kind == "error" else _feature(analysis, node, seen)
        )
    return found.__getitem__


def _feature(analysis: Analysis, node: Node, seen: dict[Site, Tensor]) -> Tensor:
    f = analysis.suite[node.site].encode(analysis.suite.read(node.site, seen))
    if node.feature == EVERY:
        return f.dense()
    return f.of(torch.tensor([int(node.feature)], device=f.index.device))[..., 0]


def _error(analysis: Analysis, node: Node, seen: dict[Site, Tensor]) -> Tensor:
    suite, site = analysis.suite, Site.parse(node.site)
    error = seen[site]
    for name in suite.writing(site):
        f = suite[name].encode(suite.read(name, seen))
        error = error - suite[name].by_site(suite[name].decode(f))[site]
    return error
