"""The publishing libraries' side of `benchmarks.interop`, run by a Python that has them.

    python interop_peer.py publish FOLDER     each library saves random dictionaries of its own
    python interop_peer.py read FOLDER        each library reads what we wrote

Beside each dictionary, `expected.safetensors` holds inputs, features and outputs.
"""

import json
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

D, M, K, TOKENS = 64, 256, 8, 512
EXPECTED = "expected.safetensors"


def inputs() -> Tensor:
    torch.manual_seed(1)
    return torch.randn(TOKENS, D) * torch.logspace(-1, 1, TOKENS)[:, None]


def randomise(module: nn.Module, positive: tuple[str, ...] = ()) -> nn.Module:
    """Every parameter drawn at random; those whose name ends as in `positive`, positive."""
    for i, (name, value) in enumerate(module.named_parameters()):
        generator = torch.Generator().manual_seed(i)
        drawn = torch.randn(value.shape, generator=generator) / (D**0.5 if value.dim() > 1 else 1)
        value.data = drawn.abs() if name.endswith(positive) and positive else drawn
    return module.eval()


def keep(folder: Path, x: Tensor, f: Tensor, y: Tensor) -> None:
    tensors = {"x": x, "f": f.detach().to_dense(), "y": y.detach()}
    save_file({k: v.contiguous() for k, v in tensors.items()}, folder / EXPECTED)


def publish_saelens(out: Path) -> None:
    from sae_lens import SAE

    kinds: list[tuple[str, dict[str, Any]]] = [
        ("standard", {}),
        ("standard", {"apply_b_dec_to_input": False}),
        ("topk", {"k": K}),
        ("topk", {"k": K, "rescale_acts_by_decoder_norm": True}),
        ("jumprelu", {}),
        ("gated", {}),
        ("transcoder", {}),
        ("skip_transcoder", {}),
        ("jumprelu_transcoder", {}),
        ("jumprelu_skip_transcoder", {}),
    ]
    for i, (kind, options) in enumerate(kinds):
        is_transcoder = kind.endswith("transcoder")
        hooks = {"hook_name": "blocks.1.hook_mlp_out"}
        if is_transcoder:
            hooks = {"hook_name": "blocks.1.mlp.hook_in", "hook_name_out": "blocks.1.hook_mlp_out"}
            options = options | {"d_out": D, "apply_b_dec_to_input": False}
        config = {"architecture": kind, "d_in": D, "d_sae": M, "metadata": hooks, **options}
        sae, x = randomise(SAE.from_dict(config), ("threshold",)), inputs()
        folder = out / f"saelens-{i}-{kind}"
        sae.save_model(folder)
        keep(folder, x, sae.encode(x), sae(x))


def publish_sparsify(out: Path) -> None:
    from sparsify import SparseCoder, SparseCoderConfig

    for name, transcode, latents in (
        ("sae", False, M),
        ("transcoder", True, M),
        ("wide", False, 0),
    ):
        config = SparseCoderConfig(
            num_latents=latents,
            expansion_factor=4,
            k=K,
            transcode=transcode,
            skip_connection=transcode,
        )
        coder, x = randomise(SparseCoder(D, config)), inputs()
        folder = out / f"sparsify-{name}" / "layers.1.mlp"
        coder.save_to_disk(folder)
        keep(folder.parent, x, *sparsify_outputs(coder, x))


