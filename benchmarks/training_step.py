"""Whole TopK training steps of four libraries on the same weights and data.

    python -m benchmarks.training_step [--shapes quick|all] [--rounds N] [--threads N]
                                       [--environments DIR] [--device DEVICE] [--alone]

Each library trains in a process of its own (`training_step_peer.py`), in an environment that is
made with pip unless DIR holds it already. Their first losses are compared, then the processes take
steps in turn, only one at a time. A step is all that happens to a batch of activations: forward,
backward, clipping and the decoder's projection as the library does them, Adam, bookkeeping.
"""

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from itertools import count, cycle
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from benchmarks.devices import machine
from benchmarks.peers import environment, started
from benchmarks.training_step_peer import RATE, PeerStep, serve
from hooked_qwen.sites import Site
from hooked_qwen.stream import ActivationBatch
from saes.nonlinearities import topk
from saes.sae import sae
from saes.training.config import TrainConfig
from saes.training.encode import Precision
from saes.training.initial import Normalisation
from saes.training.recorded_step import WorkRecorder, recorder
from saes.training.step import DictionaryWeights
from saes.training.trainer import DictionaryTrainer

HERE = Path(__file__).parent
RESULTS = HERE / "results"
PEERS = {
    "sae-lens": "sae-lens==6.54.*",
    "dictionary-learning": "dictionary-learning==0.1.*",
    "eai-sparsify": "eai-sparsify==1.3.*",
}
OWN_LOSSES = {
    "sae-lens": "losses['mse_loss']: squared error summed over d, mean over tokens",
    "dictionary-learning": "l2_loss: squared error summed over d, mean over tokens",
    "eai-sparsify": "fvu: squared error over the batch's total variance",
    "qwen-circuits": "loss: squared error, mean over d and tokens",
}
StepShape = tuple[int, int, int, int]
SHAPES: tuple[StepShape, ...] = (
    (512, 8192, 32, 2048),
    (896, 4096, 32, 2048),
    (512, 4096, 32, 2048),
    (1024, 16384, 64, 2048),
    (2048, 32768, 100, 1024),
    (256, 2048, 16, 512),
)
"d, features, k, tokens in a batch"
QUICK = SHAPES[-1:]
BATCHES, WARM_UP = 4, 2
OURS: dict[str, Precision] = {"ours": "float32", "ours, bfloat16 encoder": "bfloat16"}
GEMMS = {"product": torch.float32, "product in bfloat16": torch.bfloat16}
AUTOGRAD = "autograd of the dense formula"
ONE_BY_ONE = ", kernel by kernel"
"On a GPU, where a step is otherwise asked for at once."
TF32 = "tf32"
"What sparsify's trainer asks for: a card then multiplies float32 with ten binary digits."
TOLERANCE = {"float32": 1e-4, "bfloat16": 1e-3, TF32: 1e-3}
"Of the first loss, relative: where features are nearly equal, rounding decides which is chosen."


def main() -> None:
    """Measure every shape, write the results, print the table."""
    parser = argparse.ArgumentParser("python -m benchmarks.training_step")
    parser.add_argument("--shapes", choices=("quick", "all"), default="all")
    parser.add_argument("--rounds", type=int, default=9, help="timed steps of each")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--environments", type=Path, help="kept there; default: made and removed")
    parser.add_argument("--device", default="cpu", help="any that torch knows, such as cuda")
    parser.add_argument(
        "--alone", action="store_true", help="ours without the libraries, in a file of its own"
    )
    chosen = parser.parse_args()
    with TemporaryDirectory() as temporary:
        folder = chosen.environments or Path(temporary)
        peers = () if chosen.alone else PEERS
        pythons = {name: _environment(folder / name, name) for name in peers}
        shapes = QUICK if chosen.shapes == "quick" else SHAPES
        rows = []
        for shape in shapes:
            rows.append(_measure(shape, pythons, chosen))
            if chosen.shapes != "quick":
                _write(rows, chosen)
    print(table(rows))


