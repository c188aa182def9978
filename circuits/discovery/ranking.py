"""The effect of every node on the metric, by any estimator, strongest first."""

from circuits.ablation.exact_effects import exact_effects
from circuits.analysis import Analysis
from circuits.attribution.effects import Gradients, node_effects
from circuits.attribution.estimators import ESTIMATORS
from circuits.attribution.node_effects import EffectSums, NodeEffects
from circuits.attribution.spill import Spill
from circuits.attribution.state import KEPT, BatchState, each
from circuits.discovery.resume import NOTHING_KEPT, DiscoveryParts
from hooked_qwen.progress import Report, counting, silent

Ranking = NodeEffects
"Every changed node with its mean effect, strongest first."


def rank_nodes(
    analysis: Analysis, *, parts: DiscoveryParts = NOTHING_KEPT, report: Report = silent
) -> tuple[Ranking, Spill]:
    """Mean effect of every changed node, strongest first, and each batch's gradients.

    `parts` keeps what is done.
    """
    total = EffectSums()
    gradients = Spill(keep=analysis.suite.room_for_states(KEPT))
    estimator = ESTIMATORS[analysis.config.estimator]
    done = counting(report, "node effects", len(analysis.prompts))

    def add(state: BatchState) -> None:
        def find() -> tuple[NodeEffects, Gradients]:
            g = estimator.gradients(analysis, state)
            effects = node_effects(analysis, state, g)
            return (_exact(analysis, state, effects, report) if estimator.exact else effects), g

        effects, g = parts.effects(len(gradients), find)
        # Kept ones come from files.
        gradients.append({site: x.to(state.values[site].device) for site, x in g.items()})
        total.add(effects)
        done(len(state.rows))

    each(analysis.states, add)
    return total.sum().ranked(len(analysis.prompts)), gradients


def _exact(
    analysis: Analysis, state: BatchState, moving: NodeEffects, report: Report
) -> NodeEffects:
    """The same nodes with their exact effects."""
    tick = counting(report, "exact effects of a batch", len(moving))
    effects = exact_effects(analysis, state, moving.nodes(), report=tick)
    return moving.with_effects(effects.sum(1))
