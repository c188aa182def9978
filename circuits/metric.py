"""What a circuit is a circuit *of*: a number for each prompt, computed from its last logits."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

Logits = Float[Tensor, "batch vocabulary"]
Metric = Callable[[Logits, Int[Tensor, " batch"]], Float[Tensor, " batch"]]
"Takes logits after the last token and the index of each row's prompt in the prompt set."


def logit_difference(answers: Sequence[Sequence[int]], wrongs: Sequence[Sequence[int]]) -> Metric:
    """Mean logit of the right answers minus mean logit of the wrong ones.

        m = mean over a of logit[a] - mean over w of logit[w]

    Units: logits. Positive means that the model prefers the right answer.
    """

    index = torch.zeros(len(answers), max(map(len, [*answers, *wrongs])) * 2, dtype=torch.long)
    weight = torch.zeros(index.shape)
    for row, (right, wrong) in enumerate(zip(answers, wrongs, strict=True)):
        n = len(right) + len(wrong)
        index[row, :n] = torch.tensor([*right, *wrong])
        weight[row, :n] = torch.tensor(
            [1 / len(right)] * len(right) + [-1 / len(wrong)] * len(wrong)
        )

    def metric(logits: Logits, rows: Int[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        chosen = logits.gather(1, index[rows].to(logits.device))
        return (chosen * weight[rows].to(chosen)).sum(-1)

    return metric
