"""Toy Qwen models with random weights, and random dictionaries on them: real code, no training."""

import string
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import pytest
import torch
from transformer_lens.model_bridge import TransformerBridge
from transformers import (
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen2Tokenizer,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from circuits.analysis import Analysis
from circuits.discovery.config import DiscoverConfig
from circuits.discovery.sparse_feature import Discovery, discover
from circuits.prompts import EncodedPrompts, Prompt
from circuits.verification.faithfulness_curves import Level
from circuits.verification.verify import VerifyConfig, verify
from hooked_qwen.load import hook
from hooked_qwen.sites import Site
from hooked_qwen.tokens import Batch
from saes.dictionary import DictionarySpec, SparseDictionary
from saes.suite import Suite
from tests.shared_models import shared

# A token for each of these characters, and one merge: "ab" is a single token.
PIECES = ("<|endoftext|>", "Ġ", "Ċ", *string.ascii_letters, "ab", ".", ",", "?", "!")
VOCABULARY = len(PIECES)
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "tie_word_embeddings": False,
    "max_position_embeddings": 64,
    "initializer_range": 0.3,
}
FAMILIES = {
    "qwen2": (Qwen2Config, Qwen2ForCausalLM, {}),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM, {"head_dim": 8}),
}


def toy_hf(family: str = "qwen3", dtype: torch.dtype = torch.float64):
    """A Hugging Face model of the real class with random weights."""
    config_class, model_class, extra = FAMILIES[family]
    torch.manual_seed(0)
    model = model_class(config_class(**SIZES, **extra)).to(dtype).eval()
    model.set_attn_implementation("eager")
    return model


def toy(family: str = "qwen3", dtype: torch.dtype = torch.float64):
    return hook(toy_hf(family, dtype), name=f"toy-{family}")


def shared_toy(family: str = "qwen3", dtype: torch.dtype = torch.float64):
    """`toy`, for a test that leaves it as it is."""
    return shared(("toy", family, dtype), partial(toy, family, dtype))


def speaking_toy(family: str = "qwen3", dtype: torch.dtype = torch.float64):
    """A toy with a tokenizer, for a test that leaves it as it is."""

    def make() -> TransformerBridge:
        return hook(toy_hf(family, dtype), tokenizer=toy_tokenizer(), name="toy")

    return shared(("speaking", family, dtype), make)


def toy_tokenizer() -> Qwen2Tokenizer:
    """Qwen's own tokenizer class over the toy's vocabulary."""
    vocabulary = {piece: i for i, piece in enumerate(PIECES)}
    return Qwen2Tokenizer(vocab=vocabulary, merges=[("a", "b")])


def random_dictionary(
    spec: DictionarySpec, *, width: int = 20, seed: int = 0, dtype: torch.dtype = torch.float64
) -> SparseDictionary:
    generator = torch.Generator().manual_seed(seed)
    d = SIZES["hidden_size"]

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=dtype)

    weights = {
        "W_enc": draw(width, d),
        "b_enc": draw(width),
        "W_dec": draw(width, d) / d**0.5,
        "b_dec": draw(d) / d**0.5,
    }
    if spec.architecture not in ("topk", "relu"):
        weights["threshold"] = draw(width).abs() * 0.1
    if spec.skip:
        weights["W_skip"] = draw(d, d) / d
    return SparseDictionary(spec, weights)


def toy_suite(*sites: str, dtype: torch.dtype = torch.float64) -> Suite:
    """Random dictionaries; 'mlp_in.1-mlp_out.1' makes a transcoder, 'mlp_out.1' an SAE."""
    dictionaries = {}
    for seed, text in enumerate(sites):
        source, _, target = text.partition("-")
        spec = DictionarySpec(source=Site.parse(source), target=Site.parse(target or source), k=5)
        dictionaries[spec.target] = random_dictionary(spec, seed=seed, dtype=dtype)
    return Suite(dictionaries, {})


