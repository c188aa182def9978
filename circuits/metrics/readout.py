"""Metrics that read a site instead of the logits: a feature's activation, a linear probe.

    feature:SITE/INDEX[@POSITION]        the activation of a feature of the suite
    readout:SITE[@POSITION]:FILE         x . direction + bias, x the tensor that leaves SITE
    readout:SITE@mean:FILE               the same, x its mean over the prompt's tokens

Without a position they are read at the last token. A position is written as those of nodes are: it
counts tokens from the start of a prompt or, where last tokens are lined up, columns of the longest.
Norm outliers of the plain run (mostly the first token) do not count in the mean: with hundreds of
times the usual norm they would be all of it.

A feature is read from what arrives at its dictionary, so nodes of its own site have no effect on
it. A readout is taken of what leaves the site: where that has a dictionary, its nodes write what
is read.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import one_hot
from transformer_lens.model_bridge import TransformerBridge

from circuits.graph import Node
from circuits.metrics.metric import NAMES, LogitMetric, SiteMetric, reaching
from circuits.prompts import EncodedPrompts, Positions
from hooked_qwen.files import write_atomically
from hooked_qwen.forward import run_through
from hooked_qwen.hooks import capture
from hooked_qwen.sites import Site
from hooked_qwen.stream import mean_weights
from hooked_qwen.tensor_files import aligned, read_array, read_tensors
from hooked_qwen.tokens import Batch
from saes.suite import Suite

FEATURE, READOUT, PYTHON = "feature:", "readout:", "python:"
MEAN: Literal["mean"] = "mean"
DIRECTION_FILE = "metric.safetensors"
"What a run folder keeps of a readout."
BATCH = 32
ReadoutValue = Callable[[Float[Tensor, "batch d_site"]], Float[Tensor, " batch"]]


@dataclass(frozen=True, kw_only=True, eq=False)
class Readout:
    """The metric x . direction + bias, x the tensor at `site` at one position or their mean."""

    site: Site
    direction: Float[Tensor, " d_site"]
    bias: float = 0.0
    position: int | Literal["mean"] | None = None
    "None: the last token"

    @property
    def name(self) -> str:
        """Such as 'readout:resid_post.3@4:1f0c9a2b', the end a hash of direction and bias."""
        at = "" if self.position is None else f"@{self.position}"
        weights = torch.tensor([*self.direction.tolist(), self.bias], dtype=torch.float64)
        return f"{READOUT}{self.site}{at}:{sha256(weights.numpy().tobytes()).hexdigest()[:8]}"

    def save(self, folder: Path) -> None:
        """Keep direction and bias in a run folder."""
        tensors = {
            "direction": self.direction.detach().cpu().contiguous(),
            "bias": torch.tensor([self.bias], dtype=torch.float64),
        }
        write_atomically(folder / DIRECTION_FILE, lambda partial: save_file(tensors, partial))


MetricChoice = str | Readout | LogitMetric
"A metric's name, a readout, or a function of logits and prompt numbers."


def metric_name(chosen: MetricChoice) -> str:
    """What files call it; a function goes by its name behind 'python:'."""
    if isinstance(chosen, str):
        return chosen
    if isinstance(chosen, Readout):
        return chosen.name
    return PYTHON + getattr(chosen, "__qualname__", type(chosen).__qualname__)


def short_name(chosen: MetricChoice) -> str:
    """What pictures call it: a readout without its hash, a function or feature by its own name."""
    if isinstance(chosen, Readout):
        return chosen.name.rpartition(":")[0]
    return metric_name(chosen).removeprefix(PYTHON).removeprefix(FEATURE)


def check_metric(chosen: MetricChoice) -> None:
    """Raise `ValueError` for a text that names no metric."""
    if not isinstance(chosen, str) or chosen in NAMES or chosen.startswith(PYTHON):
        return
    if not chosen.startswith(FEATURE):
        raise ValueError(
            f"no metric is called {chosen!r}: expected {', '.join(NAMES)}, "
            "'feature:SITE/INDEX[@POSITION]' or 'readout:SITE[@POSITION]:FILE'"
        )
    feature_of(chosen)


def read_metric(text: str) -> str | Readout:
    """The metric that a command names; a readout's direction is read from its file."""
    found = read_readout(text) if text.startswith(READOUT) else text
    if text.startswith(PYTHON):
        raise ValueError(f"the metric {text!r} is a Python function: discover with it from Python")
    check_metric(found)
    return found


