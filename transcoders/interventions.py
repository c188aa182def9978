"""Interventions on one prompt, with as much of the model held as a replacement graph holds.

The first row of a pass is the prompt as it is, the others are the same prompt under an edit each;
what is held is held at the first row's values, in the same pass. Two things are said of a run:

    attention   free        patterns and norms are what they become
                patterns    patterns (of delta nets all but the values) stay those of the prompt;
                            norms are what they become
                frozen      patterns and the denominators of all norms stay
    mlps        model       the MLPs themselves run
                transcoders features switch on and off by their own rule on what arrives; what the
                            transcoders miss (the errors) stays as it is
                linear      the prompt's active features respond one to one, no other comes on;
                            errors stay
                frozen      no feature and no error responds; a skip connection still carries

Frozen attention with linear MLPs is the model of the graph, so that what an edit does there is what
the graph predicts. Frozen attention with frozen MLPs leaves the direct edges alone. Free attention
with the model's own MLPs is the model under the edit, `saes.edit.applied`.

A layer without a transcoder is all error, which stays as it is unless the MLPs themselves run.

Differs: circuit-tracer can freeze patterns, and a range of layers altogether; norms it freezes with
the latter only.

Axes: `rows` of a pass, the prompt first; `pos` its tokens.
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Literal, cast, get_args

from jaxtyping import Float
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from hooked_qwen.hooks import Activation, HookFunction, capture, intervene
from hooked_qwen.precision import widened
from hooked_qwen.sites import Site
from saes.edit import applied_by_row
from saes.edit_file import Edit
from saes.edited_pass import Patch
from saes.features import Features
from saes.firing import Firing
from saes.suite import Suite
from transcoders.frozen.model import freeze_mixer, patterns_of_first
from transcoders.frozen.norm import freeze_norm
from transcoders.frozen.pattern import Pattern, Room
from transcoders.in_suite import transcoders_among

NOTHING_KEPT = Room(0)
"Each pattern is used once in a pass: it is made a part at a time."
Attention = Literal["free", "patterns", "frozen"]
Mlps = Literal["model", "transcoders", "linear", "frozen"]


@dataclass(frozen=True, kw_only=True)
class Mode:
    """How much of the model reacts to an intervention; see the module's docstring."""

    attention: Attention = "free"
    mlps: Mlps = "model"

    def __str__(self) -> str:
        return f"attention {self.attention}, MLPs {self.mlps}"

    @classmethod
    def of(cls, attention: str, mlps: str) -> "Mode":
        """The mode of two words; raises `ValueError` for one that is not known."""
        words = (("attention", attention, Attention), ("mlps", mlps, Mlps))
        for name, given, known in words:
            if given not in get_args(known):
                raise ValueError(f"{name} is {given!r}: expected {', '.join(get_args(known))}")
        return cls(attention=cast(Attention, attention), mlps=cast(Mlps, mlps))


THE_MODEL = Mode()
THE_GRAPH = Mode(attention="frozen", mlps="linear")
DIRECT = Mode(attention="frozen", mlps="frozen")


@contextmanager
def intervened(
    model: TransformerBridge,
    suite: Suite,
    edits: Sequence[Edit],
    mode: Mode = THE_MODEL,
    *,
    patch: Patch | None = None,
    must_fire: bool = True,
) -> Generator[list[Firing], None, None]:
    """Do each of the edits in a row of its own, after a first row that is left as it is.

    Passes inside the block are of one prompt, unpadded, in 1 + `edits` rows. Yields what becomes
    known of whether each edit did anything, and raises as `saes.edit.applied` does.
    """
    suite = suite.fitting(model)
    with ExitStack() as stack:
        standing = stack.enter_context(held(model, suite, mode))
        firing = stack.enter_context(
            applied_by_row(
                model, suite, [None, *edits], patch=patch, must_fire=must_fire, standing=standing
            )
        )
        yield [each for each in firing if each is not None]


@contextmanager
def moved(
    model: TransformerBridge,
    suite: Suite,
    moves: Mapping[Site, Float[Tensor, "rows pos d_model"]],
    mode: Mode = THE_MODEL,
) -> Generator[None, None, None]:
    """Add `moves` to the tensors of some sites: nodes moved by amounts that are known.

    As an edit of single nodes, of which many go together in few products. The first row of each
    is zero.
    """
    edits: dict[Site, HookFunction] = {
        site: lambda value, move=move: value + move for site, move in moves.items()
    }
    with held(model, suite.fitting(model), mode), intervene(model, edits):
        yield


@contextmanager
def held(
    model: TransformerBridge, suite: Suite, mode: Mode
) -> Generator[Callable[[str], Features | None], None, None]:
    """Hold inside the block what `mode` says, and yield how a transcoder's features stand.

    Raises `ValueError` where nothing is a transcoder, and for attention that cannot be frozen.
    """
    with ExitStack() as stack:
        if mode.attention != "free":
            stack.enter_context(_frozen_patterns(model, mode.attention))
        if mode.attention == "frozen":
            stack.enter_context(_frozen_norms(model))
        if mode.mlps == "model":
            yield lambda name: None
            return
        names = transcoders_among(suite)
        reads = {site for name in names for site in suite.reads_of(name)}
        run = _Mlps(suite, tuple(names), mode.mlps, stack.enter_context(capture(model, reads)))
        layers = range(len(model.blocks))
        edits = {Site("mlp_out", layer): run.change(layer) for layer in layers}
        stack.enter_context(intervene(model, edits))
        yield run.standing