def full_suite(dtype: torch.dtype = torch.float64) -> Suite:
    """Every layer of the toy: attention and stream SAEs, and one transcoder among the MLPs."""
    kinds = ("attn_out", "mlp_out", "resid_post")
    names = [f"{kind}.{layer}" for layer in range(3) for kind in kinds]
    names[names.index("mlp_out.1")] = "mlp_in.1-mlp_out.1"
    return toy_suite(*names, dtype=dtype)


def toy_prompts(n: int = 4, length: int = 6, *, seed: int = 0, at: int = 1) -> EncodedPrompts:
    """Random token pairs that differ at one position, as `encode_prompts` would give them."""
    generator = torch.Generator().manual_seed(seed)
    clean = torch.randint(1, VOCABULARY, (n, length), generator=generator)
    patch = clean.clone()
    patch[:, at] = (clean[:, at] + 7) % (VOCABULARY - 1) + 1
    mask = torch.ones_like(clean, dtype=torch.bool)
    ids = torch.randint(1, VOCABULARY // 2, (n, 2), generator=generator)
    return EncodedPrompts(
        tuple(Prompt(clean="", patch="", answer=("",), wrong=("",)) for _ in range(n)),
        Batch(tokens=clean, mask=mask),
        Batch(tokens=patch, mask=mask),
        tuple((int(i),) for i in ids[:, 0]),
        tuple((int(i) + VOCABULARY // 2 - 1,) for i in ids[:, 1]),
        None,
    )


def analysis_of(
    model: TransformerBridge, suite: Suite, prompts: EncodedPrompts, **settings: Any
) -> Analysis:
    """An analysis by the `DiscoverConfig` of these settings: of a logit difference unless said."""
    return Analysis.of(model, suite, prompts, DiscoverConfig(**settings))


def found_and_verified(
    model: TransformerBridge,
    suite: Suite,
    prompts: EncodedPrompts,
    config: DiscoverConfig,
    *,
    level: Level = "quick",
) -> tuple[Discovery, dict[str, Any]]:
    """A discovery, and the record of its check with one draw of each random control."""
    analysis = Analysis.of(model, suite, prompts, config)
    found = discover(analysis)
    check = VerifyConfig(level=level, draws=1, pool=10)
    return found, verify(analysis, found.graph, found.ranking, config=check)


def padded_on_the_left(prompts: EncodedPrompts, pad: int = 3) -> EncodedPrompts:
    """The same pairs behind `pad` columns of padding."""

    def widen(batch: Batch) -> Batch:
        tokens = torch.nn.functional.pad(batch.tokens, (pad, 0))
        return Batch(tokens=tokens, mask=torch.nn.functional.pad(batch.mask, (pad, 0)))

    assert prompts.patch is not None
    return replace(prompts, clean=widen(prompts.clean), patch=widen(prompts.patch))


@dataclass(frozen=True)
class OtherDevice:
    """A device whose results are held against the CPU's."""

    name: str
    complaining: Callable[[], AbstractContextManager[None]] = nullcontext
    "Index tensors left on the host raise in it, where the device can tell."
    tolerance: float = 0.0
    "Of a number, relative to it and to 1: another processor sums in another order."

    def agrees(self, there: Any, here: Any) -> None:
        """Hold plain values (dictionaries, lists, numbers, texts) of both against each other."""
        if not self.tolerance:
            assert there == here
            return
        for found, expected in zip(leaves(there, JUMPY), leaves(here, JUMPY), strict=True):
            # Integers too: a page has activations in 65,535 steps.
            if isinstance(expected, int | float):
                expected = pytest.approx(expected, self.tolerance, self.tolerance)
            assert found == expected


JUMPY = frozenset({"spearman", "slope", "intervals", "sha256"})
"What the last digit of a number can change: ranks of near ties, a slope over hardly any change."


def leaves(value: Any, without: frozenset[str] = frozenset()) -> Iterator[Any]:
    """Keys, numbers and texts of plain values, in their order."""
    if isinstance(value, dict):
        for key, member in value.items():
            if key not in without:
                yield key
                yield from leaves(member, without)
    elif isinstance(value, list | tuple):
        for member in value:
            yield from leaves(member, without)
    else:
        yield value
