"""Held-out accuracy of a model on every family of the bundled language."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hooked_qwen.bundled.language import TASKS, PromptPair, held_out


@dataclass(frozen=True)
class Score:
    """Of `n` pairs, the share where the answer beats the wrong token, and where it beats all."""

    accuracy: float
    top_1: float
    n: int


def score_tasks(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, n: int = 300
) -> dict[str, Score]:
    """The score on about `n` of each family's held-out pairs."""
    return {task: score(model, tokenizer, held_out(task, n)) for task in TASKS}


@torch.no_grad()
def score(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, pairs: Sequence[PromptPair]
) -> Score:
    """Run the clean prompts, those of one length together so that nothing is padded."""
    model.eval()
    groups: defaultdict[int, list[tuple[list[int], int, int]]] = defaultdict(list)
    for pair in pairs:
        prompt, (answer,), (wrong,) = tokenizer([pair.clean, *pair.answer, *pair.wrong]).input_ids
        groups[len(prompt)].append((prompt, answer, wrong))
    beaten = top = 0
    for group in groups.values():
        prompts, answers, wrongs = (torch.tensor(column) for column in zip(*group, strict=True))
        logits = model(input_ids=prompts, use_cache=False).logits[:, -1]
        right = logits.gather(1, answers[:, None])
        beaten += int((right > logits.gather(1, wrongs[:, None])).sum())
        top += int((logits.argmax(1) == answers).sum())
    return Score(beaten / len(pairs), top / len(pairs), len(pairs))