def _write(rows: list[dict[str, Any]], chosen: argparse.Namespace) -> None:
    record = {
        "machine": machine(chosen.device, chosen.threads),
        "torch": torch.__version__,
        "own_losses": OWN_LOSSES,
        "rounds": chosen.rounds,
        "rows": rows,
    }
    name = "training_step" if chosen.device == "cpu" else "training_step_gpu"
    name = f"{name}_alone" if chosen.alone else name
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(record, indent=1) + "\n")


def table(rows: list[dict[str, Any]]) -> str:
    """Times of the others as multiples of ours, and ours as multiples of the bare product."""
    others = [name for name in rows[0]["ms"] if name not in (*OURS, *GEMMS)]
    lines = [
        f"| d, features, k, batch | encoder | {' | '.join(others)} | ours / product |",
        "|" + "---|" * (len(others) + 3),
    ]
    for row in rows:
        shape = ", ".join(str(row[name]) for name in ("d", "features", "k", "batch"))
        for name, precision in OURS.items():
            ratios = [row["ms"][other] / row["ms"][name] for other in others]
            floor = row["ms"][name] / row["ms"]["product"]
            cells = [shape, precision, *(f"{r:.1f}" for r in ratios), f"{floor:.2f}"]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _environment(folder: Path, library: str) -> Path:
    made = (folder / "bin" / "python").exists()
    python = environment(folder, PEERS[library])
    if not made:
        # It comes along for another build of torch, cannot be imported, and nothing needs it.
        pip = [str(python), "-m", "pip"]
        subprocess.run([*pip, "uninstall", "-qy", "torchvision"], check=True)
    return python


def _measure(
    shape: StepShape, pythons: Mapping[str, Path], chosen: argparse.Namespace
) -> dict[str, Any]:
    d, features, k, tokens = shape
    print(f"d {d}, features {features}, k {k}, batch {tokens}", file=sys.stderr)
    with TemporaryDirectory() as temporary, ExitStack() as stack:
        file = Path(temporary) / "problem.safetensors"
        save_file(_problem(d, features, tokens), file)
        arguments = [str(file), str(k), str(chosen.threads), chosen.device]
        commands = [
            [str(python), str(HERE / "training_step_peer.py"), library]
            for library, python in pythons.items()
        ]
        own = f"from {__spec__.name} import work; work()"
        commands.append([sys.executable, "-c", own, "qwen-circuits"])
        workers = [stack.enter_context(started([*c, *arguments])) for c in commands]
        steps = {name: worker for worker in workers for name in worker.about["steps"]}
        answers: dict[str, list[dict[str, float]]] = {name: [] for name in steps}
        for _ in range(WARM_UP + chosen.rounds):
            for name, worker in steps.items():
                answers[name].append(worker.ask(name))
    losses = {name: taken[0]["loss"] for name, taken in answers.items() if name not in GEMMS}
    _check(losses, chosen.device)
    seconds = {n: [a["seconds"] for a in taken[WARM_UP:]] for n, taken in answers.items()}
    return {
        "d": d,
        "features": features,
        "k": k,
        "batch": tokens,
        "libraries": {w.about["library"]: w.about["version"] for w in workers},
        "first_loss": losses,
        "ms": {name: round(statistics.median(s) * 1e3, 2) for name, s in seconds.items()},
        "fastest_ms": {name: round(min(s) * 1e3, 2) for name, s in seconds.items()},
    }


def _problem(d: int, features: int, tokens: int) -> dict[str, Tensor]:
    """Unit decoder rows, the encoder their transpose, no biases; centred normal activations."""
    torch.manual_seed(0)
    rows = torch.nn.functional.normalize(torch.randn(features, d), dim=-1)
    return {"W_enc": rows, "W_dec": rows.clone(), "x": torch.randn(BATCHES, tokens, d)}


