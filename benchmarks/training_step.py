"""How much a TopK training step costs beside the one dense product it cannot avoid.

    python -m benchmarks.training_step

Forward and backward of one batch at float32, no optimiser, both forms on the same data; their
gradients are compared before anything is timed.
"""

import json
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from saes.nonlinearities import topk
from saes.step import Weights, topk_step

RESULTS = Path(__file__).parent / "results" / "training_step.json"
SHAPES = ((512, 4096, 32), (896, 4096, 32), (512, 8192, 32))
BATCH = 2048
ROUNDS = 7


def main() -> None:
    """Time every shape, print a table, write the results."""
    rows = [measure(*shape) for shape in SHAPES]
    record = {
        "machine": f"{torch.get_num_threads()} threads, {platform.processor() or 'x86-64'} CPU",
        "torch": torch.__version__,
        "batch": BATCH,
        "rounds": ROUNDS,
        "rows": rows,
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(record, indent=1) + "\n")
    for row in rows:
        print(row)


def measure(d: int, features: int, k: int) -> dict[str, float]:
    """Median times of one shape, as multiples of the encoder's matrix product."""
    torch.manual_seed(0)
    W_dec = torch.nn.functional.normalize(torch.randn(features, d), dim=-1)
    weights = Weights(W_dec.clone(), torch.zeros(features), W_dec, torch.zeros(d))
    x = torch.randn(BATCH, d)
    none = torch.zeros(0, dtype=torch.long)

    def ours() -> tuple[Tensor, ...]:
        result = topk_step(weights, x, x, k=k, dead=none, aux_coefficient=0.0)
        return result.gradients.tensors()

    def autograd() -> tuple[Tensor, ...]:
        leaves = Weights(*(w.detach().requires_grad_() for w in weights.tensors()))
        f = topk(x @ leaves.W_enc.T + leaves.b_enc, k)
        (f @ leaves.W_dec + leaves.b_dec - x).square().mean().backward()
        return tuple(w.grad for w in leaves.tensors())  # pyright: ignore[reportReturnType]

    for a, b in zip(ours(), autograd(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-7, rtol=1e-3)
    times = _alternate({"gemm": lambda: x @ weights.W_enc.T, "ours": ours, "autograd": autograd})
    gemm = times["gemm"]
    return {
        "d": d,
        "features": features,
        "k": k,
        "gemm_ms": round(gemm * 1e3, 1),
        "ours_x_gemm": round(times["ours"] / gemm, 2),
        "autograd_x_gemm": round(times["autograd"] / gemm, 2),
        "autograd_x_ours": round(times["autograd"] / times["ours"], 2),
    }


def _alternate(functions: Mapping[str, Callable[[], object]]) -> dict[str, float]:
    samples: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(ROUNDS):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            samples[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in samples.items()}


if __name__ == "__main__":
    main()
