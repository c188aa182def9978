"""One seed of SHIFT: its texts, the probe of the label, its circuit, and what is cut of it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from circuits.analysis import Analysis
from circuits.attribution.node_effects import NodeEffects
from circuits.discovery.config import DiscoverConfig
from circuits.discovery.ranking import rank_nodes
from circuits.discovery.resume import NOTHING_KEPT, DiscoveryParts
from circuits.edits.ablation import Ablation, apply
from circuits.metrics.answers import metric_of, with_own_answers
from circuits.shift.labelled import LabelledText, ShiftData
from circuits.shift.pooled import EncodedTexts, encoded, pooled
from circuits.shift.probe import Probe, fitted_probe, losses
from circuits.shift.scores import ProbePredictions
from hooked_qwen.nodes import Node
from hooked_qwen.progress import Report, silent
from hooked_qwen.sites import Site
from saes.suite import Suite

TextMeans = Float[Tensor, "texts d"]
SETS = ("ambiguous", "balanced", "balanced_train", "spurious_only")
HEAD, AGAIN = "", ", head trained again"


@dataclass(frozen=True, kw_only=True)
class CaseConfig:
    """How the probe and its circuit are found."""

    layer: int | None = None
    "the stream after this layer is read; None: by the rule of `circuits.shift.probe`"
    estimator: str = "ig"
    "of node effects; its references are zero"
    steps: int = 10
    nodes: int = 60
    "features of the circuit that are judged: those with the largest effect"
    circuit_texts: int = 64
    "ambiguous texts that the circuit is of, as many of each class"
    batch_size: int = 32


@dataclass(frozen=True, eq=False)
class ShiftCase:
    """One seed."""

    model: TransformerBridge
    suite: Suite
    data: ShiftData
    texts: Mapping[str, EncodedTexts]
    "by set; no `spurious_only` where the data has none"
    site: Site
    losses: Mapping[Site, float]
    "log loss on held-out ambiguous texts of a probe at each site"
    means: Mapping[str, TextMeans]
    "of the plain model at the site, by set"
    counted: Mapping[str, Float[Tensor, "texts pos"]]
    "what each token counts for in them"
    config: CaseConfig
    seed: int

    @classmethod
    def of(
        cls,
        model: TransformerBridge,
        suite: Suite,
        data: ShiftData,
        *,
        config: CaseConfig,
        seed: int,
        report: Report = silent,
    ) -> "ShiftCase":
        """Encode the texts, run the plain model over them, and choose where the probe reads."""
        suite = suite.fitting(model)
        sites = _readable(model, suite, config.layer)
        given: dict[str, Sequence[LabelledText]] = {name: getattr(data, name) for name in SETS}
        texts = {name: encoded(model, some) for name, some in given.items() if some}
        found = {}
        for n, (name, some) in enumerate(texts.items()):
            report("texts", n, len(texts))
            found[name] = pooled(model, some, sites)
        report("texts", len(texts), len(texts))
        by_site = losses(found["ambiguous"].means, texts["ambiguous"].label, seed=seed)
        site = min(by_site, key=lambda s: by_site[s])
        return cls(
            model,
            suite,
            data,
            texts,
            site,
            by_site,
            {name: read.means[site] for name, read in found.items()},
            {name: read.counted[site] for name, read in found.items()},
            config,
            seed,
        )

    @cached_property
    def probe(self) -> Probe:
        """Of the label, trained where both signals agree."""
        return fitted_probe(self.means["ambiguous"], self.texts["ambiguous"].label)

    @cached_property
    def spurious_probe(self) -> Probe | None:
        """Of the spurious signal, trained on texts of other classes; None without such."""
        if "spurious_only" not in self.texts:
            return None
        return fitted_probe(self.means["spurious_only"], self.texts["spurious_only"].spurious)

    @cached_property
    def analysis(self) -> Analysis:
        """Of the texts that the circuit is of; the metric is the logit of the label's probe."""
        ambiguous = self.texts["ambiguous"]
        chosen = _of_both(ambiguous, self.config.circuit_texts, self.seed)
        return Analysis.of(
            self.model,
            self.suite,
            with_own_answers(self.model, ambiguous[chosen].prompts),
            DiscoverConfig(
                metric=self.probe.readout(self.site),
                estimator=self.config.estimator,
                steps=self.config.steps,
                nodes=self.config.nodes,
                positions="sum",
                reference="zero",
                batch_size=self.config.batch_size,
            ),
        )

    def label_effects(
        self, analysis: Analysis | None = None, *, parts: DiscoveryParts = NOTHING_KEPT
    ) -> NodeEffects:
        """Of every node on the label's probe; `parts` keeps what a discovery needs of them too."""
        return rank_nodes(analysis or self.analysis, parts=parts)[0]

    def spurious_effects(self, analysis: Analysis | None = None) -> NodeEffects | None:
        """Of every node on the probe of the spurious signal, where there is one."""
        if self.spurious_probe is None:
            return None
        analysis = analysis or self.analysis
        config = replace(analysis.config, metric=self.spurious_probe.readout(self.site))
        metric = metric_of(
            config.metric, self.model, analysis.prompts, analysis.suite, positions="sum"
        )
        return rank_nodes(replace(analysis.asked(config), metric=metric))[0]

    def read(self, name: str, edit: AbstractContextManager[Any] | None = None) -> TextMeans:
        """The means of a set at the site, with an edit in force."""
        counted = {self.site: self.counted[name]}
        found = pooled(self.model, self.texts[name], [self.site], edit=edit, counted=counted)
        return found.means[self.site]

    def ablated(
        self, nodes: Sequence[Node], analysis: Analysis | None = None
    ) -> AbstractContextManager[None]:
        """Features set to zero at every token; errors and norm outliers stay as they are."""
        return apply(analysis or self.analysis, Ablation(ablated=tuple(nodes), to="zero"))

    def says(self, x: TextMeans, probe: Probe | None = None) -> ProbePredictions:
        """What a probe, that of the label unless another is given, says of the test's means."""
        test = self.texts["balanced"]
        return ProbePredictions((probe or self.probe).says(x), test.label, test.spurious)

    def with_both_heads(
        self, test: TextMeans, ambiguous: Callable[[], TextMeans]
    ) -> Iterator[ProbePredictions]:
        """By the head as it was trained, and by one trained again on what is read now."""
        yield self.says(test)
        yield self.says(test, fitted_probe(ambiguous(), self.texts["ambiguous"].label))

    def under(self, edit: Callable[[], AbstractContextManager[Any]]) -> Iterator[ProbePredictions]:
        """With an edit in the model, by both heads."""
        return self.with_both_heads(
            self.read("balanced", edit()), lambda: self.read("ambiguous", edit())
        )


def _readable(model: TransformerBridge, suite: Suite, layer: int | None) -> list[Site]:
    """The streams that a probe may read: those with a dictionary at or before them."""
    first = max(0, min(site.layer for site in suite.writes))
    last = len(model.blocks) - 1
    if layer is None:
        return [Site("resid_post", n) for n in range(first, last + 1)]
    if not first <= layer <= last:
        raise ValueError(
            f"layer {layer} cannot be read: expected {first}, the first with a dictionary, "
            f"to {last}"
        )
    return [Site("resid_post", layer)]


def _of_both(texts: EncodedTexts, n: int, seed: int) -> Int[Tensor, " chosen"]:
    """At most `n` texts, as many of each class."""
    generator = torch.Generator().manual_seed(seed)
    chosen = []
    for members in ((~texts.label).nonzero().flatten(), texts.label.nonzero().flatten()):
        order = torch.randperm(len(members), generator=generator)
        chosen.append(members[order[: max(1, n // 2)]])
    return torch.cat(chosen).sort().values
