"""What verify and ablate take of a run by sparse features, counted before they begin.

The counts follow `circuits.verification.verify` and `circuits.edits.ablate` through the run's
saved graph, ranking and prompts.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import networkx as nx

from circuits.ablation.exact_effects import TOKENS_AT_ONCE
from circuits.baseline_values import BaselineValue
from circuits.discovery.ranking import Ranking
from circuits.edits.ablation import Ablation
from circuits.edits.control_nodes import DRAWS
from circuits.graph import Node, ordered
from circuits.runs.needs import INDEX, Amount, MemoryNeeds, memory_of, on, state_bytes
from circuits.runs.needs_passes import PassCounter, Passes
from circuits.verification.estimator_agreement import edges_to_measure
from circuits.verification.faithfulness_curves import (
    HELD_OUT_ROWS,
    MOST_NEEDED,
    draws_of,
    sizes_of,
)
from circuits.verification.pooled import judges
from circuits.verification.verify import VerifyConfig
from hooked_qwen.cost import as_dense
from hooked_qwen.sites import Site
from saes.formats.shapes import FLOAT32, DictionaryShape
from saes.intervention import touched

STREAMS = 8
"Copies of a site's tensor while its nodes are set: as it arrives, at the baseline, as it leaves."
LEFT = "left: "
"What the names of passes begin with that find the graph that is left."
ASKED = 3
"Numbers for each slot of a token while it is asked which of them belong to a set of nodes."


@dataclass(frozen=True, kw_only=True)
class Checked:
    """A run, as far as it decides what checks of it take."""

    counter: PassCounter
    graph: nx.DiGraph
    ranking: Ranking
    groups: Sequence[Sequence[Node]] = ()
    "of nodes that are set together"
    memory: float | None = None
    "GB that dictionaries and states may take"
    held_out: PassCounter | None = None
    "of other prompts"


def verify_passes(run: Checked, config: VerifyConfig, to: BaselineValue) -> list[Passes]:
    """All passes of a verification."""
    counter, full = run.counter, config.level == "full"
    asked, sites, first = counter.task.config, counter.suite.writes, counter.first_layer
    sizes = len(sizes_of(run.ranking.inner(), config.level))
    nodes = [n for n in ordered(run.graph) if n.kind != "logit"]
    pool = _pool(run.ranking, config) if full else []
    edges, _ = edges_to_measure(run.graph, seed=config.seed)
    rows = draws_of(config.level, config.draws)
    drawn = [sizes * (1 + name.startswith("circuit")) for name, n in rows.items() for _ in range(n)]
    kept = sum(n.kind != "token" for n in nodes)
    others = judges(asked) if full else []
    # The two ends, what was estimated, rows of circuits, what each node adds, and groups.
    loops = 2 + len(others) + 1 + sum(rows.values()) + 1 + 2 * bool(run.groups)
    found = [
        *_prepared(run, counter, to, loops),
        *(counter.gradients("estimates of a pool of nodes", one, sites) for one in others),
        counter.gradients("estimates of nodes", asked.estimator, sites),
        counter.moves("exact effects", list(dict.fromkeys([*nodes, *pool]))),
        counter.edges("exact edges", edges),
        *(counter.circuits("faithfulness", n, first) for n in (1, *drawn)),
        counter.circuits("what each adds", 1 + (min(MOST_NEEDED, kept) if full else 0), first),
        counter.groups("groups", run.groups),
    ]
    if full:
        found += [part for basis in bases(counter) for part in _control(run, basis, to, sizes)]
    if run.held_out is not None:
        other, drawn = run.held_out, [1] + [sizes] * len(HELD_OUT_ROWS)
        found += _prepared(run, other, to, 1 + len(drawn))
        found += [other.circuits("held-out prompts", n, first) for n in drawn]
    return together(found)


def _pool(ranking: Ranking, config: VerifyConfig) -> list[Node]:
    """As many nodes as the judges choose, by the run's own estimator, and those drawn."""
    inner, size = ranking.inner(), config.pool
    order = inner.key.argsort().tolist()
    drawn = random.Random(config.seed).sample(order, min(size, len(order)))
    return [*inner[: 2 * size].nodes(), *inner[drawn].nodes()]


