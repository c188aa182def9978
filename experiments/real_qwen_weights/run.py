"""Do transcoder features write the tokens that they read?

    python -m experiments.real_qwen_weights.run --model MODEL.gguf --dictionaries DIR

For each transcoder and a sample of its features: of the ten tokens that a feature promotes most,
the share among the hundred that it reads most (both by the direct path, by weights alone). Beside
it the same for features paired at random (what one promotes, another reads), for an untrained
dictionary of the same shape, and for the MLP's neurons, which read by their gate.
"""

import argparse
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from circuits.graph import rounded, write_json
from hooked_qwen.load import load
from saes.dictionary import SparseDictionary
from saes.evaluation.bootstrap import interval, resamples
from saes.suite import load_suite
from transcoders.frozen.norm import gain_of
from transcoders.weights import reading, tokens_read

RESULTS = Path(__file__).parent / "results"
FEATURES, PROMOTED, READ = 400, 10, 100
FeatureTokens = Int[Tensor, "features tokens"]


def main() -> None:
    """Measure every transcoder, write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--dictionaries", required=True)
    arguments = parser.parse_args()
    model = load(arguments.model, device="cpu")
    suite = load_suite(arguments.dictionaries, mlp="transcoder")
    names = [name for name in suite if suite.reads_of(name)[0].kind == "mlp_in"]
    found = {name: layer_of(model, suite[name]) for name in names}
    for name, rows in found.items():
        print(name, {row: one["share"] for row, one in rows.items()})
    RESULTS.mkdir(exist_ok=True)
    write_json({"features": FEATURES, "layers": found}, RESULTS / "copying.json")


@torch.no_grad()
def layer_of(model: TransformerBridge, dictionary: SparseDictionary) -> dict[str, Any]:
    """The share of each row of the table, with a 95 % interval over features."""
    generator = torch.Generator().manual_seed(0)
    some = torch.randperm(dictionary.n_features, generator=generator)[:FEATURES]
    site = dictionary.reads[0]
    qwen: Any = model.original_model
    mlp = qwen.model.layers[site.layer].mlp
    gain = gain_of(model.blocks[site.layer].ln2.original_component)
    neurons = torch.randperm(len(mlp.gate_proj.weight), generator=generator)[:FEATURES]
    d = dictionary.W_dec.shape[1]
    drawn = torch.randn(2, FEATURES, d, generator=generator)
    rows = {
        "features": (reading(model, dictionary, some), dictionary.W_dec[some]),
        "untrained": (drawn[0] * gain, drawn[1]),
        "neurons": (mlp.gate_proj.weight[neurons] * gain, mlp.down_proj.weight.T[neurons]),
    }
    ids = {name: (_read(model, R), _promoted(model, W)) for name, (R, W) in rows.items()}
    read, promoted = ids["features"]
    ids["features paired at random"] = (read, promoted.roll(1, 0))
    return {name: _share(*pair) for name, pair in ids.items()}


def _read(model: TransformerBridge, vectors: Float[Tensor, "features d"]) -> FeatureTokens:
    """The tokens read most, exciting ones only; -1 where there are fewer among the largest."""
    weights, ids = tokens_read(model, vectors, 4 * READ)
    found = torch.full((len(vectors), READ), -1)
    for row, w, at in zip(found, weights, ids, strict=True):
        exciting = at[w > 0][:READ]
        row[: len(exciting)] = exciting
    return found


def _promoted(model: TransformerBridge, rows: Float[Tensor, "features d"]) -> FeatureTokens:
    gain = gain_of(model.ln_final.original_component)
    head = model.unembed.original_component.weight
    return torch.cat([((part * gain) @ head.T).topk(PROMOTED).indices for part in rows.split(64)])


def _share(read: FeatureTokens, promoted: FeatureTokens) -> dict[str, Any]:
    share = (promoted[:, :, None] == read[:, None, :]).any(-1).float().mean(1)
    means = resamples(len(share)) @ share.double()
    return {
        "share": rounded(float(share.mean())),
        "interval": [rounded(end) for end in interval(means) or []],
        "above_half": rounded(float((share > 0.5).float().mean())),
    }


if __name__ == "__main__":
    main()