@dataclass(frozen=True)
class _Mlps:
    """What the MLPs of a pass are replaced by."""

    suite: Suite
    names: tuple[str, ...]
    "of the transcoders"
    how: Mlps
    seen: Mapping[Site, Activation]
    "what arrives where they read"
    _known: dict[str, tuple[Activation, Features]] = field(default_factory=dict)

    def standing(self, name: str) -> Features | None:
        """The features of a transcoder in the pass that runs; None of other dictionaries."""
        if name not in self.names:
            return None
        x = self.suite.read(name, self.seen)
        if name not in self._known or self._known[name][0] is not x:
            self._known[name] = x, self._features(name, x)
        return self._known[name][1]

    def _features(self, name: str, x: Activation) -> Features:
        dictionary = self.suite[name]
        if self.how == "transcoders":
            return dictionary.encode(x)
        plain = dictionary.encode(x[:1]).expand(*x.shape[:2])
        if self.how == "frozen":
            return plain
        responses = dictionary.responses(x - x[:1], plain.index)
        return replace(plain, value=plain.value + responses * (plain.value != 0))

    def change(self, layer: int) -> HookFunction:
        """What an MLP writes: the prompt's own output, and what the features change of it."""
        site = Site("mlp_out", layer)
        writing = [name for name in self.names if site in self.suite.writes_of(name)]

        def replaced(value: Activation) -> Activation:
            found = value[:1].expand(value.shape)
            for name in writing:
                f, dictionary = self.standing(name), self.suite[name]
                assert f is not None, "it is among the names"
                x = self.suite.read(name, self.seen)
                written = dictionary.write(f) + dictionary.skip(x)
                found = found + dictionary.by_site(written - written[:1])[site]
            return found

        return replaced


@contextmanager
def _frozen_patterns(model: TransformerBridge, attention: Attention) -> Generator[None, None, None]:
    """Patterns as in the first row of every pass, and with `frozen` attention what norms divide by.

    What flows along them changes.
    """
    layers = range(len(model.blocks))
    with ExitStack() as stack:
        patterns = stack.enter_context(patterns_of_first(model, NOTHING_KEPT))
        seen = stack.enter_context(capture(model, [Site("resid_pre", n) for n in layers]))
        edits = {Site("attn_out", n): _mixed(model, n, patterns, seen, attention) for n in layers}
        stack.enter_context(intervene(model, edits))
        yield


def _mixed(
    model: TransformerBridge,
    layer: int,
    patterns: dict[int, Pattern],
    seen: Mapping[Site, Tensor],
    attention: Attention,
) -> HookFunction:
    """What a token mixer gives, its pattern that of the first row."""
    block = cast(Any, model.blocks[layer])
    own = block.ln1.original_component

    def change(value: Activation) -> Activation:
        x = seen[Site("resid_pre", layer)]
        norm = freeze_norm(own, x[0])
        mixer = freeze_mixer(block, norm, x[0], patterns.pop(layer, None), NOTHING_KEPT)
        read = x
        if attention == "patterns":
            # The map divides by the norms of the first row.
            live = freeze_norm(own, x.flatten(0, 1)).per_rms.view(x.shape[:2])
            read = x * (live / norm.per_rms).unsqueeze(-1)
        return value[:1] + mixer.forward((read - x[:1]).transpose(0, 1)).transpose(0, 1)

    return change


@contextmanager
def _frozen_norms(model: TransformerBridge) -> Generator[None, None, None]:
    """What MLPs and the unembedding read, divided as in the first row of every pass."""
    layers = range(len(model.blocks))
    with ExitStack() as stack:
        seen = stack.enter_context(capture(model, [Site("resid_mid", n) for n in layers]))
        edits = {Site("mlp_in", n): _normed(model, n, seen) for n in layers}
        stack.enter_context(intervene(model, edits))
        last = cast(Any, model.ln_final).original_component
        stack.callback(last.register_forward_hook(_last_norm).remove)
        yield


def _normed(model: TransformerBridge, layer: int, seen: Mapping[Site, Tensor]) -> HookFunction:
    """What an MLP reads, its norm that of the first row."""
    block = cast(Any, model.blocks[layer])

    def change(value: Activation) -> Activation:
        x = seen[Site("resid_mid", layer)]
        norm = freeze_norm(block.ln2.original_component, x[0])
        return value[:1] + (x - x[:1]) * norm.scale

    return change


def _last_norm(norm: Any, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
    x = widened(args[0])
    found = widened(output)[:1] + (x - x[:1]) * freeze_norm(norm, x[0]).scale
    return found.to(output)
