"""Training, target and test texts as a model and its dictionaries read them, once for all seeds."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from circuits.features.written import SyntheticText
from hooked_qwen.progress import Report, silent
from hooked_qwen.sites import Site
from hooked_qwen.tokens import encode_prompt
from saes.evaluation.baselines import untrained
from saes.evaluation.probing import Labelled
from saes.scope.activity import LONGEST, Reading, activity_of, read_through
from saes.scope.coverage import Incidence
from saes.scope.synthesis import nearest_cosine, nearest_shared
from saes.suite import Suite


@dataclass(frozen=True)
class LabelledReadings:
    """Texts as the model reads them."""

    texts: list[Labelled]
    incidence: Incidence
    means: Float[Tensor, "texts d"]
    rows: list[list[int]]

    def part(self, start: int, stop: int) -> "LabelledReadings":
        return LabelledReadings(
            self.texts[start:stop],
            self.incidence.part(start, stop),
            self.means[start:stop],
            self.rows[start:stop],
        )


def _contents(texts: Sequence[Labelled]) -> list[str]:
    return [text.text for text in texts]


class KnownTexts:
    """An opened model with the texts that are the same under every seed."""

    def __init__(
        self,
        model: TransformerBridge,
        suite: Suite,
        training: Sequence[Labelled],
        target: Sequence[Labelled],
        test: Sequence[Labelled],
        seed: int,
        report: Report = silent,
    ) -> None:
        self.model, self.suite, self.control = model, suite, untrained(suite, seed=seed)
        self.site = Site("resid_post", len(model.blocks) // 2)
        every = [*training, *target, *test]
        found = read_through(
            model, suite, _contents(every), sites=[self.site], beside=[self.control], report=report
        )
        self.activity, read = found.activity, self._of(every, found)
        n, m = len(training), len(training) + len(target)
        self.training, self.target = read.part(0, n), read.part(n, m)
        self.test = read.part(m, len(every))
        self.contents = _contents(every[:m])
        self.control_activity = found.beside[0].of_texts(torch.arange(m))

    def _of(self, texts: Sequence[Labelled], found: Reading) -> LabelledReadings:
        incidence = Incidence.of_activity(found.activity)
        rows = [self.tokens(text.text) for text in texts]
        return LabelledReadings(list(texts), incidence, found.means[self.site], rows)

    def read(self, texts: Sequence[Labelled]) -> LabelledReadings:
        """Texts with their features and mean residuals; there may be none."""
        if not texts:
            return self.training.part(0, 0)
        found = read_through(self.model, self.suite, _contents(texts), sites=[self.site])
        return self._of(texts, found)

    def on(self, suite: Suite, texts: Sequence[SyntheticText]) -> Incidence:
        """Which features of a suite are on in each text; there may be none."""
        if not texts:
            return self.training.incidence.part(0, 0)
        return Incidence.of_activity(activity_of(self.model, suite, [t.text for t in texts]))

    def tokens(self, text: str) -> list[int]:
        return encode_prompt(self.model.tokenizer, text)[:LONGEST]

    def nearness(self, read: LabelledReadings) -> tuple[list[float], list[float]]:
        """Runs of tokens that the nearest training text has too, and its cosine, of each text."""
        cosine = nearest_cosine(read.means, self.training.means)
        return nearest_shared(read.rows, self.training.rows), cosine.tolist()
