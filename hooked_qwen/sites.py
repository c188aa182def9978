"""Names for the places in a model where a tensor flows.

    resid_pre.L -> attn_out.L -> resid_mid.L -> mlp_in.L -> mlp_hidden.L -> mlp_out.L
        -> resid_post.L

`mlp_in` is what the MLP reads (after the norm, gain included); `attn_out` is the output of
whatever mixes tokens in that layer, softmax attention or a gated delta net; `mlp_hidden` are the
MLP's neurons, what its last matrix reads. `embed` comes first. Every tensor is
`[batch, pos, d_model]`, that of `mlp_hidden` `[batch, pos, d_mlp]`.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, total_ordering
from itertools import groupby

KINDS = (
    "embed",
    "resid_pre",
    "attn_out",
    "resid_mid",
    "mlp_in",
    "mlp_hidden",
    "mlp_out",
    "resid_post",
)
READ_ONLY = ("resid_mid",)


@total_ordering
@dataclass(frozen=True)
class Site:
    """A place in the model, such as `Site("mlp_out", 3)`; sites sort in the order of the forward.

    Raises `ValueError` for a kind outside `KINDS` or a layer that does not fit the kind.
    """

    kind: str
    layer: int = -1
    "Counted from 0; -1 for `embed`, which belongs to no layer."

    def __post_init__(self) -> None:
        if self.kind not in KINDS or (self.kind == "embed") != (self.layer < 0):
            raise _unknown(f"{self.kind}.{self.layer}")

    def __str__(self) -> str:
        return self.kind if self.kind == "embed" else f"{self.kind}.{self.layer}"

    def __lt__(self, other: "Site") -> bool:
        return self.depth < other.depth

    @cached_property
    def depth(self) -> tuple[int, int]:
        """Where the site comes in the forward pass: layer, then place within the layer."""
        return self.layer, KINDS.index(self.kind)

    @classmethod
    def parse(cls, text: str) -> "Site":
        """The site written as `text`; raises `ValueError` listing the kinds."""
        kind, dot, layer = text.partition(".")
        if (dot and not layer.isdecimal()) or (not dot and kind != "embed"):
            raise _unknown(text)
        return cls(kind, int(layer) if dot else -1)


@dataclass(frozen=True, kw_only=True)
class Ends:
    """The sites that a dictionary reads and writes, one of each or several."""

    source: Site
    target: Site
    also_reads: tuple[Site, ...] = ()
    "further sites that it reads, as a crosscoder does"
    also_writes: tuple[Site, ...] = ()
    "further sites that it writes, as cross-layer transcoders and crosscoders do"
    called: str = ""
    "its name in graphs, such as 'clt.3', where it is not the one site that it writes"

    @property
    def reads(self) -> tuple[Site, ...]:
        """The sites that its features are read from."""
        return (self.source, *self.also_reads)

    @property
    def writes(self) -> tuple[Site, ...]:
        """The sites that its features write to."""
        return (self.target, *self.also_writes)

    @property
    def node_name(self) -> str:
        """What its features are called in graphs: the site that it writes, or its own name."""
        return self.called or str(self.target)

    @property
    def both_ends(self) -> str:
        """Its own name, else the site that it writes, after the one that it reads if another."""
        if self.called or self.source == self.target:
            return self.node_name
        return f"{self.source}-{self.target}"


def forward_order(name: str) -> tuple[int, int, str]:
    """Sorts what nodes are at in the order of the forward pass: sites, then other dictionaries."""
    try:
        return (*Site.parse(name).depth, name)
    except ValueError:
        return (sys.maxsize, 0, name)


def _unknown(text: str) -> ValueError:
    return ValueError(
        f"no site is called {text!r}: write KIND.LAYER, such as 'mlp_out.12', "
        f"where KIND is one of {', '.join(KINDS[1:])}, or 'embed'"
    )


def parse_layers(text: str, n_layers: int) -> list[int]:
    """Layers written as 'all' or '0-3,7'; raises `ValueError` on anything else or out of range."""
    if text == "all":
        return list(range(n_layers))
    layers: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise ValueError(f"cannot read the layers {text!r}: write 'all' or such as '0-3,7'")
        span = range(int(first), int(last if dash else first) + 1)
        if not span:
            raise ValueError(
                f"the layers {part.strip()!r} run backwards: write the lower one first"
            )
        layers.update(span)
    if not layers or max(layers) >= n_layers:
        raise ValueError(f"the model has layers 0 to {n_layers - 1}, but {text!r} was asked for")
    return sorted(layers)


def spans(layers: Sequence[int]) -> str:
    """Layers in their order as `parse_layers` reads them: 0-3,7; nothing for `embed`."""
    runs = [
        [layer for _, layer in run] for _, run in groupby(enumerate(layers), lambda p: p[1] - p[0])
    ]
    texts = [str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs]
    return ",".join(texts) if layers[0] >= 0 else ""
