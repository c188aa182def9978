"""Whether a feature reads a concept or writes it: input and output scores.

With T the k = 20 tokens that a feature promotes most by the direct path (the logit lens),

    input score  = share of the texts that turn it on most (100 at most) whose strongest token is
                   in T
    output score = (1 - rank / vocabulary) P      rank and P are those of the likeliest token of T,
                                                  rank from 0

after the prompt "From my experience," with the feature raised at its last token by ten times the
largest activation that any feature of the dictionary has there.

Source: Arad, Mueller & Belinkov 2025, arXiv:2505.20063 (and its code).
Differs: T leaves out rows of the vocabulary that are no token, an activation is raised without a
pass through the dictionary's reconstruction, and texts are those that were given, where the paper
takes Neuronpedia's and leaves out features with fewer than ten.

Axes: `nodes` features, `k` tokens of each.
"""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from hooked_qwen.forward import last_logits, run_through
from hooked_qwen.hooks import capture
from hooked_qwen.nodes import Node
from hooked_qwen.tokens import encode_prompt
from hooked_qwen.transfer import to_host
from saes.edit import applied_by_row
from saes.edit_file import Edit, Operation
from saes.evaluation.splice import unpadded
from saes.scope.usage import Peak
from saes.suite import Suite

NEUTRAL = "From my experience,"
FACTOR = 10.0
"Of the largest activation at the token."
PROMOTED = 20
"Tokens that a feature is said to promote."
MOST_TEXTS = 100
ROWS = 64
"Features that are raised in one pass."


@torch.no_grad()
def output_scores(
    model: TransformerBridge,
    suite: Suite,
    nodes: Sequence[Node],
    promoted: Int[Tensor, "nodes k"],
    *,
    prompt: str = NEUTRAL,
    largest: Mapping[str, float] | None = None,
    factor: float = FACTOR,
) -> list[float]:
    """The output score of each feature, 0 to 1; `promoted` are the tokens that it promotes.

    `largest` is what `largest_at_end` gives for the prompt, where it is known.

    Raises `ValueError` for a prompt without tokens.
    """
    raised = largest or largest_at_end(model, suite, sorted({n.site for n in nodes}), prompt)
    ids = encode_prompt(model.tokenizer, prompt)
    suite, tokens = suite.fitting(model), torch.tensor([ids])
    found: list[float] = []
    for first in range(0, len(nodes), ROWS):
        some = nodes[first : first + ROWS]
        edits = [
            Edit(
                operations=(
                    Operation(
                        node=node,
                        do="add",
                        value=factor * raised[node.site],
                        positions=(len(ids) - 1,),
                    ),
                )
            )
            for node in some
        ]
        with applied_by_row(model, suite, edits, must_fire=False):
            logits = last_logits(model, unpadded(tokens.expand(len(some), -1)))
        found += output_score(logits, promoted[first : first + ROWS].to(logits.device)).tolist()
    return found


def output_score(
    logits: Float[Tensor, "nodes vocabulary"], promoted: Int[Tensor, "nodes k"]
) -> Float[Tensor, " nodes"]:
    """(1 - rank / vocabulary) P of the likeliest promoted token; of one raised feature a row."""
    p = logits.softmax(-1)
    best = p.gather(-1, promoted).amax(-1, keepdim=True)
    rank = (p > best).sum(-1)
    return (1 - rank / p.shape[-1]) * best[:, 0]


@torch.no_grad()
def largest_at_end(
    model: TransformerBridge, suite: Suite, names: Sequence[str], prompt: str = NEUTRAL
) -> dict[str, float]:
    """The largest activation of any feature at a prompt's last token, by dictionary.

    Raises `ValueError` for a prompt without tokens.
    """
    if not (ids := encode_prompt(model.tokenizer, prompt)):
        raise ValueError("the neutral prompt has no tokens: give one")
    suite, read = suite.fitting(model), {s for name in names for s in suite.reads_of(name)}
    with capture(model, read) as seen:
        run_through(model, unpadded(torch.tensor([ids])), max(0, *(site.layer for site in read)))
    found = [
        suite[name].encode(suite.read(name, seen)[:, -1:]).value.flatten().float().amax()[None]
        for name in names
    ]
    return dict(zip(names, (float(x) for x in to_host(found)), strict=True))


def input_score(peaks: Sequence[Peak], promoted: Int[Tensor, " k"]) -> float | None:
    """The input score of a feature, None where it was on in no text."""
    strongest = peaks[:MOST_TEXTS]
    if not strongest:
        return None
    tokens = set(promoted.tolist())
    return sum(peak.token in tokens for peak in strongest) / len(strongest)
