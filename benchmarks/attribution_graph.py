"""Attribution graphs of circuit-tracer and ours, of the same model, transcoders and prompt.

    python -m benchmarks.attribution_graph [--cases quick|all] [--rounds N] [--threads N]
                                           [--environments DIR]

A random Qwen3 and random JumpReLU transcoders are written to files, which both read. Each side
works in a process of its own, and each batch size of circuit-tracer in another, so that peak
memory is its own; circuit-tracer's environment is made with pip unless DIR holds it already. Both
weigh every edge into every active feature and into the logits, from tokens to the finished matrix;
the matrices are compared, then the processes take turns, only one at a time.

circuit-tracer sets the features of the first token aside, and the errors there, which are all of
its MLPs' output; what is compared is the rest. 0.5.0 on PyPI is a fork of the original with the
same mathematics of attribution.

Times are of the wall and of the processor: on a machine that others use too, the second is the
steadier.
"""

import argparse
import json
import platform
import statistics
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import Qwen3Config, Qwen3ForCausalLM

from benchmarks.attribution_graph_peer import Attribute, serve
from benchmarks.peers import environment, started
from hooked_qwen.load import hook
from saes.dictionary import SparseDictionary
from saes.formats.table import WRITTEN
from saes.suite import load_suite
from transcoders.replacement import ReplacementModel, replace_mlps
from transcoders.sources import ERROR, FEATURE, TOKEN
from transcoders.transcoder import transcoder

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "attribution_graph.json"
PEER, REQUIREMENT = "circuit-tracer", "circuit-tracer==0.5.0"
LAYERS, WIDTH, VOCABULARY = 8, 256, 4096
DEFAULT, BATCHES = 512, (64, 512)
"Targets in a backward pass of circuit-tracer: its default, and about where it is fastest."
Case = tuple[int, int, int]
CASES: tuple[Case, ...] = (
    (12, 2048, 32),
    (24, 2048, 32),
    (24, 2048, 16),
    (48, 2048, 8),
    (12, 16384, 32),
)
"tokens, features a layer, how many of them are on at a token, about"
QUICK = CASES[:1]
TOLERANCE = 1e-5
"Of the largest edge: float32 sums in another order."


def main() -> None:
    """Measure every case, write the results, print the table."""
    parser = argparse.ArgumentParser("python -m benchmarks.attribution_graph")
    parser.add_argument("--cases", choices=("quick", "all"), default="all")
    parser.add_argument("--rounds", type=int, default=3, help="timed graphs of each")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--environments", type=Path, help="kept there; default: made and removed")
    chosen = parser.parse_args()
    with TemporaryDirectory() as temporary:
        folder = (chosen.environments or Path(temporary)) / PEER
        python = environment(folder, REQUIREMENT)
        cases = QUICK if chosen.cases == "quick" else CASES
        rows = [_measure(case, python, chosen.threads, chosen.rounds) for case in cases]
    print(table(rows))
    if chosen.cases == "quick":
        return
    record = {
        "machine": f"{platform.machine()}, {chosen.threads} threads",
        "torch": torch.__version__,
        "peer": REQUIREMENT,
        "tolerance": TOLERANCE,
        "rounds": chosen.rounds,
        "rows": rows,
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(record, indent=1) + "\n")


def table(rows: list[dict[str, Any]]) -> str:
    """Times of circuit-tracer as multiples of ours, and peak memory of both."""
    lines = [
        "| tokens | features, on | nodes | default, x wall (CPU) | best batch, x wall (CPU) "
        "| peak GB: default, ours |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        own, default = row["ours"], row["batches"][str(DEFAULT)]
        best = min(row["batches"].values(), key=lambda found: found["cpu"])
        ratios = [
            f"{other['wall'] / own['wall']:.1f} ({other['cpu'] / own['cpu']:.1f})"
            for other in (default, best)
        ]
        lines.append(
            f"| {row['tokens']} | {row['features']:,}, {row['on']} | {row['nodes']:,} | "
            f"{ratios[0]} | {ratios[1]} | {default['peak_gb']:.2f}, {own['peak_gb']:.2f} |"
        )
    return "\n".join(lines)


def _measure(case: Case, python: Path, threads: int, rounds: int) -> dict[str, Any]:
    tokens, features, on = case
    print(f"{tokens} tokens, {features} features, {on} on", file=sys.stderr)
    with TemporaryDirectory() as temporary, ExitStack() as stack:
        folder = Path(temporary)
        _write(folder, tokens, features, on)
        peer = str(HERE / "attribution_graph_peer.py")
        own = f"from {__spec__.name} import work; work()"
        commands = {
            str(batch): [str(python), peer, temporary, str(batch), str(threads)]
            for batch in BATCHES
        } | {"ours": [sys.executable, "-c", own, temporary, str(threads)]}
        workers = {n: stack.enter_context(started(c)) for n, c in commands.items()}
        files = {name: folder / f"{name}.safetensors" for name in workers}
        # The first graph of each is compared and not timed.
        first = {name: worker.ask(str(files[name])) for name, worker in workers.items()}
        difference = max(_differ(files[str(b)], files["ours"]) for b in BATCHES)
        if difference > TOLERANCE:
            raise SystemExit(f"the graphs differ by {difference:.1e} of the largest edge")
        taken: dict[str, list[dict[str, float]]] = {name: [] for name in workers}
        for _ in range(rounds):
            for name, worker in workers.items():
                taken[name].append(worker.ask("-"))
    found = {name: _medians(each) for name, each in taken.items()}
    return {
        "tokens": tokens,
        "features": features,
        "on": on,
        "nodes": int(first["ours"]["targets"]),
        "difference": difference,
        "ours": found.pop("ours"),
        "batches": found,
    }


def _medians(taken: list[dict[str, float]]) -> dict[str, float]:
    return {n: round(statistics.median(t[n] for t in taken), 3) for n in ("wall", "cpu")} | {
        "peak_gb": round(max(t["peak_gb"] for t in taken), 3)
    }


def _write(folder: Path, tokens: int, features: int, on: int) -> None:
    """A random model, transcoders in circuit-tracer's layout, and a prompt."""
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        intermediate_size=3 * WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=8,
        num_key_value_heads=4,
        head_dim=32,
        tie_word_embeddings=False,
        initializer_range=0.1,
    )
    Qwen3ForCausalLM(config).save_pretrained(folder / "model")
    # What the encoder gives is about standard normal.
    threshold = torch.distributions.Normal(0, 1).icdf(torch.tensor(1 - on / features))
    suite = []
    for layer in range(LAYERS):
        weights = {
            "W_enc": torch.randn(features, WIDTH) / WIDTH**0.5,
            "b_enc": torch.randn(features) * 0.01,
            "W_dec": torch.randn(features, WIDTH) / WIDTH**0.5,
            "b_dec": torch.randn(WIDTH) * 0.01,
            "threshold": threshold.expand(features).clone(),
        }
        spec = transcoder(layer, k=None, architecture="jumprelu")
        suite.append(SparseDictionary(spec, weights))
    (folder / "transcoders").mkdir()
    WRITTEN["circuit-tracer"](suite, folder / "transcoders")
    prompt = torch.randint(1, VOCABULARY, (tokens,))
    prompt[0] = 0  # what circuit-tracer takes for the token that begins a text
    save_file({"tokens": prompt}, folder / "prompt.safetensors")


