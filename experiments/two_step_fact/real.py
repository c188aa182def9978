"""City -> country -> capital in a real Qwen: which it answers, and the country exchanged.

    python -m experiments.two_step_fact.real --model MODEL.gguf --dictionaries DIR [--name NAME]

Some tens of cities that are no capitals are asked about in three wordings. Of the wording that is
answered most, pairs of answered cities with other capitals are taken; at the last token of the
first city nodes are set to what they are at that of the second, and the model runs on. Nodes are
features of the transcoders, neurons inside the same MLPs, features of untrained dictionaries, each
ranked by what the move adds to the second capital over the first by the replacement graph of the
first prompt; and random features among those that differ. Results go to `results/`.
"""

import argparse
import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from circuits.graph import rounded, write_json
from hooked_qwen.hooks import Activation, capture, intervene
from hooked_qwen.load import load
from hooked_qwen.sites import Site
from saes.evaluation.baselines import neurons, neurons_inside_mlps, untrained
from saes.evaluation.bootstrap import interval, resamples
from saes.suite import Suite, load_suite
from transcoders.in_suite import transcoders_among
from transcoders.replacement import replace_mlps

RESULTS = Path(__file__).parent / "results"
CAPITALS = {
    "Berlin": "Munich, Hamburg",
    "Paris": "Lyon, Marseille",
    "Rome": "Milan, Naples, Turin, Venice",
    "Madrid": "Barcelona, Seville, Valencia",
    "Tokyo": "Osaka, Kyoto, Nagoya",
    "London": "Manchester, Liverpool, Birmingham",
    "Beijing": "Shanghai, Shenzhen, Guangzhou",
    "New Delhi": "Mumbai, Kolkata, Chennai, Bangalore",
    "Seoul": "Busan",
    "Lisbon": "Porto",
    "Warsaw": "Krakow, Gdansk",
    "Vienna": "Salzburg, Graz",
    "Ottawa": "Toronto, Vancouver, Montreal",
    "Canberra": "Sydney, Melbourne",
    "Ankara": "Istanbul, Izmir",
    "Cairo": "Alexandria",
    "Rabat": "Casablanca",
    "Islamabad": "Lahore, Karachi",
    "Bern": "Zurich, Geneva",
    "Brussels": "Antwerp, Bruges",
    "Amsterdam": "Rotterdam",
    "Stockholm": "Gothenburg",
    "Oslo": "Bergen",
    "Copenhagen": "Aarhus",
    "Athens": "Thessaloniki",
    "Mexico City": "Guadalajara",
    "Bogotá": "Medellin",
    "Buenos Aires": "Rosario",
    "Abuja": "Lagos",
    "Nairobi": "Mombasa",
}
WORDINGS = (
    "The capital of the country where {} is located is",
    "Fact: the capital of the country containing {} is",
    "Q: What is the capital of the country where {} is located?\nA: The capital is",
)
COUNTS = (10, 50, 200, 1000)
PAIRS = 12
KINDS = ("features", "random features", "neurons", "untrained dictionaries", "MLPs' whole outputs")


@dataclass(frozen=True)
class Fact:
    """One prompt and what the model says."""

    city: str
    capital: str
    tokens: Int[Tensor, " pos"]
    at: int
    "the last token of the city"
    answer: int
    logits: Float[Tensor, " vocab"]

    @property
    def is_answered(self) -> bool:
        return int(self.logits.argmax()) == self.answer

    def prefers(self, other: "Fact", logits: Float[Tensor, "*rows vocab"]) -> Tensor:
        """The logit of its own capital less that of another's."""
        return logits[..., self.answer] - logits[..., other.answer]


