"""What a replacement graph takes in memory and operations, counted before it is begun.

Of one prompt are kept tensors as wide as the model at each layer and, while there is room,
patterns and the rows of what is written; what has no room is made again in every sweep. Sweeps
come and go. What depends on values is taken as its most: every token has k features, and as many
of them are traced as may be.

    a sweep's operations    for each target, layer below it and token up to its own: the mixer's
                            output and value matrices, its pattern, a product with every row
"""

from collections.abc import Sequence

from circuits.discovery.edge_heads import NUMBERS_AT_ONCE
from circuits.discovery.replaced_prompts import Budget
from circuits.features.card import FEATURES_AT_ONCE
from circuits.runs.needs import (
    INDEX,
    Amount,
    DiscoverySize,
    MemoryNeeds,
    Operations,
    kept_dictionaries,
    on,
)
from hooked_qwen.cost import ModelCost
from saes.dictionary import most_pre_activations
from saes.formats.shapes import FLOAT32, DictionaryShape
from transcoders.sources import ROWS_AT_ONCE

NUMBERS_OF_A_HEAD = 3
"That are added up of an edge: what goes through it, the prompt's factor, its attention."
ENCODED_TIMES = 3
"A prompt of a set is opened for influence, again for its edges, again for their heads."


def replacement_memory(
    model: ModelCost, shapes: Sequence[DictionaryShape], task: DiscoverySize, memory: float | None
) -> MemoryNeeds:
    """Bytes on the device, where dictionaries and rows may take `memory` GB."""
    budget = budget_of(model, task, memory)
    prompt = prompt_bytes(model, shapes, task, budget)
    # With a patch both prompts of a pair are there for a while.
    return MemoryNeeds(
        model=model.weights,
        dictionaries=kept_dictionaries(shapes, memory),
        every_dictionary=sum(s.bytes for s in shapes),
        largest=max(s.bytes for s in shapes),
        one_state=prompt,
        states=prompt * (1 + task.patched) + row_bytes(model, shapes, task, budget),
        gradients=0,
        working=working(model, shapes, task, budget),
    )


def budget_of(model: ModelCost, task: DiscoverySize, memory: float | None) -> Budget:
    """What a discovery with `memory` GB keeps within."""
    room = float("inf") if memory is None else memory * 1e9 / 4
    return Budget.of(room, FLOAT32 * task.tokens * max(model.d_model, *widths(model)))