def _differ(theirs: Path, ours: Path) -> float:
    """The largest difference of two adjacencies, as a share of the largest edge."""
    a, b = load_file(theirs), load_file(ours)
    rows, columns = _theirs(a), _ours(b)
    if len(rows[0]) != len(columns[0]):
        raise SystemExit(f"{len(rows[0])} targets are compared with {len(columns[0])}")
    (a_targets, a_sources), (b_targets, b_sources) = rows, columns
    first = a["adjacency"][a_targets][:, a_sources]
    second = b["adjacency"][b_targets][:, b_sources]
    return float((first - second).abs().max() / second.abs().max())


def _theirs(found: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Targets and sources to compare: features, then logits; features, errors, tokens."""
    n, logits = len(found["features"]), len(found["logits"])
    tokens = (len(found["adjacency"]) - n - logits) // (LAYERS + 1)
    features = torch.arange(n)
    last = torch.arange(len(found["adjacency"]) - logits, len(found["adjacency"]))
    position = torch.arange(n, n + (LAYERS + 1) * tokens) - n
    # Errors of the first token are ours alone; tokens are the last of them.
    kept = (position % tokens > 0) | (position >= LAYERS * tokens)
    return torch.cat([features, last]), torch.cat([features, kept.nonzero().squeeze(-1) + n])


def _ours(found: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    kind, position, layer = found["kind"], found["position"], found["layer"]
    feature = ((kind == FEATURE) & (position > 0)).nonzero().squeeze(-1)
    # Within a token of a layer both go by the feature's number.
    errors = ((kind == ERROR) & (position > 0)).nonzero().squeeze(-1)
    errors = errors[(layer[errors] * len(kind) + position[errors]).argsort()]
    tokens = (kind == TOKEN).nonzero().squeeze(-1)
    target = found["target"]
    place = torch.full_like(kind, -1)
    place[target[target >= 0]] = (target >= 0).nonzero().squeeze(-1)
    last = (target < 0).nonzero().squeeze(-1)
    return torch.cat([place[feature], last]), torch.cat([feature, errors, tokens])


def work() -> None:
    """Our own process."""
    folder, threads = sys.argv[1:]
    torch.set_num_threads(int(threads))
    serve("qwen-circuits", lambda: our_attribution(Path(folder)))


def our_attribution(folder: Path) -> Attribute:
    """Every edge of the replacement graph as one matrix."""
    own = Qwen3ForCausalLM.from_pretrained(folder / "model", dtype=torch.float32)
    model, suite = hook(own, name="random-qwen3"), load_suite(folder / "transcoders")
    tokens = load_file(folder / "prompt.safetensors")["tokens"]

    @torch.no_grad()
    def run() -> dict[str, Tensor]:
        replaced = replace_mlps(model, suite, tokens)
        head = own.lm_head.weight
        p, likeliest = replaced.recorded.logits.softmax(-1).topk(10)
        likeliest = likeliest[: int((p.cumsum(0) < 0.95).sum()) + 1]
        directions = head[likeliest] - head.mean(0)
        found, target = _adjacency(replaced, directions)
        sources = replaced.sources
        return {
            "adjacency": found,
            "target": target,
            "kind": sources.kind,
            "position": sources.position,
            "layer": sources.layer,
        }

    return run


def _adjacency(model: ReplacementModel, directions: Tensor) -> tuple[Tensor, Tensor]:
    """A row for each feature, those first that are swept first, and for each direction."""
    sources = model.sources
    features = (sources.kind == FEATURE).nonzero().squeeze(-1)
    found = torch.zeros(len(features) + len(directions), len(sources))
    targets, row = [], 0
    for group in model.grouped(features):
        weight = model.inputs(model.features(group)).weight
        found[row : row + len(group), : len(weight)] = weight.T
        targets.append(group)
        row += len(group)
    weight = model.inputs(model.last_token(directions)).weight
    found[row:, : len(weight)] = weight.T
    return found, torch.cat([*targets, torch.full((len(directions),), -1)])


if __name__ == "__main__":
    main()
