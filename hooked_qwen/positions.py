"""Where in its text each token of a run stands, whatever part of the text a pass sees.

A generation step with a cache runs the new tokens only, one without a cache runs the text from
its start again, and prompts of several lengths are padded on the left. Hooks see none of this;
it is in what the model is called with.
"""

from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn
from transformer_lens.model_bridge import TransformerBridge


class TextPositions:
    """Positions of the tokens of the pass that runs now; filled in by `follow_positions`."""

    tokens: Int[Tensor, "batch pos"]
    "each token's number in its text, from 0, padding not counted; -1 for padding"
    prompt_lengths: Int[Tensor, " batch"]
    "tokens of each row's prompt"
    ids: Int[Tensor, "batch pos"] | None = None
    "their numbers in the vocabulary, where the pass was given tokens"

    def __init__(self) -> None:
        self._prompt: Tensor | None = None
        self._in_model = False

    def enter_model(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """A whole pass begins: read its tokens, its mask and how much a cache holds."""
        self._in_model = True
        given = self.ids = args[0] if args else kwargs.get("input_ids")
        if given is None:
            given = kwargs["inputs_embeds"]
        cache = kwargs.get("past_key_values")
        past = 0 if cache is None else int(cache.get_seq_length())
        mask = kwargs.get("attention_mask")
        if not isinstance(mask, Tensor) or mask.dim() != 2:
            mask = torch.ones(len(given), past + given.shape[1], device=given.device)
        mask = mask[:, : past + given.shape[1]].bool()
        self.tokens = _numbers(mask)[:, past:]
        if not self._continues(given, past):
            self._prompt, self.prompt_lengths = given, mask.sum(-1)

    def leave_model(self, *_: Any) -> None:
        self._in_model = False

    def enter_block(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """A block that runs outside a whole pass (`hooked_qwen.forward.resume`)."""
        if self._in_model:
            return
        mask = _real(kwargs.get("attention_mask"), args[0])
        self.tokens, self.prompt_lengths = _numbers(mask), mask.sum(-1)
        self._prompt = self.ids = None

    def _continues(self, given: Tensor, past: int) -> bool:
        """Whether the pass goes on with the texts of the one before."""
        known = self._prompt
        if known is None or len(known) != len(given):
            return False
        if past:
            return True
        width = known.shape[1]
        return given.shape[1] > width and torch.equal(given[:, :width], known)


@contextmanager
def follow_positions(model: TransformerBridge) -> Generator[TextPositions, None, None]:
    """Yield the positions of whatever pass runs inside the block.

    A row's prompt is what the first pass over it saw: a pass on a cache goes on with it, and so
    does one whose tokens begin with all of the prompt's.
    """
    found = TextPositions()
    with ExitStack() as stack:
        inner = model.original_model
        handles = [
            inner.register_forward_pre_hook(found.enter_model, with_kwargs=True),
            inner.register_forward_hook(found.leave_model, always_call=True),
            *(b.register_forward_pre_hook(found.enter_block, with_kwargs=True)
              for b in model.blocks),
        ]  # fmt: skip
        for handle in handles:
            stack.callback(handle.remove)
        yield found


def _numbers(mask: Bool[Tensor, "batch pos"]) -> Int[Tensor, "batch pos"]:
    return (mask.long().cumsum(-1) - 1).masked_fill(~mask, -1)


def _real(mask: Tensor | None, resid: Tensor) -> Bool[Tensor, "batch pos"]:
    """Which tokens are no padding, by what a block is given: a real token sees itself."""
    if mask is None:
        return torch.ones(resid.shape[:2], dtype=torch.bool, device=resid.device)
    if mask.dim() == 4:
        mask = mask[:, 0].diagonal(dim1=-2, dim2=-1)
        mask = mask if mask.dtype == torch.bool else mask == 0
    return mask.bool().expand(resid.shape[:2])
