"""What a model does before and after it is trained: what it writes, and how it predicts text.

    behaviour       of what is written after each prompt, mean over samples, then over prompts
    cross-entropy   on texts, in nats a token, the first token of each not predicted
    features        mean pre-activation and activation of chosen features on texts

Intervals are of whole prompts and whole texts drawn again (`saes.evaluation.bootstrap`). Sampling
is by a seed of its own, the same for every model that is judged.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from hooked_qwen.config_checks import check_at_least
from hooked_qwen.placement import device_of
from hooked_qwen.precision import widened
from hooked_qwen.progress import Report, silent
from hooked_qwen.tokens import by_length, encode_prompt, end_of_text, pad_left
from saes.evaluation.bootstrap import interval, ratio, ratio_interval, resamples
from saes.scope.behaviour import Behaviour, pieces_of
from saes.scope.chosen_features import (
    TOKENS_PER_PASS,
    ChosenFeatures,
    FiringStatistics,
    survey,
)
from saes.suite import Suite

AT_ONCE = 16
"Texts that are written together."
KEPT = 3
"Continuations that a record quotes."
TokenRows = Sequence[Sequence[int]]


@dataclass(frozen=True, kw_only=True)
class WriteConfig:
    """How continuations of prompts are sampled.

    Raises `ValueError` for what is out of range.
    """

    tokens: int = 40
    "written at most"
    samples: int = 4
    "continuations of each prompt"
    temperature: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        check_at_least(1, self, "tokens", "samples")
        if not self.temperature > 0:
            raise ValueError(f"the temperature is {self.temperature}: expected more than 0")


@torch.no_grad()
def written(
    model: nn.Module,
    tokenizer: Any,
    prompts: Sequence[str],
    config: WriteConfig,
    *,
    report: Report = silent,
) -> list[list[list[int]]]:
    """Tokens that a plain model writes after each prompt, several samples of each."""
    device = device_of(model)
    rows = [encode_prompt(tokenizer, prompt) for prompt in prompts]
    at_once = max(1, AT_ONCE // config.samples)
    found: list[list[list[int]]] = []
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(config.seed)
        for start in range(0, len(rows), at_once):
            batch = pad_left(rows[start : start + at_once], end_of_text(tokenizer)).to(device)
            text = cast(Any, model).generate(
                input_ids=batch.tokens,
                attention_mask=batch.mask.long(),
                do_sample=True,
                temperature=config.temperature,
                top_k=0,
                top_p=1.0,
                num_return_sequences=config.samples,
                max_new_tokens=config.tokens,
                pad_token_id=end_of_text(tokenizer),
                use_cache=True,
            )
            new = text[:, batch.tokens.shape[1] :].tolist()
            found += [new[i : i + config.samples] for i in range(0, len(new), config.samples)]
            report("writing", len(found), len(rows))
    return found


def behaviour_of(
    texts: Sequence[Sequence[Sequence[int]]], tokenizer: Any, behaviour: Behaviour
) -> Float[Tensor, " prompts"]:
    """Of what was written after each prompt, the mean over its samples."""
    means = [
        sum(behaviour(pieces_of(tokenizer, sample)) for sample in samples) / len(samples)
        for samples in texts
    ]
    return torch.tensor(means, dtype=torch.float64)


@torch.no_grad()
def cross_entropies(model: nn.Module, rows: TokenRows) -> tuple[Tensor, Tensor]:
    """Of each text: the sum over its predicted tokens in nats, and how many these are."""
    order, sums, counts = [], [], []
    for index, tokens in by_length(rows, max(1, TOKENS_PER_PASS // max(map(len, rows)))):
        tokens = tokens.to(device_of(model))
        logits = cast(Any, model)(input_ids=tokens, use_cache=False).logits[:, :-1]
        losses = F.cross_entropy(
            widened(logits).flatten(0, 1), tokens[:, 1:].flatten(), reduction="none"
        )
        sums.append(losses.view(len(tokens), -1).sum(-1).cpu().double())
        counts.append(torch.full((len(tokens),), tokens.shape[1] - 1.0, dtype=torch.float64))
        order += index
    back = torch.tensor(order).argsort()
    return torch.cat(sums)[back], torch.cat(counts)[back]


@dataclass(frozen=True, kw_only=True)
class Judge:
    """Everything that models are judged on, the same for all of them."""

    tokenizer: Any
    suite: Suite
    prompts: Sequence[str]
    behaviour: Behaviour
    clean: Mapping[str, TokenRows]
    "texts of tokens by what they are called"
    features: Mapping[str, ChosenFeatures]
    "by what they are called"
    write: WriteConfig
    report: Report = silent

    def __call__(self, model: nn.Module) -> dict[str, Any]:
        """The record of one model, `by_prompt` its behaviour after each prompt."""
        texts = written(model, self.tokenizer, self.prompts, self.write, report=self.report)
        by_prompt = behaviour_of(texts, self.tokenizer, self.behaviour)
        quoted = [
            {"prompt": prompt, "written": self.tokenizer.decode(samples[0])}
            for prompt, samples in list(zip(self.prompts, texts, strict=True))[:KEPT]
        ]
        return {
            "behaviour": _mean(by_prompt),
            "by_prompt": by_prompt.tolist(),
            "cross_entropy": {
                name: _ratio(*cross_entropies(model, rows)) for name, rows in self.clean.items()
            },
            "activation": self.activations(model),
            "written": quoted,
        }

    def activations(self, model: nn.Module) -> dict[str, dict[str, dict[str, float]]]:
        """Of each set of features, on each set of texts and on the prompts: means over both."""
        sets = dict(self.clean) | {"prompts": self._prompt_rows()}
        names = sorted({node.site for f in self.features.values() for node in f.nodes})
        found: dict[str, dict[str, dict[str, float]]] = {name: {} for name in self.features}
        for text, rows in sets.items():
            fired, means = survey(model, self.suite, names, rows, list(self.features.values()))
            for (name, chosen), mean in zip(self.features.items(), means, strict=True):
                found[name][text] = {
                    "pre_activation": float(mean.mean()),
                    "activation": _of(fired, chosen),
                }
        return found

    def _prompt_rows(self) -> list[list[int]]:
        rows = [encode_prompt(self.tokenizer, prompt) for prompt in self.prompts]
        return [row for row in rows if len(row) > 1] or rows


def _of(fired: Mapping[str, FiringStatistics], chosen: ChosenFeatures) -> float:
    means = [float(fired[node.site].mean[int(node.feature)]) for node in chosen.nodes]
    return sum(means) / len(means)


def _mean(values: Float[Tensor, " prompts"]) -> dict[str, Any]:
    draws = resamples(len(values)) @ values
    return {"mean": float(values.mean()), "interval": interval(draws)}


def _ratio(sums: Tensor, counts: Tensor) -> dict[str, Any]:
    return {"mean": ratio(sums, counts), "interval": ratio_interval(sums, counts)}


def difference(one: Sequence[float], other: Sequence[float]) -> dict[str, Any]:
    """Mean of one less the other, prompt by prompt, with the interval over prompts."""
    return _mean(torch.tensor(one, dtype=torch.float64) - torch.tensor(other, dtype=torch.float64))
