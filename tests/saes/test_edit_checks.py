"""Edits that a suite cannot do are refused before a model runs."""

import pytest
import torch

from hooked_qwen.load import hook
from hooked_qwen.nodes import Node
from hooked_qwen.sites import Site
from saes.edit import Condition, Edit, Operation, applied
from tests.saes.test_edit import logits
from tests.toys import toy_hf, toy_suite

TOKENS = torch.tensor([[5, 9, 11, 2, 30], [4, 8, 15, 16, 23]])
SITE = "resid_post.1"
NORMS = ((Site("mlp_out", 0), 9.5), (Site("resid_post", 1), 12))


@pytest.fixture(scope="module")
def case():
    hf = toy_hf(dtype=torch.float32)
    suite = toy_suite("mlp_out.0", SITE, dtype=torch.float32)
    return hook(hf, name="toy"), suite


@pytest.mark.parametrize(
    ("edit", "error", "message"),
    [
        (Edit(operations=(Operation(node=Node(SITE, 99), do="zero"),)), ValueError, "0 to 19"),
        (Edit(operations=(Operation(node=Node("mlp_out.2", 1), do="zero"),)), ValueError,
         "no dictionary for mlp_out.2/1"),
        (Edit(operations=(Operation(node=Node(SITE, 1), do="mean"),)), ValueError,
         "does not say what the mean"),
        (Edit(operations=(Operation(node=Node("mlp_out.0", 1), do="zero",
                                    when=Condition(node=Node(SITE, 1), above=0.0)),)),
         ValueError, "is known only after mlp_out.0"),
        (Edit(operations=(Operation(node=Node("mlp_out.0", 1), do="zero", norm_below=NORMS),)),
         ValueError, "the norm at resid_post.1 is known only after mlp_out.0"),
        (Edit(operations=(Operation(node=Node(SITE, 1), do="zero",
                                    norm_below=((NORMS[0][0], 0),)),)),
         ValueError, "the norm at mlp_out.0 is below 0: nowhere"),
        (Edit(operations=(Operation(node=Node(SITE, 1), do="set", value=4.0,
                                    norm_below=((NORMS[0][0], 1e-9),)),)),
         RuntimeError, "to set but at norm outliers, was"),
        (Edit(operations=(Operation(node=Node(SITE, 1, 9), do="zero"),)), RuntimeError,
         "was never done"),
        (Edit(operations=(Operation(node=Node(SITE, 1), do="zero", positions="generated"),)),
         RuntimeError, "was never done"),
    ],
)  # fmt: skip
def test_an_edit_that_would_do_nothing_is_refused(case, edit, error, message):
    model, suite = case
    with pytest.raises(error, match=message), applied(model, suite, edit):
        logits(model)
