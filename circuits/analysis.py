"""An analysis: what is opened once, and every step from discovery to ablation starts from.

    Analysis.of(model, suite, prompts, config)

holds the hooked model, the dictionaries as the model needs them, the encoded prompts, the metric
on them, and how they are read. What is derived from these (the states of the prompts, the means
that nodes are ablated to) is made when it is first asked for, and kept.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

from transformer_lens.model_bridge import TransformerBridge

from circuits.attribution.decomposed_run import norm_limits
from circuits.attribution.means import Means, mean_over
from circuits.attribution.state import States, batches
from circuits.discovery.config import DiscoverConfig
from circuits.metrics.answers import metric_of
from circuits.metrics.metric import Metric
from circuits.metrics.readout import metric_name
from circuits.prompts import EncodedPrompts
from hooked_qwen.html_tables import html_rows
from hooked_qwen.notices import counted
from hooked_qwen.placement import placement_of
from hooked_qwen.sites import Site
from saes.suite import Suite


@dataclass(frozen=True, kw_only=True, eq=False)
class Analysis:
    """A model, its dictionaries, prompts and a metric, opened.

    analysis = circuits.open("bundled", "bundled", "prompts.jsonl", nodes=100)
    circuits.discover(analysis)
    """

    model: TransformerBridge
    suite: Suite
    "in the model's precision, on its device (`Suite.fitting`)"
    prompts: EncodedPrompts
    metric: Metric
    "on these prompts"
    config: DiscoverConfig
    "the estimator, how positions count, what nodes are set to, how many prompts run together"
    edited: States | None = None
    "states of the prompts in an edited model, where that is what is looked at"
    made: dict[Any, Means] = field(default_factory=dict, repr=False)
    "means of these prompts, shared by analyses that differ in their metric or configuration"

    @classmethod
    def of(
        cls,
        model: TransformerBridge,
        suite: Suite,
        prompts: EncodedPrompts,
        config: DiscoverConfig | None = None,
        *,
        metric: Metric | None = None,
    ) -> "Analysis":
        """An analysis of `prompts`; the `metric` is the configuration's unless it is given.

        Raises `ValueError` for a metric that these prompts or dictionaries do not allow.
        """
        config, suite = config or DiscoverConfig(), suite.fitting(model)
        if metric is None:
            metric = metric_of(config.metric, model, prompts, suite, positions=config.positions)
        return cls(model=model, suite=suite, prompts=prompts, metric=metric, config=config)

    def __repr__(self) -> str:
        name, n = self.model.cfg.model_name, len(self.prompts)
        return f"Analysis of {n} prompt{'s' * (n != 1)} in {name}: {self.suite.summary()}"

    def _repr_html_(self) -> str:
        at = placement_of(self.model)
        compared = "" if self.prompts.patch is None else ", each with its patch"
        rows = [
            ("model", str(self.model.cfg.model_name)),
            ("dictionaries", self.suite.summary()),
            ("prompts", counted(len(self.prompts), "prompt") + compared),
            ("metric", metric_name(self.config.metric)),
            ("device", str(at.device)),
            ("dtype", str(at.dtype)),
        ]
        return html_rows(("", "analysis"), rows)

    def on(self, prompts: EncodedPrompts) -> "Analysis":
        """The same of other prompts."""
        return Analysis.of(self.model, self.suite, prompts, self.config)

    def by(self, suite: Suite) -> "Analysis":
        """The same by other dictionaries."""
        return replace(self, suite=suite.fitting(self.model), edited=None, made={})

    def at(self, sites: Iterable[Site]) -> "Analysis":
        """The same by those dictionaries alone that write one of `sites`: others are not read.

        Itself where these are all or none, or where states of an edited model are given.
        """
        suite = self.suite.at(sites)
        if self.edited is not None or len(suite) in (0, len(self.suite)):
            return self
        return replace(self, suite=suite)

    def asked(self, config: DiscoverConfig) -> "Analysis":
        """The same with another estimator, or other rules of what is kept.

        States are shared. Raises `ValueError` for a configuration that reads prompts in another
        way, or sets nodes to something else: that is another analysis.
        """
        for name in ("positions", "reference", "batch_size"):
            own, other = getattr(self.config, name), getattr(config, name)
            if own != other:
                raise ValueError(
                    f"the states of this analysis were made with {name} {own}, not {other}: open "
                    "another with Analysis.of"
                )
        return replace(self, config=config, edited=self.states)

    @cached_property
    def states(self) -> States:
        """The prompts in batches, every site decomposed, with the nodes' reference values."""
        if self.edited is not None:
            return self.edited
        return batches(
            self.model,
            self.suite,
            self.prompts,
            reference=self.config.reference,
            batch_size=self.config.batch_size,
            means=self.reference_means,
        )

    @property
    def reference_means(self) -> Means | None:
        """What nodes are set to where the reference is the mean: means over the clean prompts."""
        return self._means("clean") if self.config.reference == "mean" else None

    @property
    def means(self) -> Means:
        """What `mean` ablation sets nodes to: means over the patch prompts, else the clean ones."""
        return self._means("clean" if self.prompts.patch is None else "patch")

    @cached_property
    def norm_limits(self) -> dict[Site, float]:
        """The norm above which a token of any text is a norm outlier, at each site."""
        return norm_limits(
            self.model, self.suite, self.prompts.clean, batch_size=self.config.batch_size
        )

    def _means(self, side: Literal["clean", "patch"]) -> Means:
        by_position, size = self.config.positions != "sum", self.config.batch_size
        key = tuple(self.suite), side, by_position, size
        if key not in self.made:
            batch = self.prompts.clean if side == "clean" else self.prompts.patch
            assert batch is not None, "asked for before"
            self.made[key] = mean_over(
                self.model, self.suite, batch, by_position=by_position, batch_size=size
            )
        return self.made[key]

    @property
    def n_positions(self) -> int:
        """Positions told apart: 1 where they are summed."""
        return self.prompts.n_positions(self.config.positions)