def _prepared(run: Checked, counter: PassCounter, to: BaselineValue, loops: int) -> list[Passes]:
    """Runs for the states, which `loops` over the prompts ask for, and for means."""
    state = state_bytes(counter.model, counter.shapes, counter.task)
    return [
        counter.states("states of the prompts", state, run.memory, loops),
        _means(counter, to, counter.features),
    ]


def _means(counter: PassCounter, to: BaselineValue, features: int) -> Passes:
    """Runs for what nodes are ablated to, and for their reference values."""
    times = (to == "mean") + (counter.task.config.reference == "mean")
    encoded = times * counter.task.prompts * counter.task.tokens * features
    return replace(counter.whole("means", times), encoded=encoded)


@dataclass(frozen=True)
class Basis:
    """Other nodes at the places of the dictionaries' own."""

    shapes: Sequence[DictionaryShape]
    "of dictionaries"
    coordinates: Mapping[Site, int]
    "of tensors whose coordinates are nodes"
    rows: int
    "with errors and, where there are any, without"

    @property
    def sites(self) -> list[Site]:
        """Where its nodes are."""
        return sorted({shape.target for shape in self.shapes} | set(self.coordinates))


def bases(counter: PassCounter) -> list[Basis]:
    """Those that a circuit is held against (`circuits.verification.faithfulness_curves`)."""
    sites, model = counter.suite.writes, counter.model
    mlps = [site for site in sites if site.kind == "mlp_out"]
    whole = dict.fromkeys(sites, model.d_model)
    found = [Basis([], whole, 1)]
    if mlps and as_dense(model.config) is model.config:
        wide = {Site("mlp_hidden", s.layer): model.config.intermediate_size for s in mlps}
        found.append(Basis([], wide | {s: d for s, d in whole.items() if s not in mlps}, 1))
        if others := [shape for shape in counter.shapes if shape.target not in mlps]:
            found.append(Basis(others, wide, 2))
    return [*found, Basis(counter.shapes, {}, 2)]


def _control(run: Checked, basis: Basis, to: BaselineValue, sizes: int) -> list[Passes]:
    """The circuits of another basis: found by the run's estimator, and run."""
    task = run.counter.task
    counter = replace(run.counter, shapes=basis.shapes)
    drawn, tokens = [1] + [sizes] * basis.rows, task.prompts * task.tokens
    first, width = min(site.layer for site in basis.sites), sum(basis.coordinates.values())
    state = state_bytes(counter.model, run.counter.shapes, task) + 4 * FLOAT32 * tokens * width
    circuits = [counter.circuits("controls: faithfulness", n, first) for n in drawn]
    found = [
        counter.states("controls: states", state, run.memory, 3 + basis.rows),
        replace(_means(counter, to, counter.features), name="controls: means"),
        counter.gradients("controls: estimates", task.config.estimator, basis.sites),
        *(replace(c, coordinates=n * tokens * width) for n, c in zip(drawn, circuits, strict=True)),
    ]
    if task.config.estimator == "exact":
        found.append(counter.every_move("controls: exact effects", _moving(counter, basis)))
    return found


def _moving(counter: PassCounter, basis: Basis) -> dict[Site, float]:
    """Changed nodes at a token, at each site."""
    ends = 2 if counter.task.config.reference == "patch" else 1
    found: dict[Site, float] = dict(basis.coordinates)
    for shape in basis.shapes:
        found[shape.target] = found.get(shape.target, 1) + ends * on(shape)
    return found


def ablate_passes(run: Checked, edit: Ablation) -> list[Passes]:
    """All passes of an ablation, and of finding the graph that is left.

    The ablation decomposes the sites at which it ablates, what is left all of them.
    """
    task, sites = run.counter.task, touched(run.counter.suite, edit.kept_set().complement())
    asked = replace(task.config, reference="patch" if task.patched else "zero")
    counter = run.counter.at(sites)
    counter = replace(counter, task=replace(task, config=asked))
    metrics = 1 if task.config.metric == "logit-difference" else 2
    alike = edit.kept is None and all(node.kind == "feature" for node in edit.ablated)
    drawn = 1 + (1 + alike) * DRAWS
    first, features = min(site.layer for site in sites), counter.features
    # Once before, for what is spared and for what is as active; and for each metric.
    loops = 1 + 1 + alike + metrics
    once = counter.circuits("prompts under the ablation, and controls", drawn, first, features)
    return together(
        [
            *_prepared(run, counter, edit.to, loops),
            *[once] * metrics,
            *_left(run, features, encodes=edit.to == "patch"),
        ]
    )


