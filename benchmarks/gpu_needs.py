"""What three Qwen3 models with all their Qwen-Scope dictionaries need on cards of three sizes.

    python -m benchmarks.gpu_needs

Computed by the functions of `circuits estimate`, for a discovery with `ig` on 100 pairs of 20
tokens; nothing is measured, and no weights are needed. Models in bfloat16, dictionaries in float32
as they compute. Of each card 1.5 GiB are left to the driver and to what its allocator wastes.

Sizes of the models are those of their published configurations, widths and k of the dictionaries
those of Qwen-Scope (arXiv:2605.11887), which has an autoencoder of `resid_post` for each layer.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from transformers import Qwen3Config, Qwen3MoeConfig

from circuits.discovery.config import DiscoverConfig
from circuits.runs.needs import DiscoverySize, memory_of, operations_of
from hooked_qwen.cost import ModelCost
from hooked_qwen.placement import Placement
from hooked_qwen.sites import Site
from saes.formats.shapes import FLOAT32, DictionaryShape

CARDS = (24, 48, 80)
"GiB."
RESERVED = 1.5
GIB = 2**30
TASK = DiscoverySize(prompts=100, tokens=20, config=DiscoverConfig(estimator="ig"))
LEAST = 0.5
"GB: the step in which room for dictionaries is looked for."


@dataclass(frozen=True)
class Case:
    """A model and one group of Qwen-Scope's dictionaries for it."""

    model: str
    features: int
    k: int
    config: Any


def qwen3(layers: int, d: int, d_mlp: int, heads: int, *, tied: bool) -> Qwen3Config:
    """A dense Qwen3, of 8 key and value heads."""
    return Qwen3Config(
        vocab_size=151_936,
        hidden_size=d,
        intermediate_size=d_mlp,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=8,
        head_dim=128,  # pyright: ignore[reportCallIssue] - read by the model, and no field of its class
        tie_word_embeddings=tied,
    )


QWEN3_1_7B = qwen3(28, 2048, 6144, 16, tied=True)
QWEN3_8B = qwen3(36, 4096, 12_288, 32, tied=False)
QWEN3_30B_A3B = Qwen3MoeConfig(
    vocab_size=151_936,
    hidden_size=2048,
    intermediate_size=6144,
    num_hidden_layers=48,
    num_attention_heads=32,
    num_key_value_heads=4,
    head_dim=128,  # pyright: ignore[reportCallIssue]  (a field of any configuration)
    num_experts=128,
    num_experts_per_tok=8,
    moe_intermediate_size=768,
    decoder_sparse_step=1,
    tie_word_embeddings=False,
)
CASES = (
    Case("Qwen3-1.7B", 32_768, 50, QWEN3_1_7B),
    Case("Qwen3-8B", 65_536, 50, QWEN3_8B),
    Case("Qwen3-30B-A3B", 32_768, 50, QWEN3_30B_A3B),
    Case("Qwen3-30B-A3B", 131_072, 50, QWEN3_30B_A3B),
)


def main() -> None:
    """Print the table."""
    print("\n".join(table()))


def table() -> Iterator[str]:
    """A line for each group of dictionaries."""
    heads = [f"{card} GB card" for card in CARDS]
    columns = ["Qwen3", "dictionaries", "model, GB", "dictionaries", "the rest", "PFLOP", *heads]
    yield f"| {' | '.join(columns)} |"
    yield "|" + "---|" * len(columns)
    for case in CASES:
        yield f"| {' | '.join(row(case))} |"


def row(case: Case) -> list[str]:
    """The cells of one group."""
    model = ModelCost(case.config, Placement(dtype="bfloat16"), name=case.model)
    shapes = dictionaries(case)
    whole = memory_of(model, shapes, TASK, None)
    todo = operations_of(model, shapes, TASK, None)
    items = [*todo.forward, *todo.both, *todo.edges, *todo.encoded, *todo.products]
    gigabytes: list[float] = [whole.model, whole.every_dictionary]
    gigabytes.append(whole.total - sum(gigabytes))
    return [
        case.model.removeprefix("Qwen3-"),
        f"{len(shapes)} x {case.features:,}",
        *(f"{size / 1e9:.1f}" for size in gigabytes),
        f"{sum(item.amount for item in items) / 1e15:.1f}",
        *(verdict(model, shapes, card * GIB - RESERVED * GIB) for card in CARDS),
    ]


def dictionaries(case: Case) -> list[DictionaryShape]:
    """An autoencoder of the stream after every layer."""
    d, m = case.config.hidden_size, case.features
    size = FLOAT32 * (2 * m * d + m + d)
    sites = [Site("resid_post", layer) for layer in range(case.config.num_hidden_layers)]
    return [
        DictionaryShape(
            name=str(s), source=s, target=s, features=m, k=case.k, bytes=size, stored=size
        )
        for s in sites
    ]


def verdict(model: ModelCost, shapes: list[DictionaryShape], room: float) -> str:
    """How a discovery fits into `room` bytes of a device."""
    if memory_of(model, shapes, TASK, None).total <= room:
        return "whole"
    one = shapes[0].bytes / 1e9
    steps = range(int(room / 1e9 / LEAST), 0, -1)
    for memory in (LEAST * step for step in steps):
        if memory < one:
            break
        if memory_of(model, shapes, TASK, memory).total <= room:
            return f"`--memory {memory:g}`"
    return "`--device cuda:0,cpu`"


if __name__ == "__main__":
    main()
