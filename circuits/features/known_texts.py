"""Training, target and test texts as a model and its dictionaries read them, once for all seeds."""

from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from circuits.features.written import Written
from hooked_qwen.progress import Report, silent
from hooked_qwen.sites import Site
from hooked_qwen.tokens import encode_prompt
from saes.evaluation.baselines import untrained
from saes.evaluation.probing import Labelled
from saes.scope.activity import LONGEST, Activity, activity_of, read_through
from saes.scope.coverage import Incidence
from saes.scope.synthesis import nearest_cosine, nearest_shared
from saes.suite import Suite


@dataclass(frozen=True)
class ReadTexts:
    """Texts as the model reads them."""

    texts: list[Labelled]
    incidence: Incidence
    means: Float[Tensor, "texts d"]
    rows: list[list[int]]

    def part(self, start: int, stop: int) -> "ReadTexts":
        return ReadTexts(
            self.texts[start:stop],
            self.incidence.part(start, stop),
            self.means[start:stop],
            self.rows[start:stop],
        )


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
        self.activity, read = self._read(every, report)
        n, m = len(training), len(training) + len(target)
        self.training, self.target = read.part(0, n), read.part(n, m)
        self.test = read.part(m, len(every))
        self.contents = [text.text for text in every[:m]]
        self.control_activity = activity_of(model, self.control, self.contents, report=report)

    def _read(
        self, texts: Sequence[Labelled], report: Report = silent
    ) -> tuple[Activity, ReadTexts]:
        found = read_through(
            self.model, self.suite, [t.text for t in texts], sites=[self.site], report=report
        )
        incidence = Incidence.of_activity(found.activity)
        rows = [self.tokens(text.text) for text in texts]
        return found.activity, ReadTexts(list(texts), incidence, found.means[self.site], rows)

    def read(self, texts: Sequence[Labelled]) -> ReadTexts:
        """Texts with their features and mean residuals; there may be none."""
        return self._read(texts)[1] if texts else self.training.part(0, 0)

    def on(self, suite: Suite, texts: Sequence[Written]) -> Incidence:
        """Which features of a suite are on in each text; there may be none."""
        if not texts:
            return self.training.incidence.part(0, 0)
        return Incidence.of_activity(activity_of(self.model, suite, [t.text for t in texts]))

    def tokens(self, text: str) -> list[int]:
        return encode_prompt(self.model.tokenizer, text)[:LONGEST]

    def nearness(self, read: ReadTexts) -> tuple[list[float], list[float]]:
        """Runs of tokens that the nearest training text has too, and its cosine, of each text."""
        cosine = nearest_cosine(read.means, self.training.means)
        return nearest_shared(read.rows, self.training.rows), cosine.tolist()
