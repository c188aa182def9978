"""A model's residual stream as the linear map that it is at one prompt, its MLPs cut out.

Frozen are the denominators of all norms, the patterns of the token mixers and their gates; the
MLPs are gone. What is written to the stream at the embedding, by a mixer's biases or where an MLP
would write then reaches all that reads later by one linear map, taken in two directions:

    push    what writes at some sites add to all that is read later
    pull    from vectors that read at one site, what each unit of every earlier write adds

`pull` is the adjoint of `push`, written by hand: it starts at the layer that reads and, as nothing
looks ahead, at the token that reads. A linear skip connection beside the features of a transcoder
is part of the map.

What is linear for a mixture of experts: nothing of it is left here. The MLP of a layer, experts and
routing, is replaced by its transcoder, and what that misses is an error term, a constant.
For gated delta nets see `transcoders.frozen.delta_net`.

Axes: as in `transcoders.frozen.mixer`.
"""

from collections.abc import Generator, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformer_lens.model_bridge import TransformerBridge

from hooked_qwen.forward import LastLogits, last_logits
from hooked_qwen.hook_points import token_mixer
from hooked_qwen.hooks import capture
from hooked_qwen.placement import device_of
from hooked_qwen.precision import widened
from hooked_qwen.sites import Site
from hooked_qwen.tokens import Batch
from transcoders.frozen.attention import freeze_attention, known_attention, softmax_pattern
from transcoders.frozen.delta_net import freeze_delta_net
from transcoders.frozen.mixer import FrozenMixer
from transcoders.frozen.norm import FrozenNorm, freeze_norm
from transcoders.frozen.pattern import Pattern, PatternInMemory, Room

EMBED = Site("embed")


@dataclass(frozen=True)
class FrozenLayer:
    """One layer without its MLP."""

    mixer: FrozenMixer
    norm: FrozenNorm
    "what the MLP, and its transcoder, read through"
    skip: Float[Tensor, "d_model d_model"] | None = None
    "a linear map from `mlp_in` to `mlp_out`: y = x @ skip.T"

    def constant(self) -> Float[Tensor, "pos d_model"]:
        """What the mixer's biases add to the stream that leaves the layer."""
        return self.skipped(self.mixer.constant().unsqueeze(1)).squeeze(1)

    def skipped(self, x: Float[Tensor, "pos batch d_model"]) -> Float[Tensor, "pos batch d_model"]:
        """The stream after the skip connection, where `x` enters the MLP's norm."""
        if self.skip is None:
            return x
        return x + (x * self.norm.scale[:, None]) @ self.skip.T

    def skipped_adjoint(
        self, g: Float[Tensor, "upto batch d_model"]
    ) -> Float[Tensor, "upto batch d_model"]:
        """The gradient where the stream enters the MLP's norm, where `g` is that after the MLP."""
        if self.skip is None:
            return g
        return g + (g @ self.skip) * self.norm.scale[: len(g), None]


@dataclass(frozen=True)
class Pushed:
    """What some writes add to all that is read later."""

    mlp_in: tuple[Float[Tensor, "pos batch d_model"], ...]
    "by layer, what its MLP reads"
    resid_post: tuple[Float[Tensor, "pos batch d_model"], ...]
    "by layer, the stream that leaves it"
    last: Float[Tensor, "pos batch d_model"]
    "the last of them through the last norm, what the unembedding reads"


@dataclass(frozen=True)
class Recorded:
    """The tensors of a plain run that features and errors are read from."""

    embed: Float[Tensor, "pos d_model"]
    mlp_in: tuple[Float[Tensor, "pos d_model"], ...]
    mlp_out: tuple[Float[Tensor, "pos d_model"], ...]
    logits: Float[Tensor, " vocabulary"]
    "after the last token"


@dataclass(frozen=True)
class FrozenModel:
    """The stream's linear map at one prompt."""

    layers: tuple[FrozenLayer, ...]
    last_norm: FrozenNorm

    @property
    def n_tokens(self) -> int:
        return len(self.last_norm.per_rms)

    def push(self, writes: Mapping[Site, Float[Tensor, "pos batch d_model"]]) -> Pushed:
        """What `writes` at `embed`, `attn_out.L` or `mlp_out.L` add to all later reads.

        The biases of the mixers are writes too: see `constants`.
        """
        some = next(iter(writes.values()))
        x = writes.get(EMBED, torch.zeros_like(some))
        read, left = [], []
        for number, layer in enumerate(self.layers):
            x = x + layer.mixer.forward(x)
            if (written := writes.get(Site("attn_out", number))) is not None:
                x = x + written
            read.append(x * layer.norm.scale[:, None])
            x = layer.skipped(x)
            if (written := writes.get(Site("mlp_out", number))) is not None:
                x = x + written
            left.append(x)
        return Pushed(tuple(read), tuple(left), x * self.last_norm.scale[:, None])

    def constants(self) -> dict[Site, Float[Tensor, "pos 1 d_model"]]:
        """What the biases of each layer's mixer write, for `push`."""
        return {
            Site("attn_out", number): layer.mixer.constant().unsqueeze(1)
            for number, layer in enumerate(self.layers)
        }

    def pull(
        self,
        site: Site,
        vectors: Float[Tensor, "batch d_model"],
        position: Int[Tensor, " batch"],
    ) -> Iterator[tuple[Site, Float[Tensor, "upto batch d_model"]]]:
        """The gradient at `mlp_out.L` of every earlier layer, the last first, and at `embed`.

        Each of the `vectors` reads `mlp_in.L` or `resid_post.L` (the `site`) at its `position`.
        Gradients go up to the latest of these; none comes from a token after a vector's own.
        """
        number, upto = site.layer, int(position.max()) + 1
        alone = torch.arange(len(vectors), device=vectors.device)
        if site.kind == "resid_post":
            spread = vectors.new_zeros(upto, *vectors.shape)
            spread[position, alone] = vectors
            yield Site("mlp_out", number), spread
            if (skip := self.layers[number].skip) is not None:
                scale = self.layers[number].norm.scale[position]
                vectors = vectors + (vectors @ skip) * scale
        else:
            assert site.kind == "mlp_in", "what reads the stream reads it before or after an MLP"
            vectors = vectors * self.layers[number].norm.scale[position]
        g = self.layers[number].mixer.adjoint_at(vectors, position, upto)
        g[position, alone] += vectors
        for below in range(number - 1, -1, -1):
            yield Site("mlp_out", below), g
            g = self.layers[below].skipped_adjoint(g)
            g = g + self.layers[below].mixer.adjoint(g)
        yield EMBED, g


