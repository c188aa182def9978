"""A Qwen3 of real size with random weights, and dictionaries for it, where no hub is reached.

    python -m benchmarks.random_model OUT --size 0.6B|1.7B|8B [--features N] [--k K]
                                      [--device DEVICE]

Sizes are those of the published configurations; the tokenizer is the bundled model's. Dictionaries
have the shape of Qwen-Scope's: a TopK autoencoder for the stream after each layer, here with unit
rows at random. OUT gets `model`, in bfloat16, and `dictionaries`.
"""

import argparse
import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import Qwen3ForCausalLM

from benchmarks.gpu_needs import QWEN3_1_7B, QWEN3_8B, qwen3
from hooked_qwen import bundled
from hooked_qwen.sites import Site
from saes.dictionary import DictionarySpec, SparseDictionary
from saes.formats import ours

SIZES = {"0.6B": qwen3(28, 1024, 3072, 16, tied=True), "1.7B": QWEN3_1_7B, "8B": QWEN3_8B}
FEATURES, K = 32_768, 50


def main() -> None:
    """Write a model and its dictionaries."""
    parser = argparse.ArgumentParser("python -m benchmarks.random_model")
    parser.add_argument("out", type=Path)
    parser.add_argument("--size", choices=SIZES, default="1.7B")
    parser.add_argument("--features", type=int, default=FEATURES)
    parser.add_argument("--k", type=int, default=K)
    parser.add_argument("--device", default="cpu", help="where the numbers are drawn")
    chosen = parser.parse_args()
    config = SIZES[chosen.size]
    write_model(chosen.out / "model", config, chosen.device)
    layers, d = config.num_hidden_layers, config.hidden_size
    made = (
        random_dictionary(chosen.features, d, n, chosen.k, chosen.device) for n in range(layers)
    )
    ours.save(made, chosen.out / "dictionaries")


def write_model(folder: Path, config: Any, device: str) -> None:
    """As `transformers` saves it, with the bundled tokenizer beside it."""
    torch.manual_seed(0)
    with torch.device(device):
        model = Qwen3ForCausalLM._from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(bundled.PATH / name, folder / name)


def random_dictionary(
    features: int, d: int, layer: int, k: int, device: str = "cpu"
) -> SparseDictionary:
    """Unit rows at random, the encoder the decoder's transpose, negative features kept."""
    generator = torch.Generator(device).manual_seed(layer)
    rows = torch.randn(features, d, generator=generator, device=device)
    rows /= rows.norm(dim=-1, keepdim=True)
    site = Site("resid_post", layer)
    spec = DictionarySpec(source=site, target=site, k=k, signed=True)
    weights = {"W_enc": rows, "W_dec": rows.clone()}
    weights |= {"b_enc": rows.new_zeros(features), "b_dec": rows.new_zeros(d)}
    return SparseDictionary(spec, weights)


if __name__ == "__main__":
    main()