def feature_of(text: str) -> Node:
    """The feature that 'feature:SITE/INDEX[@POSITION]' names."""
    node = Node.parse(text.removeprefix(FEATURE))
    if node.kind != "feature":
        raise ValueError(
            f"the metric {text!r} names no feature: write such as 'feature:resid_post.3/17@4'"
        )
    return node


def read_readout(text: str) -> Readout:
    """The readout written as 'readout:SITE[@POSITION]:FILE'; raises `ValueError` if it is none."""
    where, colon, file = text.removeprefix(READOUT).partition(":")
    name, at, position = where.partition("@")
    if not colon or not file or (at and position != MEAN and not position.isdecimal()):
        raise ValueError(
            f"cannot read the metric {text!r}: write 'readout:SITE:FILE' or "
            "'readout:SITE@POSITION:FILE', such as 'readout:resid_post.3@4:probe.npy', or "
            "'readout:SITE@mean:FILE'"
        )
    direction, bias = _weights(Path(file))
    at_token = None if not at else MEAN if position == MEAN else int(position)
    return Readout(site=Site.parse(name), direction=direction, bias=bias, position=at_token)


def keep_readout(chosen: MetricChoice, folder: Path) -> None:
    """Keep a readout's direction in a run folder, where no other metric leaves one."""
    if isinstance(chosen, Readout):
        chosen.save(folder)
    else:
        (folder / DIRECTION_FILE).unlink(missing_ok=True)


def kept_readout(name: str, folder: Path) -> Readout:
    """The readout that a run folder keeps under `name`."""
    where = name.rpartition(":")[0]
    found = read_readout(f"{where}:{folder / DIRECTION_FILE}")
    if found.name != name:
        raise ValueError(
            f"{folder / DIRECTION_FILE} is not the direction that {folder} was made with: "
            "run `circuits discover` again"
        )
    return found


def _weights(file: Path) -> tuple[Float[Tensor, " d_site"], float]:
    """Direction and bias in a `.npy` or `.safetensors` file."""
    if not file.is_file():
        raise ValueError(f"there is no direction at {file}")
    try:
        if file.suffix == ".npy":
            tensors = {"direction": read_array(file)}
        elif file.suffix == ".safetensors":
            tensors = read_tensors(file)
        else:
            raise ValueError(f"cannot read a direction from {file}: expected .npy or .safetensors")
    except (SafetensorError, EOFError, TypeError) as error:
        raise ValueError(f"cannot read a direction from {file}: {error}") from None
    bias = tensors.pop("bias", torch.zeros(1))
    direction = next(iter(tensors.values())) if len(tensors) == 1 else tensors.get("direction")
    if direction is None or bias.numel() != 1:
        raise ValueError(
            f"{file} holds {', '.join(sorted(tensors)) or 'nothing'}: expected one tensor, or "
            "'direction', and with it at most a 'bias' of one number"
        )
    direction = direction.squeeze()
    if direction.dim() != 1 or not direction.is_floating_point():
        raise ValueError(
            f"the direction in {file} is of {direction.dtype} and shape {tuple(direction.shape)}: "
            "expected one row of floating-point numbers"
        )
    return aligned(direction), float(bias)


def bind_feature(
    text: str,
    model: TransformerBridge,
    suite: Suite,
    prompts: EncodedPrompts,
    positions: Positions,
) -> SiteMetric:
    """The activation of the feature that `text` names, on these prompts."""
    node = feature_of(text)
    if node.site not in suite:
        raise ValueError(
            f"the metric {text!r} is at no dictionary's site: the sites are "
            f"{', '.join(map(str, suite))}"
        )
    dictionary, index = suite[node.site], int(node.feature)
    if len(dictionary.reads) > 1:
        raise ValueError(
            f"{node.site} reads {', '.join(map(str, dictionary.reads))}: the activation of a "
            "feature is a metric where its dictionary reads one site"
        )
    if not 0 <= index < dictionary.n_features:
        raise ValueError(
            f"{node.site} has features 0 to {dictionary.n_features - 1}, so there is no {text!r}"
        )

    def value(x: Float[Tensor, "batch d_site"]) -> Float[Tensor, " batch"]:
        chosen = torch.tensor([index], device=x.device)
        on = dictionary.encode(x.detach()).of(chosen)[..., 0] != 0
        return (x @ dictionary.W_enc[index] + dictionary.b_enc[index]) * on

    at = _one_column(prompts, node.position, positions)
    return _bound(model, suite, prompts, dictionary.source, "arriving", at, value)


