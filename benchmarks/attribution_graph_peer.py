"""One library's attribution graph of a prompt, in an environment that has the library.

    python attribution_graph_peer.py PROBLEM BATCH THREADS

The other side of `benchmarks.attribution_graph`: for each line on standard input, which names a
file, circuit-tracer's whole `attribute` runs, with BATCH targets in a backward pass, and a line of
JSON answers with its time. Where the file is not `-`, the adjacency is written there. PROBLEM is a
folder with the model, the transcoders and the prompt's tokens.
"""

import json
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

Attribute = Callable[[], dict[str, Tensor]]
"Attributes the prompt; gives the adjacency and what its rows and columns are."


def serve(library: str, make: Callable[[], Attribute]) -> None:
    """Say what this is, then attribute for each line that comes."""
    # Not on Windows, where this cannot run.
    import resource

    attribute = make()
    print(json.dumps({"library": library, "version": version(library)}), flush=True)
    for line in sys.stdin:
        wall, cpu = time.perf_counter(), time.process_time()
        found = attribute()
        taken = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
        if (file := line.strip()) != "-":
            save_file({name: x.contiguous() for name, x in found.items()}, file)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(json.dumps(taken | {"peak_gb": peak, "targets": len(found["adjacency"])}), flush=True)


def circuit_tracer(problem: Path, batch: int) -> Attribute:
    """`attribute` of the TransformerLens backend, every active feature a target."""
    from circuit_tracer.attribution.attribute import attribute
    from circuit_tracer.replacement_model.replacement_model_transformerlens import (
        TransformerLensReplacementModel,
    )
    from circuit_tracer.transcoder.single_layer_transcoder import load_transcoder_set
    from transformer_lens import HookedTransformerConfig
    from transformer_lens.pretrained.weight_conversions.qwen3 import convert_qwen3_weights
    from transformers import Qwen3ForCausalLM

    own = Qwen3ForCausalLM.from_pretrained(problem / "model", dtype=torch.float32)
    c = own.config
    config = HookedTransformerConfig(
        model_name="random-qwen3",
        d_model=c.hidden_size,
        d_head=c.head_dim,
        n_heads=c.num_attention_heads,
        n_key_value_heads=c.num_key_value_heads,
        d_mlp=c.intermediate_size,
        n_layers=c.num_hidden_layers,
        n_ctx=2048,
        eps=c.rms_norm_eps,
        d_vocab=c.vocab_size,
        act_fn=c.hidden_act,
        use_attn_scale=True,
        normalization_type="RMS",
        positional_embedding_type="rotary",
        rotary_base=int(c.rope_parameters["rope_theta"] if hasattr(c, "rope_parameters")
                        else c.rope_theta),
        rotary_adjacent_pairs=False,
        rotary_dim=c.head_dim,
        final_rms=True,
        gated_mlp=True,
        default_prepend_bos=False,
        use_qk_norm=True,
        device="cpu",
        original_architecture="Qwen3ForCausalLM",
    )  # fmt: skip
    files = {
        n: str(problem / "transcoders" / f"layer_{n}.safetensors")
        for n in range(c.num_hidden_layers)
    }
    transcoders = load_transcoder_set(
        files, "random", "mlp.hook_in", "hook_mlp_out", torch.device("cpu"),
        lazy_encoder=False, lazy_decoder=False,
    )  # fmt: skip
    model = TransformerLensReplacementModel(config, tokenizer=None)
    weights = convert_qwen3_weights(own, config)
    model.load_and_process_state_dict(
        weights, fold_ln=False, center_writing_weights=False, center_unembed=False
    )
    model._configure_replacement_model(transcoders)
    model.tokenizer = _Tokenizer(c.vocab_size)
    tokens = load_file(problem / "prompt.safetensors")["tokens"]

    def run() -> dict[str, Tensor]:
        graph = attribute(tokens, model, batch_size=batch)
        features = graph.active_features[graph.selected_features]
        return {
            "adjacency": graph.adjacency_matrix,
            "features": features,
            "logits": torch.tensor([target.vocab_idx for target in graph.logit_targets]),
        }

    return run


class _Tokenizer:
    """What `attribute` asks of one, for a model that has none."""

    bos_token_id = pad_token_id = eos_token_id = 0
    all_special_ids = (0,)
    padding_side = "right"

    def __init__(self, size: int) -> None:
        self.vocab_size = size

    def decode(self, ids: Tensor) -> str:
        return str(ids)


if __name__ == "__main__":
    folder, batch_size, threads = sys.argv[1:]
    torch.set_num_threads(int(threads))
    serve("circuit-tracer", lambda: circuit_tracer(Path(folder), int(batch_size)))