def main() -> None:
    """Ask, exchange, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--dictionaries", required=True)
    parser.add_argument("--name", default="real", help="of the results")
    parser.add_argument("--pairs", type=int, default=PAIRS)
    chosen = parser.parse_args()
    model = load(chosen.model)
    suite = load_suite(chosen.dictionaries, mlp="transcoder").fitting(model)
    names = transcoders_among(suite)
    suite = suite.exchanging([name for name in suite if name not in names], {})
    asked = {wording: [ask(model, wording, *fact) for fact in _facts()] for wording in WORDINGS}
    answered = {wording: [f for f in facts if f.is_answered] for wording, facts in asked.items()}
    facts = max(answered.values(), key=len)
    pairs = [(a, b) for a in facts for b in facts if a.answer != b.answer]
    random.Random(0).shuffle(pairs)
    found = []
    for pair in pairs[: chosen.pairs]:
        found.append(of_pair(model, suite, *pair))
        print(pair[0].city, pair[1].city, flush=True)
    record = {
        "asked": len(_facts()),
        "answered": {wording: [f.city for f in some] for wording, some in answered.items()},
        "layers": sorted({site.layer for site in suite.writes}),
        "pairs": [[a.city, b.city] for a, b in pairs[: chosen.pairs]],
        "exchanged": _summed(found),
    }
    RESULTS.mkdir(exist_ok=True)
    write_json(record, RESULTS / f"{chosen.name}.json")
    print(table(record))


def _facts() -> list[tuple[str, str]]:
    return [(city, capital) for capital, them in CAPITALS.items() for city in them.split(", ")]


@torch.no_grad()
def ask(model: TransformerBridge, wording: str, city: str, capital: str) -> Fact:
    """Ask for the capital of the country that a city is in."""
    before = wording.partition("{}")[0] + city
    tokens = torch.tensor(model.tokenizer(wording.format(city))["input_ids"])
    at = len(model.tokenizer(before)["input_ids"]) - 1
    answer = model.tokenizer(f" {capital}")["input_ids"][0]
    return Fact(city, capital, tokens, at, answer, model(tokens[None])[0, -1])


def of_pair(model: TransformerBridge, suite: Suite, a: Fact, b: Fact) -> dict[str, Any]:
    """The difference between the two capitals after every exchange: share moved, and the answer."""
    replaced = replace_mlps(model, suite, a.tokens)
    W_U = model.unembed.W_U
    target = replaced.last_token((W_U[:, b.answer] - W_U[:, a.answer])[None])
    gradient = {site: g[a.at] for site, g in replaced.totals(target).gradient.items()}
    bases = {
        "features": suite,
        "neurons": neurons_inside_mlps(model, suite),
        "untrained dictionaries": untrained(suite),
        "MLPs' whole outputs": neurons(suite),
    }
    found: dict[str, Any] = {}
    for name, basis in bases.items():
        ends = [at_city(model, basis, fact) for fact in (a, b)]
        adds = {n: (ends[1][n] - ends[0][n]) * _along(model, basis, n, gradient) for n in basis}
        order = torch.cat(list(adds.values())).argsort(descending=True)
        if name == "MLPs' whole outputs":
            found[name] = _outcome(a, b, exchanged(model, basis, a, ends[1], [order]))
            continue
        rows = [order[:count] for count in COUNTS]
        found[name] = _outcome(a, b, exchanged(model, basis, a, ends[1], rows))
        if name == "features":
            differ = torch.cat(list(adds.values())).nonzero().squeeze(1)
            drawn = differ[torch.randperm(len(differ), generator=torch.Generator().manual_seed(0))]
            found["random features"] = _outcome(
                a, b, exchanged(model, basis, a, ends[1], [drawn[:count] for count in COUNTS])
            )
            found["features that differ"] = len(differ)
    return found


@torch.no_grad()
def at_city(
    model: TransformerBridge, basis: Suite, fact: Fact
) -> dict[str, Float[Tensor, " nodes"]]:
    """What every node is at the city."""
    with capture(model, {basis[name].source for name in basis}) as seen:
        model(fact.tokens[None])
    return {n: basis[n].encode(seen[basis[n].source][0, fact.at]).dense() for n in basis}


def _along(
    model: TransformerBridge, basis: Suite, name: str, gradient: Mapping[Site, Tensor]
) -> Float[Tensor, " nodes"]:
    """What one unit of each node adds to what the gradient is of."""
    dictionary = basis[name]
    g = gradient[Site("mlp_out", dictionary.target.layer)]
    if dictionary.target.kind == "mlp_hidden":
        g = model.blocks[dictionary.target.layer].mlp.out.weight.float().T @ g
    return dictionary.W_dec @ g


@torch.no_grad()
def exchanged(
    model: TransformerBridge,
    basis: Suite,
    fact: Fact,
    to: Mapping[str, Float[Tensor, " nodes"]],
    rows: Sequence[Int[Tensor, " some"]],
) -> Float[Tensor, "rows vocab"]:
    """The last logits with some nodes at the city set to other values, a row for each set."""
    sizes = [len(values) for values in to.values()]
    chosen = torch.zeros(len(rows), sum(sizes), dtype=torch.bool)
    for row, nodes in enumerate(rows):
        chosen[row, nodes] = True
    of = dict(zip(to, chosen.split(sizes, 1), strict=True))
    targets = {basis[name].target: name for name in basis}
    elsewhere = {basis[name].source for name in basis} - set(targets)
    with ExitStack() as stack:
        seen = stack.enter_context(capture(model, elsewhere)) if elsewhere else {}
        edits = {
            site: _exchange(basis, name, fact.at, of[name], to[name], seen)
            for site, name in targets.items()
        }
        stack.enter_context(intervene(model, edits))
        return model(fact.tokens.expand(len(rows), -1))[:, -1]


def _exchange(
    basis: Suite,
    name: str,
    at: int,
    of: Tensor,
    to: Float[Tensor, " nodes"],
    seen: Mapping[Site, Activation],
) -> Callable[[Activation], Activation]:
    """The edit of one site."""
    dictionary = basis[name]

    def edit(value: Activation) -> Activation:
        f = dictionary.encode(seen.get(dictionary.source, value)[:, at]).dense()
        found = value.clone()
        found[:, at] += torch.where(of, to - f, 0) @ dictionary.W_dec
        return found

    return edit


def _outcome(a: Fact, b: Fact, logits: Float[Tensor, "rows vocab"]) -> dict[str, list[float]]:
    """Of each row: the share of the way from one prompt to the other, and if it answers so."""
    clean, patched = a.prefers(b, a.logits), a.prefers(b, b.logits)
    moved = (clean - a.prefers(b, logits)) / (clean - patched)
    return {"moved": moved.tolist(), "other": (logits.argmax(-1) == b.answer).float().tolist()}


def _summed(found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Means over pairs with the ends of their 95 % intervals."""
    record: dict[str, Any] = {}
    for kind in KINDS:
        record[kind] = {
            measure: [
                _mean(values) for values in zip(*(f[kind][measure] for f in found), strict=True)
            ]
            for measure in ("moved", "other")
        }
    return record


def _mean(values: Sequence[float]) -> list[float | None]:
    by_pair = torch.tensor(values, dtype=torch.float64)
    low, high = interval(resamples(len(by_pair)) @ by_pair) or (None, None)
    return [rounded(float(by_pair.mean())), rounded(low), rounded(high)]


def table(record: Mapping[str, Any]) -> str:
    """Share of the way moved and, after it, of answers that are the other capital, in percent."""
    lines = [f"| exchanged | {' | '.join(map(str, COUNTS))} |", "|---|" + "---|" * len(COUNTS)]
    for kind, found in record["exchanged"].items():
        both = zip(found["moved"], found["other"], strict=True)
        cells = [f"{_percent(moved)}; {_percent(other)}" for moved, other in both]
        lines.append(f"| {kind} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _percent(mean: Sequence[float]) -> str:
    value, low, high = (100 * part for part in mean)
    return f"{value:.0f} ({low:.0f} to {high:.0f})"


if __name__ == "__main__":
    main()
