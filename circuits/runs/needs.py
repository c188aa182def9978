"""What a discovery takes in memory and in floating-point operations, counted before it is begun.

The counts follow the way of the data: states of the prompts (`circuits.attribution.state`), the
estimator's passes (`effects`), the edges' products (`edges`), the cards. What depends on values is
taken as its most: every node of the pool answers on every prompt, and every token has k features.
"""

from collections.abc import Sequence, Set
from dataclasses import dataclass
from math import ceil

from circuits.attribution.effects import TOKENS_AT_ONCE
from circuits.attribution.state import EMBED, KEPT
from circuits.attribution.vjp_batches import TENSOR_ROWS_AT_ONCE
from circuits.discovery.choice import SPARE
from circuits.discovery.config import DiscoverConfig
from circuits.features.card import FEATURES_AT_ONCE
from hooked_qwen.cost import LayerCost, ModelCost
from hooked_qwen.sites import Site
from saes.dictionary import most_pre_activations
from saes.formats.shapes import FLOAT32, DictionaryShape

INDEX = 8
"Bytes of the number of a feature."
USUAL_K = 64
"Features on at a token that are counted where a dictionary's files do not say."
EXACT_ROWS = 256
"Rows of a pass of exact effects."
READS_OF_A_BATCH = 8
"How often every dictionary is asked for, for one batch of prompts."


