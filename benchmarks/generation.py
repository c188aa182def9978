"""Generation under an edit against plain generation: tokens one at a time, with a cache.

    python -m benchmarks.generation [--model bundled|PATH --dictionaries bundled|PATH]
        [--text TEXT] [--tokens N] [--rounds N] [--quick]

Edits cut out features drawn at random: one; five at four sites; seven at every site; all of a
dictionary but seven, at every site. Beside them stand the encodings of every dictionary alone,
which nothing is done with. All run in turn on one thread; told are medians of CPU time a token.
"""

import argparse
import json
import platform
import random
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from transformer_lens.model_bridge import TransformerBridge

from circuits.edits.continuations import GenerateConfig, generate
from hooked_qwen.hooks import Activation, intervene
from hooked_qwen.load import BUNDLED, load
from hooked_qwen.nodes import EVERY, Node
from hooked_qwen.sites import Site
from hooked_qwen.tokens import encode_prompt, end_of_text, pad_left
from saes.edit import Edit, Operation, applied
from saes.suite import Suite, load_suite

RESULTS = Path(__file__).parent / "results" / "generation.json"
EACH, SITES, FEW = 7, 4, 5
Under = Callable[[], AbstractContextManager[Any]]


def main() -> None:
    """Time every edit in turn, print the table; write the results unless `--quick`."""
    parser = argparse.ArgumentParser("python -m benchmarks.generation")
    parser.add_argument("--model", default=BUNDLED)
    parser.add_argument("--dictionaries", default=BUNDLED)
    parser.add_argument("--text", default="The surgeons near the jackets")
    parser.add_argument("--tokens", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--quick", action="store_true", help="one round; nothing is written")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    model = load(chosen.model)
    suite = load_suite(chosen.dictionaries).fitting(model)
    rounds = 1 if chosen.quick else chosen.rounds
    times = measure(model, suite, chosen.text, chosen.tokens, rounds)
    record = {
        "model": Path(chosen.model).name,
        "machine": platform.processor() or platform.machine(),
        "torch": torch.__version__,
        "dictionaries": len(suite),
        "features_in_each": suite[next(iter(suite))].n_features,
        "ms_per_token": {name: round(1e3 * seconds, 3) for name, seconds in times.items()},
        "speed": {name: round(times["plain"] / seconds, 3) for name, seconds in times.items()},
    }
    print(table(record))
    if not chosen.quick:
        known = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
        kept = [other for other in known if other["model"] != record["model"]]
        RESULTS.write_text(json.dumps([*kept, record], indent=1) + "\n")


def measure(
    model: TransformerBridge, suite: Suite, text: str, tokens: int, rounds: int
) -> dict[str, float]:
    """CPU seconds a token, a median over the rounds, of each way of generating."""
    tokenizer = model.tokenizer
    batch = pad_left([encode_prompt(tokenizer, text)], end_of_text(tokenizer))
    config = GenerateConfig(tokens=tokens)
    found: dict[str, list[float]] = {}
    # The first round is not counted: what is made once is made there.
    for _ in range(rounds + 1):
        for name, under in ways(model, suite).items():
            with under():
                start = time.process_time()
                written = generate(model, batch, config)
                took = time.process_time() - start
            found.setdefault(name, []).append(took / written.numel())
    return {name: statistics.median(times[1:]) for name, times in found.items()}


def ways(model: TransformerBridge, suite: Suite) -> dict[str, Under]:
    """What generation is under."""
    rng, names = random.Random(0), list(suite)
    drawn = {name: rng.sample(range(suite[name].n_features), EACH) for name in names}
    nodes = [Node(name, feature) for name in names for feature in drawn[name]]
    some = rng.sample(names, min(SITES, len(names)))
    few = [
        Node(some[i % len(some)], drawn[some[i % len(some)]][i // len(some)]) for i in range(FEW)
    ]
    but = [
        Operation(
            node=Node(name, EVERY),
            do="zero",
            besides=tuple(node for node in nodes if node.site == name),
        )
        for name in names
    ]

    def edited(*operations: Operation) -> Under:
        edit = Edit(operations=operations)
        return lambda: applied(model, suite, edit, must_fire=False)

    def zeroed(nodes: list[Node]) -> Under:
        return edited(*(Operation(node=node, do="zero") for node in nodes))

    return {
        "plain": nullcontext,
        "encodings alone": lambda: encoded(model, suite),
        "one feature": zeroed(few[:1]),
        f"{FEW} features at {len(some)} sites": zeroed(few),
        f"{EACH} features at every site": zeroed(nodes),
        f"all but {EACH} at every site": edited(*but),
    }


@contextmanager
def encoded(model: TransformerBridge, suite: Suite) -> Iterator[None]:
    """Every dictionary encodes what it reads, as it does under an edit; nothing is changed."""

    def reading(site: Site) -> Callable[[Activation], Activation]:
        own = [suite[name] for name in suite if suite.reads_of(name)[-1] == site]

        def read(value: Activation) -> Activation:
            for dictionary in own:
                dictionary.encode(value)
            return value

        return read

    with ExitStack() as stack:
        stack.enter_context(intervene(model, {site: reading(site) for site in suite.reads}))
        yield


def table(record: dict[str, Any]) -> str:
    """A line for each way of generating."""
    lines = [
        f"{record['model']}, {record['dictionaries']} dictionaries",
        "",
        "| generation | CPU ms a token | speed |",
        "|---|---|---|",
    ]
    lines += [
        f"| {name} | {ms:.2f} | {record['speed'][name]:.2f} |"
        for name, ms in record["ms_per_token"].items()
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