def _check(losses: Mapping[str, float], device: str) -> None:
    precisions: dict[str, str] = dict(OURS)
    if device != "cpu":
        precisions["sparsify"] = TF32
    for name, loss in losses.items():
        precision = precisions.get(name.removesuffix(ONE_BY_ONE), "float32")
        if abs(loss / losses["ours"] - 1) > TOLERANCE[precision]:
            raise SystemExit(f"first losses differ, so steps cannot be compared: {losses}")


def work() -> None:
    """Our own process."""
    library, *rest = sys.argv[1:]
    serve(library, our_steps, *rest)


def our_steps(problem: Mapping[str, Tensor], k: int) -> dict[str, PeerStep]:
    """Our step at both precisions, the plain formula, and the bare encoder product."""
    record = recorder(problem["x"].device)
    steps = {name: _ours(problem, k, precision, record) for name, precision in OURS.items()}
    if record is not None:
        for name, precision in OURS.items():
            steps[name + ONE_BY_ONE] = _ours(problem, k, precision, None)
    steps[AUTOGRAD] = _autograd(problem, k)
    return steps | {name: _product(problem, dtype) for name, dtype in GEMMS.items()}


def _weights(problem: Mapping[str, Tensor]) -> DictionaryWeights:
    features, d = problem["W_enc"].shape
    zeros = problem["W_enc"].new_zeros
    return DictionaryWeights(
        W_enc=problem["W_enc"].clone(),
        b_enc=zeros(features),
        W_dec=problem["W_dec"].clone(),
        b_dec=zeros(d),
    )


def _ours(
    problem: Mapping[str, Tensor], k: int, precision: Precision, record: WorkRecorder | None
) -> PeerStep:
    """`DictionaryTrainer.train_step`, what `saes.training.loop.fit` does to a batch."""
    features, d = problem["W_enc"].shape
    site, plain = Site("mlp_out", 0), Normalisation(problem["x"].new_zeros(d), 1.0)
    config = TrainConfig(width=features, precision=precision, dead_after=10**9)
    trainer = DictionaryTrainer(
        sae(site, k=k),
        config,
        plain,
        plain,
        _weights(problem),
        seed=0,
        record=record,
    )
    numbers, batches = count(), cycle(problem["x"])

    def step() -> float:
        x = next(batches)
        batch = ActivationBatch({site: x}, {site: torch.zeros(len(x), dtype=torch.bool)})
        trainer.train_step(batch, RATE, next(numbers))
        return float(trainer.watched.shown["loss"]) * d

    return step


def _autograd(problem: Mapping[str, Tensor], k: int) -> PeerStep:
    """The same step with the loss written plainly and differentiated by torch."""
    W_enc, b_enc, W_dec, b_dec = (torch.nn.Parameter(w) for w in _weights(problem).named().values())
    leaves = [W_enc, b_enc, W_dec, b_dec]
    adam = torch.optim.Adam(leaves, lr=RATE, fused=True)
    batches = cycle(problem["x"])

    def step() -> float:
        x = next(batches)
        f = topk(x @ W_enc.T + b_enc, k)
        loss = (f @ W_dec + b_dec - x).square().mean()
        loss.backward()
        with torch.no_grad():
            assert W_dec.grad is not None
            along = (W_dec.grad * W_dec).sum(-1, keepdim=True)
            W_dec.grad.addcmul_(along, W_dec, value=-1)
            torch.nn.utils.clip_grad_norm_(leaves, 1.0)
            adam.step()
            adam.zero_grad()
            W_dec.div_(W_dec.norm(dim=-1, keepdim=True))
        return loss.item() * x.shape[-1]

    return step


def _product(problem: Mapping[str, Tensor], dtype: torch.dtype) -> PeerStep:
    """The product that no step can avoid, into memory that is there already."""
    x, W_enc = problem["x"][0].to(dtype), problem["W_enc"].to(dtype)
    pre = x.new_empty(len(x), len(W_enc))

    def step() -> float:
        torch.mm(x, W_enc.T, out=pre)
        return 0.0

    return step


if __name__ == "__main__":
    main()