@dataclass(frozen=True, kw_only=True)
class DiscoverySize:
    """The prompts of a discovery, by their sizes."""

    prompts: int
    tokens: int
    "of each, padding too"
    first: int = 0
    "the first position at which a clean prompt and its patch differ: earlier ones are not run"
    patched: bool = True
    "whether the prompts have a patch"
    text: int = 0
    "tokens of running text that are looked through for examples of features"
    config: DiscoverConfig

    @property
    def batch(self) -> int:
        """Prompts that are run together."""
        return min(self.prompts, self.config.batch_size)

    @property
    def batches(self) -> int:
        return ceil(self.prompts / self.config.batch_size)

    @property
    def run(self) -> int:
        """Positions that are run again."""
        return self.tokens - self.first

    @property
    def points(self) -> int:
        """Points of a path that go through the model together."""
        config = self.config
        if config.estimator in ("patching", "relp"):
            return 1
        return min(config.steps, max(1, TOKENS_AT_ONCE // (self.batch * self.tokens)))


@dataclass(frozen=True)
class Amount:
    """One thing that takes memory, in bytes, or time, in operations."""

    name: str
    amount: float | int
    note: str = ""


@dataclass(frozen=True)
class MemoryNeeds:
    """What lies on the device at once."""

    model: int
    dictionaries: int
    "those that are kept there; where not all are, one as its file has it too, while it is read"
    every_dictionary: int
    largest: int
    "of them"
    states: int
    one_state: int
    "of one batch of prompts"
    gradients: int
    working: tuple[Amount, ...]
    "what comes and goes; one at a time, so the largest counts"

    @property
    def total(self) -> float | int:
        """The most at any time."""
        kept = self.model + self.dictionaries + self.states + self.gradients
        return kept + max(item.amount for item in self.working)


def memory_of(
    model: ModelCost, shapes: Sequence[DictionaryShape], task: DiscoverySize, memory: float | None
) -> MemoryNeeds:
    """Bytes on the device, where dictionaries and states may take `memory` GB."""
    room = KEPT if memory is None else memory * 1e9 / 4
    state = state_bytes(model, shapes, task)
    gradient = FLOAT32 * (len(written(shapes)) + 1) * _stream(model, task)
    return MemoryNeeds(
        model=model.weights,
        dictionaries=kept_dictionaries(shapes, memory),
        every_dictionary=sum(s.bytes for s in shapes),
        largest=max(s.bytes for s in shapes),
        one_state=state,
        states=_kept(state, task.batches, room),
        gradients=_kept(gradient, task.batches, room),
        working=_working(model, shapes, task),
    )


def kept_dictionaries(shapes: Sequence[DictionaryShape], memory: float | None) -> int:
    """Bytes of dictionaries that lie on the device at once.

    With `memory` as many as fit, at least one; room for the next is made before it is read. In
    half precision it is there as its file has it, too, until all of it is in float32.
    """
    every = sum(s.bytes for s in shapes)
    if memory is None or every <= memory * 1e9:
        return every
    reading = max(s.stored if s.stored < s.bytes else 0 for s in shapes)
    return min(every, int(max(memory * 1e9, *(s.bytes for s in shapes)))) + reading


def _kept(one: int, batches: int, room: float) -> int:
    """Bytes of batches of which as many are kept as fit, and the one that is worked on."""
    every = one * batches
    return every if every <= room else int(room // one) * one + one


def _stream(model: ModelCost, task: DiscoverySize) -> int:
    """Values of the stream of one batch of prompts."""
    return task.batch * task.tokens * model.d_model


def written(shapes: Sequence[DictionaryShape]) -> list[Site]:
    """The sites that the dictionaries write, in order."""
    return sorted({shape.target for shape in shapes})


def state_bytes(model: ModelCost, shapes: Sequence[DictionaryShape], task: DiscoverySize) -> int:
    """Bytes of one batch of prompts, decomposed, with the plain run's keys and values."""
    sites = {EMBED, Site("resid_post", model.n_layers - 1)}
    for shape in shapes:
        before = Site("resid_post", shape.target.layer - 1) if shape.target.layer > 0 else EMBED
        sites |= {shape.source, shape.target, before, Site("resid_post", shape.target.layer)}
    tensors = len(sites) + 2 * len(written(shapes))
    rows = task.batch * task.tokens
    slots = sum(4 * on(shape) for shape in shapes)
    kept = FLOAT32 * tensors * _stream(model, task) + rows * slots * (INDEX + FLOAT32)
    logits = 2 * FLOAT32 * task.batch * model.vocabulary
    return kept + model.kv_cache(task.batch, task.tokens) + logits


def on(shape: DictionaryShape) -> int:
    """Features that are on at a token, as far as the files say."""
    return min(shape.k or USUAL_K, shape.features)


def _working(
    model: ModelCost, shapes: Sequence[DictionaryShape], task: DiscoverySize
) -> tuple[Amount, ...]:
    widest = max(shape.features for shape in shapes)
    chunk = most_pre_activations(task.batch * task.tokens, widest)
    rows = task.points * task.batch
    passed = sum(c.saved for c in model.layers(rows, task.run))
    cut = sum(c.saved for c in model.layers(task.batch, task.run))
    one = model.layers(task.batch, task.run)[0].saved
    slots = min(_pool(task), max(1, TENSOR_ROWS_AT_ONCE // (task.batch * task.run)))
    named = min(FEATURES_AT_ONCE, task.config.node_count) * model.vocabulary
    unembedded = model.vocabulary * model.d_model * FLOAT32 if model.dtype.itemsize < 4 else 0
    return (
        Amount("pre-activations while encoding", 2 * FLOAT32 * chunk),
        Amount("activations of a forward and backward pass", passed, f"{rows} x {task.run} tokens"),
        Amount("a pass cut at every site, and its products", cut + slots * one),
        Amount("tokens that features promote", 2 * FLOAT32 * named + unembedded),
    )


def _pool(task: DiscoverySize) -> int:
    """Nodes that one product can serve: at most all of those weighed."""
    return task.config.node_count + SPARE


def operations_of(
    model: ModelCost, shapes: Sequence[DictionaryShape], task: DiscoverySize, memory: float | None
) -> "Operations":
    """Floating-point operations of a whole discovery."""
    state = state_bytes(model, shapes, task)
    room = KEPT if memory is None else memory * 1e9 / 4
    made = 1 if state * task.batches <= room else 2
    runs = made * (2 if task.patched else 1) + (task.config.reference == "mean")
    full = model.layers(task.batch, task.tokens)
    forward = runs * task.batches * sum(c.forward for c in full)
    # Columns before the first that changes are encoded once for clean and patch.
    paired = task.patched and task.config.reference == "patch"
    times = made + (task.config.reference == "mean")
    rows = task.prompts * (times * task.tokens + (made * task.run if paired else 0))
    looked = task.text + task.prompts * task.tokens
    encoded = sum(2 * s.features * model.d_model for s in shapes)
    text = model.layers(1, 64)
    deepest = max(shape.source.layer for shape in shapes) + 1
    named = 2 * 2 * task.config.node_count * model.d_model * model.vocabulary
    passed = _estimator(model, shapes, task)
    return Operations(
        forward=(
            Amount("states of the prompts", forward, f"{runs} runs of each"),
            Amount("examples of features", looked / 64 * sum(c.forward for c in text[:deepest])),
            *(i for i in passed if i.name.startswith("exact")),
        ),
        both=tuple(i for i in passed if not i.name.startswith("exact")),
        edges=edge_operations(model, shapes, task),
        encoded=(
            Amount("features of the prompts", rows * encoded),
            Amount("features of examples", looked * encoded),
        ),
        products=(Amount("tokens that features promote", named),),
    )


@dataclass(frozen=True)
class Operations:
    """Operations by what they are: each kind runs at a rate of its own."""

    forward: tuple[Amount, ...]
    both: tuple[Amount, ...]
    "forward and backward passes through as many layers"
    edges: tuple[Amount, ...]
    "backward passes alone"
    encoded: tuple[Amount, ...]
    products: tuple[Amount, ...]


def _estimator(
    model: ModelCost, shapes: Sequence[DictionaryShape], task: DiscoverySize
) -> tuple[Amount, ...]:
    config, n = task.config, task.batches
    if config.estimator in ("patching", "relp"):
        whole = model.layers(task.batch, task.tokens)
        return (Amount("node effects", n * sum(c.forward + c.backward for c in whole)),)
    passes = n * ceil(config.steps / task.points)
    rows = task.points * task.batch
    if config.estimator == "ig-inputs":
        layers = model.layers(rows, task.tokens)
        return (Amount("node effects", passes * sum(c.forward + c.backward for c in layers)),)
    moving = [EMBED] if config.reference == "patch" else []
    sites = [*moving, *written(shapes)]
    layers = model.layers(rows, task.run)
    found = passes * sum(2 * c for site in sites for c in after(layers, site, task.run))
    items = [Amount("node effects", found, f"{len(sites)} sites x {config.steps} points")]
    if config.estimator == "exact":
        one, ends = model.layers(EXACT_ROWS, task.run), 2 if config.reference == "patch" else 1
        pairs = {s: task.prompts * task.run * ends * on(s) for s in shapes}
        runs = sum(pairs[s] / EXACT_ROWS * sum(after(one, s.target, task.run)) for s in shapes)
        items.append(Amount("exact effects", runs, f"about {sum(pairs.values()):,} runs"))
    return tuple(items)


def after(layers: Sequence[LayerCost], site: Site, positions: int) -> list[float]:
    """Operations of a forward pass from where a site's tensor is another one.

    A module's output goes into the stream: behind attention its layer's MLP runs. The last MLP
    runs at the last position only.
    """
    whole = [float(c.forward) for c in layers]
    whole[-1] -= layers[-1].mlp * (1 - 1 / positions)
    found = whole[site.layer + 1 :]
    if site.kind == "attn_out":
        found.append(float(layers[site.layer].mlp))
    return found


def edge_operations(
    model: ModelCost, shapes: Sequence[DictionaryShape], task: DiscoverySize
) -> tuple[Amount, ...]:
    """Every feature and every error is pulled back through what lies between it and the leaves."""
    layers, sites = model.layers(task.batch, task.run), set(written(shapes))
    share = _pool(task) / (len(shapes) + len(sites))
    pulled = sum(
        share * crossed(layers, sites, read)
        for shape in shapes
        for read in (shape.source, shape.target)
    )
    steps = max(1, task.config.edge_steps)
    once = sum(c.forward for c in layers)
    return (Amount("edges", steps * task.batches * (pulled + once)),)


def crossed(layers: Sequence[LayerCost], sites: Set[Site], read: Site) -> float:
    """Operations that pull a gradient at `read` back to the sites that reach it directly.

    A module whose output is a site is crossed for that site alone, and nothing before the last
    site of the whole stream.
    """
    streams = [s.layer for s in sites if s.kind == "resid_post" and s < read]
    found = 0.0
    for layer in range(max(streams, default=-1) + 1, read.layer + 1):
        for kind in ("attn_out", "mlp_out"):
            module = Site(kind, layer)
            if module == read or (module < read and module not in sites):
                cost = layers[layer]
                found += cost.mlp if kind == "mlp_out" else cost.backward - cost.mlp
    return found