def bind_readout(
    readout: Readout,
    model: TransformerBridge,
    suite: Suite,
    prompts: EncodedPrompts,
    positions: Positions,
) -> SiteMetric:
    """The readout on these prompts."""

    def value(x: Float[Tensor, "batch d_site"]) -> Float[Tensor, " batch"]:
        if x.shape[-1] != len(readout.direction):
            raise ValueError(
                f"the direction has {len(readout.direction)} numbers, but {readout.site} has "
                f"width {x.shape[-1]}"
            )
        return x @ readout.direction.to(x) + readout.bias

    if readout.position == MEAN:
        mask = prompts.clean.mask
        at = _of_each(
            model,
            readout.site,
            prompts.clean,
            lambda x, rows: _wide(mean_weights(x, mask[rows, -x.shape[1] :].to(x.device)), mask),
        )
    else:
        at = _one_column(prompts, readout.position, positions)
    return _bound(model, suite, prompts, readout.site, "leaving", at, value)


def _one_column(
    prompts: EncodedPrompts, position: int | None, positions: Positions
) -> Float[Tensor, "prompts pos"]:
    """One at the column that is read, for each prompt."""
    mask = prompts.clean.mask
    width, padding = mask.shape[1], (~mask).sum(-1)
    if position is None:
        return one_hot(torch.full_like(padding, width - 1), width).float()
    column = torch.full_like(padding, position)
    if positions != "end":
        column = column + padding
    outside = (column < padding) | (column >= width)
    if outside.any():
        short = int(outside.int().argmax())
        raise ValueError(
            f"the metric reads position {position}, which prompt {short + 1} does not have: it "
            f"has positions {int(padding[short]) if positions == 'end' else 0} to "
            f"{width - 1 if positions == 'end' else int(mask[short].sum()) - 1}"
        )
    return one_hot(column, width).float()


def _bound(
    model: TransformerBridge,
    suite: Suite,
    prompts: EncodedPrompts,
    site: Site,
    when: Literal["arriving", "leaving"],
    weights: Float[Tensor, "prompts pos"],
    value: ReadoutValue,
) -> SiteMetric:
    """The metric with its values on both halves of the prompt set."""
    nothing = torch.zeros(len(weights))
    bare = SiteMetric(site=site, when=when, weights=weights, value=value, clean=nothing, patch=None)
    return with_values(bare, model, suite, prompts)


def with_values(
    bare: SiteMetric, model: TransformerBridge, suite: Suite, prompts: EncodedPrompts
) -> SiteMetric:
    """A metric with its values on both halves of a prompt set.

    Raises `ValueError` where no dictionary comes before it.
    """
    site = bare.site
    if not reaching(bare, suite.writes):
        raise ValueError(
            f"the metric reads {site}, and no dictionary lies before it: there is no circuit of it"
        )
    clean = _of_each(model, site, prompts.clean, bare.read)
    patch = None
    if prompts.patch is not None:
        patch = _of_each(model, site, prompts.patch, bare.read)
    return replace(bare, clean=clean, patch=patch)


@torch.no_grad()
def _of_each(
    model: TransformerBridge,
    site: Site,
    batch: Batch,
    of: Callable[[Tensor, Int[Tensor, " rows"]], Tensor],
) -> Float[Tensor, "prompts *any"]:
    """What `of` gives for the tensor at a site and the numbers of its rows, for every row.

    Rows of like length run together, without the columns that are padding of all of them.
    """
    order = batch.mask.sum(1).argsort(stable=True)
    parts = []
    for rows in order.split(BATCH):
        with capture(model, {site}) as seen:
            run_through(model, batch.rows(rows).trimmed(), max(0, site.layer))
        parts.append(of(seen[site], rows))
    found = torch.cat(parts)
    return found[order.argsort().to(found.device)]


def _wide(
    weights: Float[Tensor, "batch some"], mask: Bool[Tensor, "prompts pos"]
) -> Float[Tensor, "batch pos"]:
    """As many columns as all prompts have, nothing in those on the left."""
    return torch.nn.functional.pad(weights, (mask.shape[1] - weights.shape[1], 0))
