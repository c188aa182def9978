"""A new operation is one row: it is read, saved, checked and done like the others."""

import pytest
import torch

from hooked_qwen.nodes import Node
from saes.edit import Edit, Operation, applied
from saes.operations import OPERATIONS, OperationKind
from tests.saes.test_edit import (  # noqa: F401
    SITE,
    by_hand,
    case,
    everywhere,
    logits,
    logits_with,
    strongest,
)


@pytest.fixture
def negate(monkeypatch):
    kind = OperationKind(become=lambda own, value, to: -own, of_errors=True)
    monkeypatch.setitem(OPERATIONS, "negate", kind)


def test_a_row_is_all_that_a_new_operation_needs(negate, case, tmp_path):  # noqa: F811
    model, suite = case
    (a, *_) = strongest(model, suite, SITE)
    path = tmp_path / "edit.json"
    Edit(operations=(Operation(node=Node(SITE, a), do="negate"),)).save(path)
    with applied(model, suite, Edit.load(path)):
        found = logits(model)
    change = by_hand(suite[SITE], [(a, everywhere, torch.neg)])
    torch.testing.assert_close(found, logits_with(model, change))
    assert Operation(node=Node(SITE, "error"), do="negate").value is None
    with pytest.raises(ValueError, match="has the value 2.0: expected none"):
        Operation(node=Node(SITE, a), do="negate", value=2.0)


@pytest.mark.parametrize("do", [name for name, kind in OPERATIONS.items() if not kind.needs])
def test_an_operation_written_out_is_what_it_does(do):
    """In the loader of a baked model, and as m f + c where it has those."""
    kind, f = OPERATIONS[do], torch.tensor([-3.0, -0.5, 0.0, 0.5, 3.0])
    value = {"none": None, "a value": -1.5, "(low, high)": (-1.0, 2.0)}[kind.takes]
    expected = kind.become(f, value, None)
    assert kind.formula is not None
    assert torch.equal(eval(kind.formula, {"f": f, "op": {"value": value}}), expected)
    assert (kind.affine is None) == (do == "clamp")
    if kind.affine is not None:
        m, c = kind.affine(value)
        assert torch.equal(m * f + c, expected)


def test_an_unknown_operation_lists_those_there_are():
    with pytest.raises(ValueError, match="cannot 'negate' a node: expected one of zero, mean"):
        Operation(node=Node(SITE, 1), do="negate")
    with pytest.raises(ValueError, match="is a vector, and takes zero, mean, patch, scale"):
        Operation(node=Node(SITE, "error"), do="add", value=1.0)
