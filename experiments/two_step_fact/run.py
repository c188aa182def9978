"""Town -> region -> capital in the bundled model: exchange the region in between, see what follows.

    python -m experiments.two_step_fact.run --work DIR

Transcoders and skip transcoders of 2,048 features (k 16) are trained in DIR (five minutes each),
unless they are there; beside them stand those that ship. Nodes are those at the town and the token
after it. They are *ranked* by the replacement graph of the taught towns' prompts: what the node at
its mean over the region's taught towns, less its mean over all towns, adds to the region's capital
by all paths. *Exchanged*, the nodes of the prompt's own region go to their mean over all towns,
those of another region to their mean over its taught towns, and the model runs on as it does.
Means are of sentences that ask for no capital; what is asked is asked of towns whose capital no
training text says. Neurons inside the MLPs are ranked by the same graph. Results go to `results/`.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from circuits.cli.progress_bars import bars
from circuits.graph import rounded, write_json
from hooked_qwen.bundled.atlas import REGIONS
from hooked_qwen.bundled.recall_sentences import CHAINS, TOWNS_UNCOMPOSED
from hooked_qwen.hooks import Activation, capture, intervene
from hooked_qwen.load import BUNDLED, load
from hooked_qwen.sites import Site
from hooked_qwen.stream import StreamConfig
from hooked_qwen.texts import texts_of
from saes.dictionary import SparseDictionary
from saes.evaluation.baselines import neurons, neurons_inside_mlps, untrained
from saes.evaluation.bootstrap import interval, resamples
from saes.suite import Suite, load_suite
from saes.training.config import TrainConfig
from saes.training.train import train
from transcoders.in_suite import transcoders_among
from transcoders.replacement import replace_mlps
from transcoders.transcoder import transcoder

RESULTS = Path(__file__).parent / "results"
K, TRAINING = 16, TrainConfig(width=2048, tokens=800_000, learning_rate=2e-3, precision="bfloat16")
STREAM = StreamConfig(reuse=2)
MEANS_IN = (
    "The town of {} lies in",
    "The region where {} lies is",
    "The people of {} live under the",
)
"Sentences that ask for no capital, of which the means are."
ASKED = {
    "capital": (CHAINS["capital"], "capital"),
    "capital, in other words": (CHAINS["roads"], "capital"),
    "region": ("The region where {} lies is", "name"),
    "flag": ("The people of {} live under the", "colour"),
}
"What is asked, and what the answer is called in the atlas."
TAUGHT = slice(0, -TOWNS_UNCOMPOSED)
UNTAUGHT = slice(-TOWNS_UNCOMPOSED, None)
COUNTS = (5, 20, 50, 100)
TOKENS = 2
"Tokens at which nodes are: the town and the next."
APART = (1, 4, 7, 10, 13, 16, 19, 22)
"Each town's region is exchanged for those that stand so many further on in the atlas."


def main() -> None:
    """Train what is not there, exchange, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    work = parser.parse_args().work
    model = load(BUNDLED)
    suites = {
        "transcoders, k 16": load_suite(_trained(model, work, skip=False), mlp="transcoder"),
        "skip transcoders, k 16": load_suite(_trained(model, work, skip=True), mlp="transcoder"),
        "those that ship, k 3": load_suite(BUNDLED, mlp="transcoder"),
    }
    record = {name: of_suite(model, suite.fitting(model)) for name, suite in suites.items()}
    RESULTS.mkdir(exist_ok=True)
    write_json(record, RESULTS / "bundled.json")
    print(*(f"{name}\n{table(one)}" for name, one in record.items()), sep="\n\n")


def _trained(model: TransformerBridge, work: Path, *, skip: bool) -> Path:
    out = work / ("skip" if skip else "plain")
    if not (out / "suite.json").exists():
        specs = [transcoder(layer, k=K, skip=skip) for layer in range(model.cfg.n_layers)]
        with bars() as report:
            texts = texts_of([BUNDLED])
            train(model, specs, texts, out, config=TRAINING, stream=STREAM, report=report)
    return out


