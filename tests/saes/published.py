"""Random dictionaries written as each library publishes them, with that library's arithmetic.

Each case writes files into a folder and returns what the published formula gives: a function from
activations to (features, reconstruction), written out from the layout's own tensors.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import yaml
from safetensors.torch import save_file
from torch import Tensor

from hooked_qwen.sites import Site
from saes.dictionary import DictionarySpec
from saes.formats import ours
from tests.toys import random_dictionary

D, M, K = 24, 20, 5
Oracle = Callable[[Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Case:
    layout: str
    write: Callable[[Path], Oracle]
    "writes the files into an empty folder"
    weights: str
    config: str | None
    target: str = "mlp_out.1"
    source: str | None = None
    parent: str = "suite"
    "what the folder must be called, where the layout keeps facts in its name"

    def sites(self) -> tuple[Site, Site]:
        return Site.parse(self.source or self.target), Site.parse(self.target)


def draw(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def drawn(**shapes: str) -> dict[str, Tensor]:
    sizes = {"m": M, "d": D}
    return {
        name: draw(*(sizes[a] for a in axes), seed=i)
        for i, (name, axes) in enumerate(shapes.items())
    }


def largest(pre: Tensor, by: Tensor | None = None, k: int = K) -> Tensor:
    """`pre` where it is among the k largest of `by`, zero elsewhere."""
    by = pre if by is None else by
    smallest_kept = by.sort(dim=-1, descending=True).values[..., k - 1 : k]
    return torch.where(by >= smallest_kept, pre, 0.0)


def gate(pre: Tensor, threshold: Tensor) -> Tensor:
    return torch.where(pre > threshold, pre.clamp(min=0), 0.0)


def contiguous(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.contiguous() for name, value in tensors.items()}


def put(folder: Path, weights: str, tensors: dict[str, Tensor], config: str, record: dict) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if weights.endswith(".pt"):
        torch.save(tensors, folder / weights)
    else:
        save_file(contiguous(tensors), folder / weights)
    text = yaml.safe_dump(record) if config.endswith(".yaml") else json.dumps(record)
    (folder / config).write_text(text)


def of_ours(folder: Path) -> Oracle:
    spec = DictionarySpec(source=Site("mlp_out", 1), target=Site("mlp_out", 1), k=K)
    made = random_dictionary(spec, dtype=torch.float32)
    ours.save_dictionary(made, folder / "mlp_out.1", card=ours.Card())
    ours.save_suite_index(folder, ["mlp_out.1"])

    def oracle(x: Tensor) -> tuple[Tensor, Tensor]:
        f = largest(x @ made.W_enc.T + made.b_enc).relu()
        return f, f @ made.W_dec + made.b_dec

    return oracle


def of_qwen_scope(folder: Path) -> Oracle:
    w = drawn(W_enc="md", W_dec="dm", b_enc="m", b_dec="d")
    # With so few large ones left, negative pre-activations are among the k largest.
    w["b_enc"] -= 6
    torch.save(w, folder / "layer1.sae.pt")

    def oracle(x: Tensor) -> tuple[Tensor, Tensor]:
        f = largest(x @ w["W_enc"].T + w["b_enc"])
        return f, f @ w["W_dec"].T + w["b_dec"]

    return oracle


def of_gemma_scope(folder: Path) -> Oracle:
    w = drawn(W_enc="dm", W_dec="md", b_enc="m", b_dec="d", threshold="m")
    at = folder / "layer_1/width_16k/average_l0_7"
    at.mkdir(parents=True)
    np.savez(at / "params.npz", **{name: value.numpy() for name, value in w.items()})

    def oracle(x: Tensor) -> tuple[Tensor, Tensor]:
        f = gate(x @ w["W_enc"] + w["b_enc"], w["threshold"])
        return f, f @ w["W_dec"] + w["b_dec"]

    return oracle


def of_gemma_scope_2(folder: Path) -> Oracle:
    shapes = {"w_enc": "dm", "w_dec": "md", "b_enc": "m", "b_dec": "d", "threshold": "m"}
    w = drawn(**shapes, affine_skip_connection="dd")
    config = {
        "architecture": "jump_relu",
        "hf_hook_point_in": "model.layers.1.pre_feedforward_layernorm.output",
        "hf_hook_point_out": "model.layers.1.post_feedforward_layernorm.output",
        "l0": 7,
    }
    put(folder / "transcoder/layer_1_l0_7_affine", "params.safetensors", w, "config.json", config)

    def oracle(x: Tensor) -> tuple[Tensor, Tensor]:
        f = gate(x @ w["w_enc"] + w["b_enc"], w["threshold"])
        return f, f @ w["w_dec"] + w["b_dec"] + x @ w["affine_skip_connection"]

    return oracle


def of_saelens(kind: str, **config: object) -> Callable[[Path], Oracle]:
    extra = {}
    if kind.startswith("jumprelu"):
        extra["threshold"] = "m"
    if "skip" in kind:
        extra["W_skip"] = "dd"
    bias = {"b_gate": "m", "b_mag": "m", "r_mag": "m"} if kind == "gated" else {"b_enc": "m"}
    w = drawn(W_enc="dm", W_dec="md", b_dec="d", **bias, **extra)
    metadata = {"sae_lens_version": "6.1.0", "hook_name": "blocks.1.hook_mlp_out"}
    if kind.endswith("transcoder"):
        metadata |= {"hook_name": "blocks.1.mlp.hook_in", "hook_name_out": "blocks.1.hook_mlp_out"}
    record = {
        "architecture": kind,
        "d_in": D,
        "d_sae": M,
        "dtype": "float32",
        "normalize_activations": "none",
        "reshape_activations": "none",
        "apply_b_dec_to_input": not kind.endswith("transcoder"),
        "metadata": metadata,
    } | config

    def oracle(x: Tensor) -> tuple[Tensor, Tensor]:
        u = x - w["b_dec"] if record["apply_b_dec_to_input"] else x
        norm = w["W_dec"].norm(dim=-1) if record.get("rescale_acts_by_decoder_norm") else 1.0
        if kind == "gated":
            opened = u @ w["W_enc"] + w["b_gate"] > 0
            f = opened * (u @ (w["W_enc"] * w["r_mag"].exp()) + w["b_mag"]).relu()
        else:
            pre = (u @ w["W_enc"] + w["b_enc"]) * norm
            f = gate(pre, w["threshold"]) if "threshold" in w else pre.relu()
            f = largest(pre).relu() if kind == "topk" else f
        y = (f / norm) @ w["W_dec"] + w["b_dec"]
        return f, y + x @ w["W_skip"].T if "W_skip" in w else y

    def write(folder: Path) -> Oracle:
        put(folder / "one", "sae_weights.safetensors", w, "cfg.json", record)
        return oracle

    return write


def of_sparsify(transcode: bool, expansion: bool = False) -> Callable[[Path], Oracle]:
    m = 2 * D if expansion else M
    w = {
        "encoder.weight": draw(m, D, seed=0),
        "encoder.bias": draw(m, seed=1),
        "W_dec": draw(m, D, seed=2),
        "b_dec": draw(D, seed=3),
    }
    if transcode:
        w["W_skip"] = draw(D, D, seed=4)
    record = {
        "activation": "topk",
        "expansion_factor": 2,
        "num_latents": 0 if expansion else m,
        "k": K,
        "skip_connection": transcode,
        "transcode": transcode,
        "d_in": D,
    }

    def oracle(x: Tensor) -> tuple[Tensor, Tensor]:
        u = x if transcode else x - w["b_dec"]
        f = largest((u @ w["encoder.weight"].T + w["encoder.bias"]).relu())
        y = f @ w["W_dec"] + w["b_dec"]
        return f, y + x @ w["W_skip"].T if transcode else y

    def write(folder: Path) -> Oracle:
        put(folder / "layers.1.mlp", "sae.safetensors", w, "cfg.json", record)
        return oracle

    return write


def of_dictionary_learning(kind: str) -> Callable[[Path], Oracle]:
    linear = {"encoder.weight": "md", "encoder.bias": "m", "decoder.weight": "dm"}
    flat = {"W_enc": "dm", "b_enc": "m", "W_dec": "md", "b_dec": "d"}
    gates = {"decoder_bias": "d", "r_mag": "m", "gate_bias": "m", "mag_bias": "m"}
    w = {
        "AutoEncoder": lambda: drawn(**linear, bias="d"),
        "AutoEncoderNew": lambda: drawn(**linear, **{"decoder.bias": "d"}),
        "AutoEncoderTopK": lambda: drawn(**linear, b_dec="d"),
        "BatchTopKSAE": lambda: drawn(**linear, b_dec="d"),
        "MatryoshkaBatchTopKSAE": lambda: drawn(**flat),
        "JumpReluAutoEncoder": lambda: drawn(**flat, threshold="m"),
        "GatedAutoEncoder": lambda: drawn(
            **{k: v for k, v in linear.items() if k != "encoder.bias"}, **gates
        ),
    }[kind]()
    if "TopK" in kind:
        w |= {"k": torch.tensor(K, dtype=torch.int), "threshold": torch.tensor(0.4)}
    if kind.startswith("Matryoshka"):
        w["group_sizes"] = torch.tensor([M // 2, M - M // 2])
    record = {
        "trainer": {"dict_class": kind, "layer": 1, "submodule_name": "mlp_out_layer_1"},
        "buffer": {"io": "out", "d_submodule": D},
    }

    def oracle(x: Tensor) -> tuple[Tensor, Tensor]:
        is_flat = kind in ("MatryoshkaBatchTopKSAE", "JumpReluAutoEncoder")
        W_enc = w["W_enc"] if is_flat else w["encoder.weight"].T
        W_dec = w["W_dec"] if is_flat else w["decoder.weight"].T
        b_dec = next(w[n] for n in ("b_dec", "bias", "decoder.bias", "decoder_bias") if n in w)
        centre = 0 if kind in ("AutoEncoderNew", "JumpReluAutoEncoder") else b_dec
        u = (x - centre) @ W_enc
        if kind == "GatedAutoEncoder":
            f = (u + w["gate_bias"] > 0) * (w["r_mag"].exp() * u + w["mag_bias"]).relu()
        else:
            pre = u + w["b_enc" if is_flat else "encoder.bias"]
            f = pre.relu()
            if kind == "AutoEncoderTopK":
                f = largest(f)
            elif "threshold" in w:
                f = gate(pre, w["threshold"])
        return f, f @ W_dec + b_dec

    def write(folder: Path) -> Oracle:
        put(folder / "trainer_0", "ae.pt", w, "config.json", record)
        return oracle

    return write


def of_circuit_tracer(kind: str) -> Callable[[Path], Oracle]:
    w = drawn(W_enc="md", W_dec="md", b_enc="m", b_dec="d", W_skip="dd")
    record = {
        "model_kind": "transcoder_set",
        "feature_input_hook": "mlp.hook_in",
        "feature_output_hook": "mlp.hook_out",
    }
    if kind == "jumprelu":
        w["activation_function.threshold"] = draw(M, seed=9).abs()
    if kind == "topk":
        w["b_enc"] -= 6
        record |= {"activation": "topk", "k": K}

    def oracle(x: Tensor) -> tuple[Tensor, Tensor]:
        pre = x @ w["W_enc"].T + w["b_enc"]
        f = largest(pre) if kind == "topk" else pre.relu()
        if kind == "jumprelu":
            f = pre * (pre > w["activation_function.threshold"])
        return f, f @ w["W_dec"] + w["b_dec"] + x @ w["W_skip"].T

    def write(folder: Path) -> Oracle:
        put(folder, "layer_1.safetensors", w, "config.yaml", record)
        return oracle

    return write


def of_openmoss(act_fn: str, by_norm: bool = True, **config: object) -> Callable[[Path], Oracle]:
    w = drawn(W_E="dm", W_D="md", b_E="m", b_D="d")
    norms = {"blocks.1.mlp.hook_in": 3.0, "blocks.1.hook_mlp_out": 11.0}
    if act_fn == "jumprelu":
        w["activation_function.log_jumprelu_threshold"] = draw(M, seed=9)
    record = {
        "sae_type": "sae",
        "hook_point_in": "blocks.1.mlp.hook_in",
        "hook_point_out": "blocks.1.hook_mlp_out",
        "act_fn": act_fn,
        "top_k": K,
        "norm_activation": "dataset-wise",
        "sparsity_include_decoder_norm": by_norm,
    } | config

    def oracle(x: Tensor) -> tuple[Tensor, Tensor]:
        scale = [D**0.5 / norm for norm in norms.values()]
        if record["norm_activation"] == "inference":
            scale = [1.0, 1.0]
        pre = x * scale[0] @ w["W_E"] + w["b_E"]
        norm = w["W_D"].norm(dim=-1) if by_norm else torch.ones(M)
        by, f = pre * norm, pre.relu()
        if act_fn == "jumprelu":
            f = torch.where(by > w["activation_function.log_jumprelu_threshold"].exp(), f, 0.0)
        if act_fn == "topk":
            f = largest(f, by)
        y = (f @ w["W_D"] + w["b_D"]) / scale[1]
        return f * norm if act_fn == "topk" else f, y

    def write(folder: Path) -> Oracle:
        numbers = {
            f"dataset_average_activation_norm.{k}": torch.tensor(v) for k, v in norms.items()
        }
        put(folder / "L1M", "sae_weights.safetensors", w | numbers, "config.json", record)
        return oracle

    return write


def _saelens(kind: str, **config: object) -> Case:
    source = "mlp_in.1" if kind.endswith("transcoder") else None
    files = "one/sae_weights.safetensors", "one/cfg.json"
    return Case("saelens", of_saelens(kind, **config), *files, source=source)


def _learnt(kind: str) -> Case:
    files = "trainer_0/ae.pt", "trainer_0/config.json"
    return Case("dictionary-learning", of_dictionary_learning(kind), *files)


def _tracer(kind: str) -> Case:
    files = "layer_1.safetensors", "config.yaml"
    return Case("circuit-tracer", of_circuit_tracer(kind), *files, source="mlp_in.1")


def _openmoss(*args: object, **config: object) -> Case:
    files = "L1M/sae_weights.safetensors", "L1M/config.json"
    return Case("openmoss", of_openmoss(*args, **config), *files, source="mlp_in.1")


def _sparsify(transcode: bool, **options: bool) -> Case:
    files = "layers.1.mlp/sae.safetensors", "layers.1.mlp/cfg.json"
    source = "mlp_in.1" if transcode else None
    return Case("sparsify", of_sparsify(transcode, **options), *files, source=source)


# One of each layout first, by its name: those are the ones that are damaged in every way.
CASES = {
    "ours": Case("ours", of_ours, "mlp_out.1/dictionary.safetensors", "mlp_out.1/dictionary.json"),
    "qwen-scope": Case(
        "qwen-scope",
        of_qwen_scope,
        "layer1.sae.pt",
        None,
        target="resid_post.1",
        parent="SAE-Res-Qwen3-1.7B-Base-W32K-L0_5",
    ),
    "gemma-scope": Case(
        "gemma-scope",
        of_gemma_scope,
        "layer_1/width_16k/average_l0_7/params.npz",
        None,
        parent="gemma-scope-2b-pt-mlp",
    ),
    "gemma-scope-2": Case(
        "gemma-scope-2",
        of_gemma_scope_2,
        "transcoder/layer_1_l0_7_affine/params.safetensors",
        "transcoder/layer_1_l0_7_affine/config.json",
        source="mlp_in.1",
    ),
    "saelens": _saelens("jumprelu"),
    "sparsify": _sparsify(False),
    "dictionary-learning": _learnt("BatchTopKSAE"),
    "openmoss": _openmoss("jumprelu"),
    "circuit-tracer": _tracer("jumprelu"),
    "saelens standard": _saelens("standard"),
    "saelens topk": _saelens("topk", k=K),
    "saelens topk not centred": _saelens("topk", k=K, apply_b_dec_to_input=False),
    "saelens topk by norm": _saelens("topk", k=K, rescale_acts_by_decoder_norm=True),
    "saelens gated": _saelens("gated"),
    "saelens transcoder": _saelens("transcoder"),
    "saelens skip transcoder": _saelens("skip_transcoder"),
    "saelens jumprelu transcoder": _saelens("jumprelu_transcoder"),
    "saelens jumprelu skip transcoder": _saelens("jumprelu_skip_transcoder"),
    "sparsify transcoder": _sparsify(True),
    "sparsify by expansion": _sparsify(False, expansion=True),
    "AutoEncoder": _learnt("AutoEncoder"),
    "AutoEncoderNew": _learnt("AutoEncoderNew"),
    "AutoEncoderTopK": _learnt("AutoEncoderTopK"),
    "Matryoshka": _learnt("MatryoshkaBatchTopKSAE"),
    "JumpReluAutoEncoder": _learnt("JumpReluAutoEncoder"),
    "GatedAutoEncoder": _learnt("GatedAutoEncoder"),
    "circuit-tracer relu": _tracer("relu"),
    "circuit-tracer topk": _tracer("topk"),
    "openmoss relu": _openmoss("relu"),
    "openmoss topk": _openmoss("topk"),
    "openmoss topk not by norm": _openmoss("topk", False),
    "openmoss jumprelu not by norm": _openmoss("jumprelu", False),
    "openmoss folded": _openmoss("jumprelu", norm_activation="inference"),
}
ONE_OF_EACH = list(CASES)[:9]


def write(name: str, tmp_path: Path) -> tuple[Path, Oracle]:
    """The files of a case in a new folder below `tmp_path`, and its arithmetic."""
    folder = tmp_path / CASES[name].parent
    folder.mkdir(parents=True)
    return folder, CASES[name].write(folder)