def _left(run: Checked, features: int, *, encodes: bool) -> list[Passes]:
    """A discovery in the model under an ablation that sets `features` of the dictionaries."""
    counter, task = run.counter, run.counter.task
    config, sites = task.config, counter.suite.writes
    state = state_bytes(counter.model, counter.shapes, task)
    loops = 2 + (config.metric == "kl")
    made = counter.states(f"{LEFT}states", state, run.memory, loops)
    if config.reference == "mean":
        made += counter.states("", state, run.memory, 1)
    # Every prompt plainly, and under the ablation.
    edited = made.tokens // counter.model.n_layers * features
    # What nodes are on the patch, half of all tokens, is asked of what is ablated.
    found = made + replace(made, edited=edited, encoded=edited // 2 if encodes else 0)
    under = counter.gradients(f"{LEFT}estimates", config.estimator, sites, under=features)
    left = [found, under]
    if config.estimator == "exact":
        moving = _moving(counter, Basis(counter.shapes, {}, 1))
        left.append(counter.every_move(f"{LEFT}exact effects", moving))
    cut = Passes(name=f"{LEFT}edges")
    for rows in counter.batches * max(1, config.edge_steps):
        cut += counter.resumed(rows, 0)
    return [*left, cut]


def verify_memory(run: Checked, config: VerifyConfig) -> MemoryNeeds:
    """Bytes on the device while a run is verified."""
    found, counter = _memory(run), run.counter
    if config.level == "quick":
        return found
    # Controls that were never trained are as large as what they stand for; a basis is made whole.
    widths = {width for basis in bases(counter) for width in basis.coordinates.values()}
    identities = FLOAT32 * sum(width**2 for width in widths)
    wide = max(sum(basis.coordinates.values()) for basis in bases(counter))
    slots = 4 * FLOAT32 * counter.task.batch * counter.task.tokens * wide
    set_at_once = _tokens_at_once(counter) * max(widths) * (ASKED * INDEX + 2 * FLOAT32)
    return replace(
        found,
        dictionaries=2 * found.dictionaries + identities,
        states=2 * found.states + slots * counter.kept(slots, run.memory),
        working=(*found.working, Amount("circuits of coordinates", set_at_once)),
    )


def ablate_memory(run: Checked) -> MemoryNeeds:
    """Bytes on the device while nodes are ablated, and while what is left is found."""
    found = _memory(run)
    asked = memory_of(run.counter.model, run.counter.shapes, run.counter.task, run.memory)
    left = replace(found, states=2 * found.states, working=asked.working)
    return max(found, left, key=lambda memory: memory.total)


def _memory(run: Checked) -> MemoryNeeds:
    """Of what both do: states, passes of nodes that are set alone, and of circuits."""
    counter = run.counter
    model, task, d = counter.model, counter.task, counter.model.d_model
    asked = memory_of(model, counter.shapes, task, run.memory)
    encoding, passed, *_ = asked.working
    tokens = counter.rows_at_once * task.tokens
    # Changes of four times as many nodes are looked at as a pass takes: many change on few prompts.
    moves = FLOAT32 * d * (4 + 3) * tokens + _layer(counter, tokens)
    some = _tokens_at_once(counter)
    slots = max(on(shape) for shape in counter.shapes) * (ASKED * INDEX + 2 * FLOAT32)
    circuits = some * (STREAMS * FLOAT32 * d + slots) + _layer(counter, some)
    working = (
        encoding,
        passed,
        Amount("nodes set alone", moves, f"{tokens:,} tokens at once"),
        Amount("circuits side by side", circuits, f"{some:,} tokens at once"),
    )
    return replace(asked, working=working)


def _tokens_at_once(counter: PassCounter) -> int:
    """Tokens of a pass of several circuits."""
    one = counter.task.batch * counter.task.tokens
    return max(one, TOKENS_AT_ONCE // one * one)


def _layer(counter: PassCounter, tokens: int) -> int:
    """Bytes of what comes and goes in one block."""
    positions = counter.task.tokens
    return counter.model.layers(1, positions)[0].saved * tokens // positions


def together(passes: Sequence[Passes]) -> list[Passes]:
    """Passes of one name as one, those that are none left out."""
    found: dict[str, Passes] = {}
    for one in passes:
        found[one.name] = found[one.name] + one if one.name in found else one
    return [one for one in found.values() if one.count]
