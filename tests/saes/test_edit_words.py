"""What an edit does, in words."""

import torch

from hooked_qwen.nodes import Node
from hooked_qwen.sites import Site
from saes.edit import Edit, Operation
from saes.edit_file import Condition
from saes.edit_words import in_words, rows, short
from saes.operations import OPERATIONS
from tests.saes.test_edit import (  # noqa: F401
    SITE,
    by_hand,
    case,
    everywhere,
    logits,
    logits_with,
    strongest,
)


def test_what_it_does_in_words():
    edit = Edit(
        operations=(
            Operation(node=Node("resid_post.2", 1, 4), do="zero"),
            Operation(node=Node("mlp_out.1", 7, 3), do="zero"),
            Operation(node=Node("mlp_out.0", "*"), do="mean", besides=(Node("mlp_out.0", 3),)),
            Operation(node=Node("mlp_out.0", "error"), do="scale", value=2.0, positions=(0, 3)),
            Operation(
                node=Node("mlp_out.0", 4), do="zero", norm_below=((Site("mlp_out", 0), 812.5),)
            ),
        ),
        means={Node("mlp_out.0", "*"): torch.zeros(20)},
    )
    assert in_words(edit) == [
        "2 features of mlp_out.1, resid_post.2: set to 0 each at its own position",
        "every feature of mlp_out.0 but 1 feature: set to the mean at every token",
        "1 error term of mlp_out.0: multiplied by 2 at the positions 0, 3",
        "1 feature of mlp_out.0: set to 0 at every token but norm outliers",
        "of any suite: it names none",
    ]
    assert [row.node for row in rows(edit)][2] == "mlp_out.0/* but 1 of them"


def test_every_operation_is_said_in_short():
    values = {"set": 2.0, "scale": 0.5, "add": -1.5, "clamp": (0.0, 3.0)}
    when = Condition(node=Node(SITE, 2), above=0.5)
    said = {
        do: short(Operation(node=Node(SITE, 1), do=do, value=values.get(do))) for do in OPERATIONS
    }
    assert said == {
        "zero": "×0",
        "mean": "= mean",
        "patch": "= patch",
        "set": "= 2",
        "scale": "×0.5",
        "add": "−1.5",
        "clamp": "0 to 3",
    }
    assert short(Operation(node=Node(SITE, 1), do="zero", when=when)) == "×0 if"
