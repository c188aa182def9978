"""Token rows to train on, made in advance so that the training loop only slices."""

from collections.abc import Iterator
from itertools import islice

import torch
from jaxtyping import Int
from tokenizers import Tokenizer
from torch import Tensor

BATCH = 2_000


def token_rows(
    tokenizer: Tokenizer, documents: Iterator[str], *, tokens: int, length: int
) -> Int[Tensor, "rows length"]:
    """`tokens` training tokens as rows of `length`: documents end to end, a separator after each.

    Every row starts at the start of a document and the last document of a row is cut off.
    Prompts are read without any token before them, so the model must meet documents at
    position 0, not only after a separator.
    """
    wanted = tokens // length
    rows: list[list[int]] = []
    row: list[int] = []
    while len(rows) < wanted:
        for encoding in tokenizer.encode_batch(list(islice(documents, BATCH))):
            row += [*encoding.ids, 0]
            if len(row) >= length:
                rows.append(row[:length])
                row = []
    return torch.tensor(rows[:wanted], dtype=torch.int16)