@dataclass(frozen=True)
class Asked:
    """One sentence said of some towns of every region, and what was recorded of it."""

    model: TransformerBridge
    text: str
    towns: slice

    @cached_property
    def tokens(self) -> Int[Tensor, "towns pos"]:
        names = [town.name for region in REGIONS for town in region.towns[self.towns]]
        tokens = [self.model.tokenizer(self.text.format(n))["input_ids"] for n in names]
        return torch.tensor(tokens)

    @property
    def region(self) -> Int[Tensor, " towns"]:
        return torch.arange(len(REGIONS)).repeat_interleave(len(self.tokens) // len(REGIONS))

    @property
    def others(self) -> Int[Tensor, "towns others"]:
        """The regions that each town's is exchanged for."""
        return (self.region[:, None] + torch.tensor(APART)) % len(REGIONS)

    @property
    def at(self) -> slice:
        """The tokens at which nodes are."""
        first = self.text.split().index("{}")
        return slice(first, first + TOKENS)

    @cached_property
    def run(self) -> tuple[dict[Site, Tensor], Float[Tensor, "towns vocab"]]:
        """What arrives at the MLPs and leaves them, and the last logits."""
        layers = range(self.model.cfg.n_layers)
        sites = [Site(k, n) for n in layers for k in ("mlp_in", "mlp_hidden", "mlp_out")]
        with torch.no_grad(), capture(self.model, sites) as seen:
            logits = self.model(self.tokens)[:, -1]
        return dict(seen), logits

    def nodes(self, dictionary: SparseDictionary) -> Float[Tensor, "towns nodes"]:
        """What each node of a dictionary is: its features at one token, then at the next."""
        return dictionary.encode(self.run[0][dictionary.source][:, self.at]).dense().flatten(1)


@dataclass(frozen=True)
class RegionMeans:
    """Of the nodes of one dictionary."""

    of_region: Float[Tensor, "regions nodes"]
    overall: Float[Tensor, " nodes"]
    on: Bool[Tensor, "regions nodes"]
    "whether the node is on at any of the region's taught towns"
    selective: Bool[Tensor, "regions nodes"]
    "on for at least half of the region's towns, and these at least half of all it is on for"


def means_of(said: Sequence[Asked], dictionary: SparseDictionary) -> RegionMeans:
    """Over the towns of some sentences."""
    found = torch.stack([asked.nodes(dictionary) for asked in said])
    by_town = found.unflatten(1, (len(REGIONS), -1))
    on = by_town.ne(0).float().mean(0)
    of_all = on.sum(1) / on.sum((0, 1)).clamp(min=1e-9)
    return RegionMeans(
        by_town.mean((0, 2)),
        by_town.mean((0, 1, 2)),
        on.amax(1) > 0,
        (on.mean(1) >= 0.5) & (of_all >= 0.5),
    )


def gradients(model: TransformerBridge, suite: Suite) -> Float[Tensor, "regions layers tokens d"]:
    """What a write of each MLP, at the town and the next token, adds to the region's capital.

    By all paths of the replacement graph; mean over the prompts of the region's taught towns. The
    capital counts as its logit less the mean of all capitals.
    """
    asked, right = Asked(model, CHAINS["capital"], TAUGHT), _answers(model, "capital")
    W_U = model.unembed.W_U.T[right]
    found = []
    for tokens, region in zip(asked.tokens, asked.region, strict=True):
        replaced = replace_mlps(model, suite, tokens)
        target = replaced.last_token((W_U[region] - W_U.mean(0))[None])
        slopes = replaced.totals(target).gradient
        layers = range(model.cfg.n_layers)
        found.append(torch.stack([slopes[Site("mlp_out", n)][asked.at] for n in layers]))
    return torch.stack(found).unflatten(0, (len(REGIONS), -1)).mean(1)


@dataclass(frozen=True)
class ExchangedNodes:
    """The nodes of a suite that are exchanged: some of each region."""

    suite: Suite
    means: Mapping[str, RegionMeans]
    of: Mapping[str, Bool[Tensor, "regions nodes"]]


@dataclass(frozen=True)
class RankedNodes:
    """A suite's nodes with what each adds to its region's capital, by the graph."""

    suite: Suite
    means: Mapping[str, RegionMeans]
    adds: Float[Tensor, "regions nodes"]
    "of all dictionaries, one after another"

    @classmethod
    def of(cls, said: Sequence[Asked], suite: Suite, gradient: Tensor) -> "RankedNodes":
        means = {name: means_of(said, suite[name]) for name in suite}
        adds = []
        for name in suite:
            layer = suite[name].target.layer
            g, W = gradient[:, layer], _writes(said[0].model, suite[name])
            moved = means[name].of_region - means[name].overall
            adds.append(moved * (g @ W.T).flatten(1))
        return cls(suite, means, torch.cat(adds, 1))

    def strongest(self, count: int) -> ExchangedNodes:
        """The `count` nodes of each region that add most."""
        return self._chosen(self.adds.topk(count).indices)

    def drawn(self, count: int, seed: int) -> ExchangedNodes:
        """As many nodes of each region, drawn among those that are on at its towns."""
        generator = torch.Generator().manual_seed(seed)
        on = torch.cat([means.on for means in self.means.values()], 1)
        order = torch.rand(on.shape, generator=generator).masked_fill(~on, -1)
        return self._chosen(order.topk(count).indices)

    def every(self) -> ExchangedNodes:
        return ExchangedNodes(
            self.suite, self.means, {n: torch.ones_like(m.on) for n, m in self.means.items()}
        )

    def _chosen(self, index: Int[Tensor, "regions count"]) -> ExchangedNodes:
        of = torch.zeros_like(self.adds, dtype=torch.bool).scatter_(1, index, True)
        widths = [means.on.shape[1] for means in self.means.values()]
        return ExchangedNodes(
            self.suite, self.means, dict(zip(self.means, of.split(widths, 1), strict=True))
        )


def _writes(model: TransformerBridge, dictionary: SparseDictionary) -> Float[Tensor, "features d"]:
    """What each feature writes at the MLP's output, a neuron by the MLP's last matrix."""
    if dictionary.target.kind == "mlp_hidden":
        return model.blocks[dictionary.target.layer].mlp.out.weight.T.float()
    return dictionary.W_dec


@torch.no_grad()
def exchanged(asked: Asked, nodes: ExchangedNodes) -> Float[Tensor, "towns others vocab"]:
    """The last logits with each town's region exchanged for each of the `others`."""
    n = len(APART)
    own, other = asked.region.repeat_interleave(n), asked.others.flatten()
    used = [name for name, of in nodes.of.items() if of.any()]
    sources = {nodes.suite[name].source for name in used}
    targets = {nodes.suite[name].target: name for name in used}
    with ExitStack() as stack:
        elsewhere = sources - set(targets)
        seen = stack.enter_context(capture(asked.model, elsewhere)) if elsewhere else {}
        edits = {
            site: _exchange(asked, nodes, name, own, other, seen) for site, name in targets.items()
        }
        stack.enter_context(intervene(asked.model, edits))
        logits = asked.model(asked.tokens.repeat_interleave(n, 0))[:, -1]
    return logits.unflatten(0, (-1, n))


def _exchange(
    asked: Asked,
    nodes: ExchangedNodes,
    name: str,
    own: Int[Tensor, " rows"],
    other: Int[Tensor, " rows"],
    seen: Mapping[Site, Activation],
) -> Callable[[Activation], Activation]:
    """The edit of one site: it moves by what the chosen nodes' move writes, all else stays."""
    dictionary, of = nodes.suite[name], nodes.of[name].unflatten(1, (TOKENS, -1))
    of_region = nodes.means[name].of_region.unflatten(1, (TOKENS, -1))
    overall = nodes.means[name].overall.unflatten(0, (TOKENS, -1))
    chosen = of.any(0).any(0).nonzero().squeeze(1)
    of, of_region, overall = of[..., chosen], of_region[..., chosen], overall[..., chosen]

    def edit(value: Activation) -> Activation:
        read = seen.get(dictionary.source, value)
        f = dictionary.encode(read[:, asked.at]).of(chosen)
        gone = torch.where(of[own], overall, f)
        move = torch.where(of[other], of_region[other], gone) - f
        found = value.clone()
        found[:, asked.at] += move @ dictionary.W_dec[chosen]
        return found

    return edit


def _answers(model: TransformerBridge, name: str) -> Int[Tensor, " regions"]:
    """The token that each region's answer is."""
    texts = [f" {getattr(region, name)}" for region in REGIONS]
    return torch.tensor([model.tokenizer(text)["input_ids"][0] for text in texts])


def of_suite(model: TransformerBridge, suite: Suite) -> dict[str, Any]:
    """Every exchange, of features and of every control."""
    names = transcoders_among(suite)
    suite = suite.exchanging([name for name in suite if name not in names], {})
    said, gradient = [Asked(model, text, TAUGHT) for text in MEANS_IN], gradients(model, suite)
    by_graph = RankedNodes.of(said, suite, gradient)
    inside = RankedNodes.of(said, neurons_inside_mlps(model, suite), gradient)
    random = RankedNodes.of(said, untrained(suite), gradient)
    chosen: dict[str, ExchangedNodes] = {}
    for count in COUNTS:
        chosen[f"features, {count}"] = by_graph.strongest(count)
        chosen[f"neurons, {count}"] = inside.strongest(count)
        chosen[f"untrained dictionaries, {count}"] = random.strongest(count)
        chosen[f"random features, {count}"] = by_graph.drawn(count, seed=0)
    chosen["every feature"] = by_graph.every()
    chosen["the MLPs' whole outputs"] = RankedNodes.of(said, neurons(suite), gradient).every()
    asked = {name: (Asked(model, text, UNTAUGHT), a) for name, (text, a) in ASKED.items()}
    selective = [means.selective.sum(1) for means in by_graph.means.values()]
    return {
        "answered": {n: _accuracy(one, answer) for n, (one, answer) in asked.items()},
        "features of one region": torch.stack(selective).sum(0).tolist(),
        "exchanged": {
            name: {n: outcome(one, answer, nodes) for n, (one, answer) in asked.items()}
            for name, nodes in chosen.items()
        },
    }


def _accuracy(asked: Asked, answer: str) -> float | None:
    right = _answers(asked.model, answer)[asked.region]
    return rounded(float((asked.run[1].argmax(-1) == right).float().mean()))


def outcome(asked: Asked, answer: str, nodes: ExchangedNodes) -> dict[str, Any]:
    """Where the answer goes: share of the regions that answer otherwise, mean over towns."""
    answers = _answers(asked.model, answer)
    own, other = answers[asked.region][:, None], answers[asked.others]
    top, differ = exchanged(asked, nodes).argmax(-1), other != own
    found = {"other": top == other, "own": top == own}
    return {name: _mean((hit & differ).sum(1) / differ.sum(1)) for name, hit in found.items()}


def _mean(by_town: Float[Tensor, " towns"]) -> list[float | None]:
    """The mean over towns and the ends of its 95 % interval, over towns drawn again."""
    low, high = interval(resamples(len(by_town)) @ by_town.double()) or (None, None)
    return [rounded(float(by_town.mean())), rounded(low), rounded(high)]


def table(record: dict[str, Any]) -> str:
    """Share of exchanges after which the answer is the other region's, as the README shows it."""
    names = list(record["answered"])
    lines = [f"| exchanged | {' | '.join(names)} |", "|---|" + "---|" * len(names)]
    for chosen, found in record["exchanged"].items():
        cells = [_percent(found[name]["other"]) for name in names]
        lines.append(f"| {chosen} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _percent(mean: list[float]) -> str:
    value, low, high = (100 * part for part in mean)
    return f"{value:.0f} ({low:.0f} to {high:.0f})"


if __name__ == "__main__":
    main()