def prompt_bytes(
    model: ModelCost, shapes: Sequence[DictionaryShape], task: DiscoverySize, budget: Budget
) -> int:
    """Bytes of one prompt's replacement model: patterns, tensors, sources."""
    tokens, layers = task.tokens, model.n_layers
    one = pattern_bytes(model, tokens)
    fitting = min(layers, budget.patterns // one)
    heads_width, value_width = widths(model)
    # By layer: what the MLP reads and writes, error and bias, values' and output's matrices.
    numbers = layers * (4 * tokens + heads_width + value_width) * model.d_model
    # Where the pattern is not kept its queries and keys are.
    numbers += (layers - fitting) * tokens * (heads_width + value_width)
    slots = tokens * sum(on(shape) + 2 for shape in shapes)
    return fitting * one + FLOAT32 * numbers + slots * 12 * INDEX


def pattern_bytes(model: ModelCost, tokens: int) -> int:
    """Bytes of one layer's pattern."""
    return FLOAT32 * heads(model)[0] * tokens**2


def row_bytes(
    model: ModelCost, shapes: Sequence[DictionaryShape], task: DiscoverySize, budget: Budget
) -> int:
    """Bytes of the rows of what is written that are there at a time."""
    rows = task.tokens * sum(on(shape) + 2 for shape in shapes)
    size = FLOAT32 * rows * model.d_model
    return size if size <= budget.rows else min(size, ROWS_AT_ONCE)


def working(
    model: ModelCost, shapes: Sequence[DictionaryShape], task: DiscoverySize, budget: Budget
) -> tuple[Amount, ...]:
    """What comes and goes, one at a time."""
    one = FLOAT32 * task.tokens * (sum(on(s) + 2 for s in shapes) + max(widths(model)))
    widest = max(shape.features for shape in shapes)
    chunk = most_pre_activations(task.tokens, widest)
    named = min(FEATURES_AT_ONCE, task.config.nodes or FEATURES_AT_ONCE) * model.vocabulary
    nodes = (task.config.nodes or targets(shapes, task)) + task.tokens
    through = nodes**2 // 2 * model.n_layers * heads(model)[0] * NUMBERS_OF_A_HEAD
    return (
        Amount("a sweep: gradients, edges and their sizes", 8 * max(budget.sweep, one)),
        Amount("pre-activations while encoding", 2 * FLOAT32 * chunk),
        Amount(
            "attention of one layer while the model runs", 3 * pattern_bytes(model, task.tokens)
        ),
        Amount("edges by head", 4 * FLOAT32 * min(through, NUMBERS_AT_ONCE)),
        Amount("tokens that features promote", 2 * FLOAT32 * named),
    )


def replacement_operations(
    model: ModelCost, shapes: Sequence[DictionaryShape], task: DiscoverySize, memory: float | None
) -> Operations:
    """Floating-point operations of a whole discovery."""
    runs = (1 if task.prompts == 1 else ENCODED_TIMES) + task.patched
    forward = runs * task.prompts * sum(c.forward for c in model.layers(1, task.tokens))
    encoded = sum(2 * s.features * model.d_model for s in shapes)
    looked = task.text + task.prompts * task.tokens
    deepest = max(shape.source.layer for shape in shapes) + 1
    text = sum(c.forward for c in model.layers(1, 64)[:deepest])
    traced = targets(shapes, task)
    named = 2 * 2 * (task.config.nodes or traced) * model.d_model * model.vocabulary
    again = min(traced, task.config.nodes or traced)
    one = sweep_operations(model, shapes, task, budget_of(model, task, memory))
    swept = task.prompts * (traced + again) * one
    return Operations(
        forward=(
            Amount("runs of the model", forward, f"{runs} of each prompt"),
            Amount("examples of features", looked / 64 * text),
        ),
        both=(),
        edges=(),
        encoded=(
            Amount("features of the prompts", runs * task.prompts * task.tokens * encoded),
            Amount("features of examples", looked * encoded),
        ),
        products=(
            Amount("influence and edges", swept, f"{traced:,} features traced"),
            Amount("tokens that features promote", named),
        ),
    )


def targets(shapes: Sequence[DictionaryShape], task: DiscoverySize) -> int:
    """Features of a prompt whose inputs are traced."""
    there = task.tokens * sum(on(shape) for shape in shapes)
    return min(there, task.config.targets or there)


def sweep_operations(
    model: ModelCost, shapes: Sequence[DictionaryShape], task: DiscoverySize, budget: Budget
) -> float:
    """Of one target, on average over layers and tokens."""
    tokens, d = task.tokens, model.d_model
    heads_width, value_width = widths(model)
    rows = sum(on(shape) + 2 for shape in shapes) / model.n_layers
    half, third = (tokens + 1) / 2, (tokens + 1) * (2 * tokens + 1) / 6
    depth = sum(shape.source.layer for shape in shapes) / len(shapes)
    below = depth * (half * 2 * d * (heads_width + value_width) + third * 2 * heads_width)
    first = half * 2 * d * value_width + 2 * d * heads_width
    # A pattern that is made again is made for all targets of a sweep.
    together = max(1, budget.sweep // (FLOAT32 * tokens * max(d, heads_width)))
    anew = 1 - min(1.0, budget.patterns / (model.n_layers * pattern_bytes(model, tokens)))
    again = anew * depth * third * 2 * heads_width / together
    return below + first + again + half * 2 * d * (depth * rows + 1)


def heads(model: ModelCost) -> tuple[int, int]:
    """Heads of attention, and those that have values of their own."""
    return model.config.num_attention_heads, model.config.num_key_value_heads


def widths(model: ModelCost) -> tuple[int, int]:
    """What all heads together give, and what all values are wide."""
    config, (every, groups) = model.config, heads(model)
    head = getattr(config, "head_dim", None) or model.d_model // every
    return every * head, groups * head
