"""An edit of two features, and Hugging Face's own model with that edit written out as a hook."""

import torch

from hooked_qwen.nodes import Node
from saes.edit import Edit, Operation
from tests.toys import speaking_toy, toy_hf, toy_suite

SITE, FEATURES = "resid_post.1", (5, 13)
EDIT = Edit(
    operations=(
        Operation(node=Node(SITE, FEATURES[0]), do="set", value=9.0),
        Operation(node=Node(SITE, FEATURES[1]), do="zero"),
    )
)


def hooked_toy():
    """The model that speaks, and dictionaries of the site."""
    return speaking_toy(dtype=torch.float32), toy_suite(SITE, dtype=torch.float32)


class Plain:
    """Hugging Face's model, with the edit written out as a hook on a layer."""

    def __init__(self, suite):
        self.model, self.d = toy_hf(dtype=torch.float32), suite[SITE]

    def edited(self, module, args, x):
        pre = x @ self.d.W_enc.T + self.d.b_enc
        value, index = pre.topk(5)
        f = torch.zeros_like(pre).scatter(-1, index, value.relu())
        x = x + (9.0 - f[..., 5:6]) * self.d.W_dec[5]
        return x - f[..., 13:14] * self.d.W_dec[13]

    def run(self, call):
        """Plainly, and with the hook."""
        found = []
        for edited in (False, True):
            handle = edited and self.model.model.layers[1].register_forward_hook(self.edited)
            with torch.no_grad():
                found.append(call(self.model))
            if handle:
                handle.remove()
        return found
