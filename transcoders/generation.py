"""Interventions while text is generated: what is held is held while the prompt is read.

The first pass reads the prompt in two rows, the prompt as it is and under the edit, as in
`transcoders.interventions`, and fills the cache. Then all is let go: tokens that are generated run
in the model itself, under the edit, and attend freely to what the first pass left in the cache.

What it left there of the edited row is made of the edited stream: keys and values read through
norms that are held where all norms are (Qwen3's norm of keys too), live ones otherwise; of gated
delta nets the state that their live keys, gates and decays make.

In circuit-tracer's `feature_intervention_generate`, too, what is frozen is frozen for the first
token generated alone.

Axes: `rows` are two, the prompt as it is and under the edit.
"""

from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from typing import Any, cast

from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from hooked_qwen.precision import widened
from saes.edit import applied_by_row
from saes.edit_file import Edit
from saes.features import Features
from saes.firing import Firing
from saes.suite import Suite
from transcoders.frozen.norm import freeze_norm
from transcoders.interventions import Mode, held


@contextmanager
def generating(
    model: TransformerBridge, suite: Suite, edit: Edit, mode: Mode, *, must_fire: bool = True
) -> Generator[Firing, None, None]:
    """Do an edit in the second of two rows, with as much held as `mode` says in the first pass.

    Inside the block one prompt, unpadded, is read in one pass and generated from with the cache of
    that. Yields what becomes known of whether the edit did anything, and raises as
    `saes.edit.applied` does.
    """
    suite = suite.fitting(model)
    with ExitStack() as stack:
        while_read = stack.enter_context(ExitStack())
        stands = while_read.enter_context(held(model, suite, mode))
        if mode.attention == "frozen":
            _hold_cached(model, while_read)
        reading = [True]

        def standing(name: str) -> Features | None:
            return stands(name) if reading else None

        def let_go(*_: Any) -> None:
            reading.clear()
            while_read.close()

        inner = cast(Any, model.original_model)
        firings = stack.enter_context(
            applied_by_row(model, suite, [None, edit], must_fire=must_fire, standing=standing)
        )
        while_read.callback(inner.register_forward_hook(let_go).remove)
        (firing,) = (each for each in firings if each is not None)
        yield firing


def _hold_cached(model: TransformerBridge, stack: ExitStack) -> None:
    """Keys and values of a pass are read through norms that are those of the first row."""
    for block in cast(Any, model.blocks):
        norms = [block.ln1]
        if "attn" in block.submodules and "k_norm" in block.attn.submodules:
            norms.append(block.attn.k_norm)
        for norm in norms:
            own = norm.original_component
            stack.callback(own.register_forward_hook(_as_in_first_row).remove)


def _as_in_first_row(norm: Any, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
    x = widened(args[0])
    scale = freeze_norm(norm, x[0].flatten(0, -2)).scale.view(x.shape[1:])
    found = widened(output)[:1] + (x - x[:1]) * scale
    return found.to(output)
