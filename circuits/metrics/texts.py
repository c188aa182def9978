"""Metrics of whole texts: how well the model predicts them, how likely it thinks some tokens.

    next-token      mean over a text's tokens, but the first, of log p(the token | those before)
    token:TEXT      mean over all places of log p(TEXT comes next), TEXT one token; several with |
                    between count together

In nats a token; the first is the loss with its sign changed. They are read from the stream that
leaves the last block, at every token (`SiteMetric`).
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from circuits.metrics.bound import with_values
from circuits.metrics.metric import EachColumn, SiteMetric
from circuits.prompt_files import Prompt
from circuits.prompts import EncodedPrompts
from hooked_qwen.forward import unembed
from hooked_qwen.sites import Site
from hooked_qwen.tokens import encode, encode_prompt, end_of_text, pad_left, token_strings
from saes.suite import Suite

NEXT, TOKEN = "next-token", "token:"
LOGITS_AT_ONCE = 1 << 26
"Logits that are held together."


def encoded_texts(texts: Sequence[str], tokenizer: Any, *, longest: int) -> EncodedPrompts:
    """The first tokens of texts as prompts without answers.

    Raises `ValueError` for a text of fewer than two tokens: nothing in it is predicted.
    """
    rows = [encode_prompt(tokenizer, text)[:longest] for text in texts]
    for number, row in enumerate(rows, 1):
        if len(row) < 2:
            raise ValueError(
                f"text {number} has {len(row)} tokens: an effect on a text needs two or more"
            )
    nothing = ((),) * len(rows)
    return EncodedPrompts(
        tuple(Prompt(clean=text, patch=None, answer=(), wrong=()) for text in texts),
        pad_left(rows, end_of_text(tokenizer)),
        None,
        nothing,
        nothing,
        None,
    )


def text_metric(
    name: str, model: TransformerBridge, suite: Suite, prompts: EncodedPrompts
) -> SiteMetric:
    """The metric called so, on texts as `encoded_texts` gives them.

    Raises `ValueError` for a name that is none of a text's.
    """
    mask = prompts.clean.mask
    columns = mask.float()
    if name == NEXT:
        # The last token predicts what is not there.
        columns[:, -1] = 0
        following = prompts.clean.tokens.roll(-1, 1).unsqueeze(-1)
        each = _log_probability(model, following)
    elif name.startswith(TOKEN):
        chosen = torch.tensor(_chosen(name.removeprefix(TOKEN), model.tokenizer))
        each = _log_probability(model, chosen.expand(*mask.shape, -1))
    else:
        raise ValueError(
            f"no metric of a text is called {name!r}: expected {NEXT!r} or '{TOKEN}TEXT', such as "
            f"'{TOKEN} are'"
        )
    bare = SiteMetric(
        site=Site("resid_post", len(model.blocks) - 1),
        when="leaving",
        weights=columns / columns.sum(-1, keepdim=True),
        value=None,
        clean=torch.zeros(len(mask)),
        patch=None,
        each=each,
    )
    return with_values(bare, model, suite, prompts)


def _chosen(text: str, tokenizer: Any) -> list[int]:
    """The tokens that are named; raises `ValueError` for what is not one token."""
    found = []
    for part in text.split("|"):
        ids = encode(tokenizer, part)
        if len(ids) != 1:
            pieces = ", ".join(map(repr, token_strings(tokenizer, ids))) or "none"
            raise ValueError(
                f"{part!r} in the metric '{TOKEN}{text}' is {len(ids)} tokens ({pieces}): give "
                "single ones, most words with a space before"
            )
        found += ids
    return found


def _log_probability(
    model: TransformerBridge, chosen: Int[Tensor, "prompts pos chosen"]
) -> EachColumn:
    """Log of the probability that one of the `chosen` tokens comes next, of every column."""
    vocabulary = model.W_U.shape[1]

    def each(
        x: Float[Tensor, "batch pos d_model"], rows: Int[Tensor, " batch"]
    ) -> Float[Tensor, "batch pos"]:
        index = chosen.to(x.device)[rows, -x.shape[1] :]
        at_once = max(1, LOGITS_AT_ONCE // (vocabulary * x.shape[1]))
        parts = []
        for some, ids in zip(x.split(at_once), index.split(at_once), strict=True):
            found = unembed(model, some).log_softmax(-1).gather(-1, ids)
            parts.append(found.logsumexp(-1))
        return torch.cat(parts)

    return each
