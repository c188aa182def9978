"""What a model writes under many edits at once, and what the model as it is makes of it.

Every edit takes the same prompts in rows of its own, many edits in one pass. A draw at a
temperature is

    argmax over the vocabulary of logit / temperature - log(-log(u))

with one u for each prompt, step and token of the vocabulary, whatever the edit (Gumbel's trick):
edits are compared at equal chance, and what changes nothing writes the same text.

Axes: `prompts`; `rows` are edits times prompts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge
from transformers import LogitsProcessor

from circuits.edits.continuations import GenerateConfig, generate, text_ends
from hooked_qwen.forward import last_logits, unembed
from hooked_qwen.hooks import capture
from hooked_qwen.placement import device_of
from hooked_qwen.progress import Report, silent
from hooked_qwen.sites import Site
from hooked_qwen.tokens import end_of_text, pad_left
from saes.edit import applied_by_row
from saes.edit_file import Edit, Where
from saes.scope.text_scores import repetition
from saes.suite import Suite

ROWS = 256
"Prompts times edits that are written on from in one pass, at most."
TOKENS_AT_ONCE = 1 << 14
"Of these, with what is written after them: caches and a pass over long prompts fill the memory."
TokenIds = tuple[int, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Continuations:
    """What was written after each prompt; on the CPU."""

    texts: tuple[str, ...]
    nats: Float[Tensor, " prompts"]
    "per token written, under the model as it is, after the prompt as it is; NaN of none written"
    repetition: Float[Tensor, " prompts"]
    "share of n-grams of tokens that came before"
    kl: Float[Tensor, " prompts"]
    """From the model as it is, in nats, of the first token that can differ, after equal tokens: the
    one after the prompt, or the second one written where edits act on what is written alone. NaN
    where what stands before it differs or the text has ended."""
    fired: bool = True
    "whether the edit changed anything"


class SteeredWriter:
    """Continuations of some prompts under edits of one suite."""

    def __init__(
        self,
        model: TransformerBridge,
        suite: Suite,
        prompts: Sequence[str],
        config: GenerateConfig,
        *,
        rows: Sequence[Sequence[int]],
        during: Where = "all",
        rows_at_once: int = ROWS,
        tokens_at_once: int = TOKENS_AT_ONCE,
    ) -> None:
        """`rows` are the tokens of the `prompts`; `during` is where the edits act."""
        self._limits = rows_at_once, tokens_at_once
        self.model, self.suite, self.config = model, suite, config
        self.prompts, self.rows = prompts, [tuple(row) for row in rows]
        self._first = 1 if during == "generated" else 0
        self._plain: tuple[Tensor | None, list[TokenIds]] | None = None
        self._nats: dict[tuple[TokenIds, TokenIds], float] = {}

    @torch.no_grad()
    def plain(self, rows: Sequence[Sequence[int]] | None = None) -> Continuations:
        """As the model is; after other prompts where they are given, judged after these."""
        (found,) = self._written([None], self.rows if rows is None else rows)
        return found

    @torch.no_grad()
    def under(self, edits: Sequence[Edit], *, report: Report = silent) -> list[Continuations]:
        """Under each of some edits."""
        found: list[Continuations] = []
        at_once = max(1, self._most() // len(self.rows))
        for first in range(0, len(edits), at_once):
            found += self._written(edits[first : first + at_once], self.rows)
            report("steering", len(found), len(edits))
        return found

    def _most(self) -> int:
        """Rows that are written on from together."""
        longest = max(map(len, self.rows)) + self.config.tokens
        rows, tokens = self._limits
        return min(rows, tokens // longest)

    def _written(
        self, edits: Sequence[Edit | None], rows: Sequence[Sequence[int]]
    ) -> list[Continuations]:
        if self._plain is None and (edits != [None] or rows is not self.rows):
            self.plain()
        model, of_each = self.model, len(rows)
        batch = pad_left([*rows] * len(edits), end_of_text(model.tokenizer))
        steps = _Steps(of_each, self.config, self._first)
        greedy = replace(self.config, temperature=0.0)
        with applied_by_row(model, self.suite, edits, must_fire=False) as firing:
            batch = batch.to(device_of(model))
            tokens = generate(model, batch, greedy, processors=[steps]).cpu()
        fired = [one is None or one.fired for one in firing]
        ends = set(text_ends(model))
        own = [_until(row, ends) for row in tokens.tolist()]
        if self._plain is None:
            self._plain = steps.logs, own
        kl = self._kl(steps.logs, own)
        self._judge({(row, text) for row, text in zip(self.rows * len(edits), own, strict=True)})
        return [
            self._of_edit(own[i * of_each : (i + 1) * of_each], kl[i * of_each :][:of_each], on)
            for i, on in enumerate(fired)
        ]

    def _of_edit(
        self, own: Sequence[TokenIds], kl: Float[Tensor, " prompts"], on: bool
    ) -> Continuations:
        nats = [self._nats[pair] for pair in zip(self.rows, own, strict=True)]
        return Continuations(
            texts=tuple(self.model.tokenizer.decode(list(row)) for row in own),
            nats=torch.tensor(nats, dtype=torch.float64),
            repetition=torch.tensor([repetition(row) for row in own], dtype=torch.float64),
            kl=kl.double(),
            fired=on,
        )

    def _kl(
        self, logs: Float[Tensor, "rows vocabulary"] | None, own: Sequence[TokenIds]
    ) -> Float[Tensor, " rows"]:
        """Of what is said at the step that is compared, after what has been written before it."""
        assert self._plain is not None, "written first"
        n, (plain, before) = self._first, self._plain
        if logs is None or plain is None:
            return torch.full((len(own),), torch.nan)
        parts = logs.split(len(before))
        found = [F.kl_div(p, plain, log_target=True, reduction="none").sum(-1).cpu() for p in parts]
        pairs = zip([*before] * len(parts), own, strict=True)
        alike = [len(a[:n]) == n and a[:n] == b[:n] for a, b in pairs]
        return torch.cat(found).where(torch.tensor(alike), torch.nan)

    def _judge(self, pairs: set[tuple[TokenIds, TokenIds]]) -> None:
        """Find the nats of what was not written before."""
        new = sorted((pair for pair in pairs - self._nats.keys() if pair[1]), key=_length)
        self._nats |= {pair: float("nan") for pair in pairs if not pair[1]}
        for first in range(0, len(new), most := max(1, self._most())):
            some = new[first : first + most]
            self._nats |= dict(zip(some, _nats(self.model, some), strict=True))


def _length(
    pair: tuple[TokenIds, TokenIds],
) -> tuple[int, tuple[TokenIds, TokenIds]]:
    return len(pair[0]) + len(pair[1]), pair


def _until(row: Sequence[int], ends: set[int]) -> TokenIds:
    """The tokens before the first that ends a text."""
    stop = next((i for i, token in enumerate(row) if token in ends), len(row))
    return tuple(row[:stop])


def _nats(model: TransformerBridge, pairs: Sequence[tuple[TokenIds, TokenIds]]) -> list[float]:
    """The mean of -log p over the tokens of each text that follows a prompt."""
    batch = pad_left([[*a, *b] for a, b in pairs], end_of_text(model.tokenizer))
    last = Site("resid_post", len(model.blocks) - 1)
    with capture(model, {last}) as seen:
        last_logits(model, batch)
    found = []
    # One text is unembedded at a time: with a large vocabulary, logits are what fills the memory.
    for stream, (_, text) in zip(seen[last], pairs, strict=True):
        at = stream[None, -len(text) - 1 : -1].contiguous()
        ids = torch.tensor(text, device=at.device)
        p = unembed(model, at)[0].log_softmax(-1)
        found.append(-p.gather(-1, ids.to(p.device)[:, None]).double().mean())
    return torch.stack(found).tolist()


class _Steps(LogitsProcessor):
    """Keeps what one step says, and draws by noise that is the same for every edit."""

    def __init__(self, prompts: int, config: GenerateConfig, kept: int) -> None:
        self._prompts, self._config = prompts, config
        self._step, self._kept = 0, kept
        self.logs: Tensor | None = None
        "log-probabilities at the step that is kept; None where all texts end before it"

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        if self._step == self._kept:
            self.logs = scores.float().log_softmax(-1)
        self._step += 1
        if not self._config.temperature:
            return scores
        generator = torch.Generator().manual_seed(self._config.seed * 1_000_003 + self._step)
        u = torch.rand(self._prompts, scores.shape[-1], generator=generator)
        noise = -(-u.clamp(1e-9, 1 - 1e-7).log()).log()
        times = len(scores) // self._prompts
        return scores / self._config.temperature + noise.to(scores).repeat(times, 1)


def instructed(instruction: str, prompt: str) -> str:
    """The prompt with an instruction, where `{prompt}` says or in a line before."""
    if "{prompt}" in instruction:
        return instruction.replace("{prompt}", prompt)
    return f"{instruction}\n{prompt}"


def settings(config: GenerateConfig) -> Mapping[str, Any]:
    """How it was written, as a record holds it."""
    return {"tokens": config.tokens, "temperature": config.temperature, "seed": config.seed}