def sparsify_outputs(coder: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    encoded = coder.encode(x)
    f = torch.zeros(len(x), coder.num_latents)
    f = f.scatter(-1, encoded.top_indices, encoded.top_acts)
    y = f @ coder.W_dec + coder.b_dec
    return f, y if coder.W_skip is None else y + x @ coder.W_skip.mT


def publish_dictionary_learning(out: Path) -> None:
    from dictionary_learning import dictionary as plain
    from dictionary_learning.trainers.batch_top_k import BatchTopKSAE
    from dictionary_learning.trainers.matryoshka_batch_top_k import MatryoshkaBatchTopKSAE
    from dictionary_learning.trainers.top_k import AutoEncoderTopK

    made = [
        plain.AutoEncoder(D, M),
        plain.AutoEncoderNew(D, M),
        plain.GatedAutoEncoder(D, M),
        plain.JumpReluAutoEncoder(D, M),
        AutoEncoderTopK(D, M, K),
        BatchTopKSAE(D, M, K),
        MatryoshkaBatchTopKSAE(D, M, K, [M // 4, M - M // 4]),
    ]
    for ae in made:
        kind, x = type(ae).__name__, inputs()
        randomise(ae, ("threshold",))
        if kind in ("BatchTopKSAE", "MatryoshkaBatchTopKSAE"):
            ae.threshold.fill_(0.7)
        folder = out / f"dictionary-learning-{kind}"
        folder.mkdir()
        torch.save(ae.state_dict(), folder / "ae.pt")
        trainer = {"dict_class": kind, "layer": 1, "submodule_name": "mlp_out_layer_1"}
        config = {"trainer": trainer, "buffer": {"io": "out"}}
        (folder / "config.json").write_text(json.dumps(config))
        f = ae.encode(x)
        keep(folder, x, f, ae.decode(f))


def publish_circuit_tracer(out: Path) -> None:
    from circuit_tracer.transcoder.activation_functions import JumpReLU
    from circuit_tracer.transcoder.single_layer_transcoder import (
        SingleLayerTranscoder,
        TranscoderSet,
    )

    for name, activation in (("relu", nn.functional.relu), ("jumprelu", JumpReLU(torch.zeros(M)))):
        one = SingleLayerTranscoder(D, M, activation, 0, True, dtype=torch.float32)
        one, x = randomise(one, ("threshold",)), inputs()
        folder = out / f"circuit-tracer-{name}"
        hooks = {"feature_input_hook": "mlp.hook_in", "feature_output_hook": "mlp.hook_out"}
        TranscoderSet({0: one}, **hooks).to_safetensors(str(folder))
        config = yaml.safe_dump({"model_kind": "transcoder_set", **hooks})
        (folder / "config.yaml").write_text(config)
        keep(folder, x, one.encode(x), one(x))


def read_saelens(folder: Path, x: Tensor) -> tuple[Tensor, Tensor]:
    from sae_lens import SAE

    sae = SAE.load_from_disk(next(folder.glob("*/cfg.json")).parent)
    return sae.encode(x), sae(x)


def read_sparsify(folder: Path, x: Tensor) -> tuple[Tensor, Tensor]:
    from sparsify import SparseCoder

    (coder,) = SparseCoder.load_many(str(folder), local=True).values()
    return sparsify_outputs(coder, x)


def read_circuit_tracer(folder: Path, x: Tensor) -> tuple[Tensor, Tensor]:
    from circuit_tracer.transcoder.single_layer_transcoder import load_transcoder_set

    config = yaml.safe_load((folder / "config.yaml").read_text())
    hooks = {key: config[key] for key in ("feature_input_hook", "feature_output_hook")}
    paths = {0: str(folder / "layer_0.safetensors")}
    eager = {"lazy_encoder": False, "lazy_decoder": False}
    (one,) = load_transcoder_set(paths, "", **hooks, **eager)
    return one.encode(x), one(x)


PUBLISH: dict[str, Callable[[Path], None]] = {
    "sae-lens": publish_saelens,
    "eai-sparsify": publish_sparsify,
    "dictionary-learning": publish_dictionary_learning,
    "circuit-tracer": publish_circuit_tracer,
}
READ = {
    "saelens": read_saelens,
    "sparsify": read_sparsify,
    "circuit-tracer": read_circuit_tracer,
}


def publish(out: Path) -> Iterator[tuple[str, str]]:
    """Save with every library that is here; yields its version, or why it is left out."""
    for name, one in PUBLISH.items():
        try:
            one(out)
            yield name, version(name)
        except ImportError as error:
            yield name, f"not installed: {error}"


@torch.no_grad()
def main(verb: str, folder: Path) -> None:
    """Publish or read, and print what was done as JSON."""
    if verb == "publish":
        print(json.dumps(dict(publish(folder))))
        return
    for one in sorted(folder.iterdir()):
        layout = next(name for name in READ if one.name.startswith(name))
        x = load_file(one / EXPECTED)["x"]
        (one / EXPECTED).unlink()
        try:
            keep(one, x, *READ[layout](one, x))
        except ImportError:
            continue
    print("{}")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
