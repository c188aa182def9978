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

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from circuits.graph import Node
from circuits.metrics.metric import NAMES, LogitMetric
from hooked_qwen.files import write_atomically
from hooked_qwen.sites import Site
from hooked_qwen.tensor_files import aligned, read_array, read_tensors

FEATURE, READOUT, PYTHON = "feature:", "readout:", "python:"
MEAN: Literal["mean"] = "mean"
DIRECTION_FILE = "metric.safetensors"
"What a run folder keeps of a readout."


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