def freeze(
    model: TransformerBridge,
    tokens: Int[Tensor, " pos"],
    skips: Mapping[int, Float[Tensor, "d_model d_model"]],
    *,
    patterns_kept: int,
) -> tuple[FrozenModel, Recorded]:
    """Run one prompt, and freeze the model as it is there; `skips` by layer.

    Patterns take `patterns_kept` bytes at most; those of further layers are made again whenever
    they are used.

    Raises `ValueError` for a norm or a token mixer that is not known.
    """
    sites, n, room = _sites(model), len(model.blocks), Room(patterns_kept)
    with torch.no_grad(), patterns_of_first(model, room) as patterns, capture(model, sites) as seen:
        logits: LastLogits = last_logits(model, _alone(tokens))
        x = {site: tensor[0] for site, tensor in seen.items()}
        layers = []
        for number in range(n):
            block = cast(Any, model.blocks[number])
            before, middle = x[Site("resid_pre", number)], x[Site("resid_mid", number)]
            read = freeze_norm(block.ln1.original_component, before)
            mixer = freeze_mixer(block, read, before, patterns.get(number), room)
            norm = freeze_norm(block.ln2.original_component, middle)
            layers.append(FrozenLayer(mixer, norm, skips.get(number)))
        last = freeze_norm(model.ln_final.original_component, x[Site("resid_post", n - 1)])
    recorded = Recorded(
        embed=x[EMBED],
        mlp_in=tuple(x[Site("mlp_in", number)] for number in range(n)),
        mlp_out=tuple(x[Site("mlp_out", number)] for number in range(n)),
        logits=logits[0].to(x[EMBED].device),
    )
    return FrozenModel(tuple(layers), last), recorded


def freeze_mixer(
    block: Any,
    norm: FrozenNorm,
    x: Float[Tensor, "pos d_model"],
    pattern: Pattern | None,
    room: Room,
) -> FrozenMixer:
    """A block's token mixer where the stream is `x`; a delta net has no `pattern` to be given.

    Its pattern is kept where there is room.

    Raises `ValueError` for a kind that is not known.
    """
    if pattern is not None:
        return freeze_attention(block.attn, norm, x, pattern)
    mixer = freeze_delta_net(token_mixer(block).original_component, norm, x)
    if room.takes(mixer.groups * len(x) ** 2 * x.element_size()):
        return replace(mixer, mixing=PatternInMemory(mixer.pattern))
    return mixer


def _sites(model: TransformerBridge) -> list[Site]:
    kinds = ("resid_pre", "resid_mid", "mlp_in", "mlp_out")
    n = len(model.blocks)
    found = [Site(kind, layer) for layer in range(n) for kind in kinds]
    return [EMBED, *found, Site("resid_post", n - 1)]


def _alone(tokens: Int[Tensor, " pos"]) -> Batch:
    return Batch(tokens=tokens[None], mask=torch.ones_like(tokens[None], dtype=torch.bool))


@contextmanager
def patterns_of_first(
    model: TransformerBridge, room: Room
) -> Generator[dict[int, Pattern], None, None]:
    """Yield what a run fills with the pattern of every layer with attention, of its first row.

    Patterns are kept, the first layers' first, while they have room.
    """
    home, seen = device_of(model), {}
    rotated: dict[str, Tensor] = {}

    def turned(name: str) -> Any:
        def note(_module: nn.Module, _args: Any, output: Tensor) -> None:
            rotated[name] = widened(output[0]).to(home)

        return note

    def keep(number: int, own: Any) -> Any:
        def note(_module: nn.Module, _args: Any, output: Tensor) -> None:
            made = softmax_pattern(own, rotated.pop("q"), rotated.pop("k"))
            if room.takes(output[0].numel() * made.key.element_size()):
                made = PatternInMemory(widened(output[0]).to(home).unflatten(0, made.heads))
            seen[number] = made

        return note

    with ExitStack() as stack:
        for number, block in enumerate(model.blocks):
            if "linear_attn" not in block.submodules:
                attention = cast(Any, block).attn
                hooks = [
                    (attention.hook_rot_q, turned("q")),
                    (attention.hook_rot_k, turned("k")),
                    (attention.hook_pattern, keep(number, known_attention(attention))),
                ]
                for point, note in hooks:
                    stack.callback(point.register_forward_hook(note).remove)
        yield seen
