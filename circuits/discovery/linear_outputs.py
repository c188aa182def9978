"""What a replacement graph leads to: directions that the frozen stream is read along.

    the model's own answers, or answers without a wrong one   an output for each token: its logit
                                                              less the vocabulary's mean
    any other metric of the logits                            one output, the metric made linear:
                                                              (dm/dlogits) . logits at this prompt
    a feature, a probe                                        one output, what it reads

A logit difference is linear as it is; a log-probability is held at its gradient. A prompt set has
one output, the metric's, as its prompts may have other answers each.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from circuits.analysis import Analysis
from circuits.discovery.output import output_node
from circuits.graph import Node
from circuits.metrics.metric import LogitMetric, SiteMetric
from hooked_qwen.sites import Site
from hooked_qwen.tokens import token_strings
from transcoders.replacement import ReplacementModel, TargetInputs, Targets

NO_GRADIENT = (
    "the metric has no gradient at this prompt (a divergence from the prompt itself, a feature "
    "that is off), so nothing leads to it: choose another --metric"
)
READABLE = ("mlp_in", "resid_pre", "resid_post")


@dataclass(frozen=True)
class Output:
    """A node that a graph leads to."""

    node: Node
    label: str
    share: float
    "what it counts for; the shares of all outputs are 1 together"
    probability: float | None = None


@dataclass(frozen=True)
class LinearOutputs:
    """The outputs of one prompt, each a sum of vectors that read the stream."""

    outputs: tuple[Output, ...]
    targets: Targets
    of: Int[Tensor, " targets"]
    "the output that each target is a part of"

    @property
    def shares(self) -> Float[Tensor, " outputs"]:
        return self.targets.vectors.new_tensor([output.share for output in self.outputs])

    def summed(self, parts: Float[Tensor, "*any targets"]) -> Float[Tensor, "*any outputs"]:
        """Numbers of targets added up for each output."""
        found = parts.new_zeros(*parts.shape[:-1], len(self.outputs))
        return found.index_add_(-1, self.of, parts)

    def inputs(self, model: ReplacementModel) -> TargetInputs:
        """What every source adds to each output."""
        found = model.inputs(self.targets)
        return TargetInputs(self.summed(found.weight), self.summed(found.bias))

    def values(self, model: ReplacementModel) -> Float[Tensor, " outputs"]:
        """What each output reads of the whole stream."""
        x = model.read(self.targets.site)[self.targets.position]
        return self.summed((x * self.targets.vectors).sum(-1) + self.targets.constant)

    @property
    def together(self) -> Targets:
        """All of them as one, each by its share."""
        share = self.shares[self.of]
        vectors = self.targets.vectors * share[:, None]
        return replace(self.targets, vectors=vectors, constant=self.targets.constant * share)


def linear_outputs(analysis: Analysis, model: ReplacementModel, prompt: int) -> LinearOutputs:
    """The outputs of the prompt of that number, whose replacement model this is.

    Raises `ValueError` for a metric that has no gradient here, or reads a site that the
    replacement model has not.
    """
    if isinstance(analysis.metric, SiteMetric):
        return _of_site(analysis, analysis.metric, model, prompt)
    prompts = analysis.prompts
    alone = len(prompts) == 1 and not prompts.wrong_ids[0]
    if alone and analysis.config.metric == "logit-difference":
        return _of_tokens(analysis, model)
    if analysis.config.metric == "kl":
        raise ValueError(NO_GRADIENT)
    return _of_logits(analysis, analysis.metric, model, prompt)


def _of_tokens(analysis: Analysis, model: ReplacementModel) -> LinearOutputs:
    """An output for each answer."""
    prompts = analysis.prompts
    ids = list(dict.fromkeys(prompts.answer_ids[0]))
    weights = (prompts.answer_weights or [[1 / len(ids)] * len(ids)])[0]
    W_U, b_U = _head(analysis.model)
    chosen = torch.tensor(ids, device=W_U.device)
    like = model.recorded.embed
    directions = (W_U[chosen] - W_U.mean(0, dtype=torch.float64)).to(like)
    constant = (b_U[chosen] - b_U.mean()).to(like)
    p = model.recorded.logits.double().softmax(-1)[chosen.to(like.device)].tolist()
    texts = _names(analysis.model, ids)
    outputs = tuple(
        Output(Node("logit", text), text, share, probability)
        for text, share, probability in zip(texts, weights, p, strict=True)
    )
    of = torch.arange(len(ids), device=like.device)
    return LinearOutputs(outputs, model.last_token(directions, constant), of)


def _names(model: TransformerBridge, ids: list[int]) -> list[str]:
    """Texts of tokens; a mark tells apart those of several tokens that print the same."""
    if getattr(model, "tokenizer", None) is None:
        return [f"<id {i}>" for i in ids]
    found: dict[str, None] = {}
    for text in token_strings(model.tokenizer, ids):
        while text in found:
            text += "'"
        found[text] = None
    return list(found)


def _of_logits(
    analysis: Analysis, metric: LogitMetric, model: ReplacementModel, prompt: int
) -> LinearOutputs:
    """The metric by its gradient to the logits of this prompt."""
    row = torch.tensor([prompt], device=model.recorded.logits.device)
    value, gradient = _linearised(lambda logits: metric(logits, row), model.recorded.logits[None])
    W_U, b_U = _head(analysis.model)
    like = model.recorded.embed
    gradient = gradient[0].to(W_U.device)
    direction, offset = (gradient.to(W_U) @ W_U).to(like), float(gradient.to(b_U) @ b_U)
    # What is not linear: the value less what its gradient reads.
    offset += value - float(gradient.double() @ model.recorded.logits.double().to(gradient.device))
    targets = model.last_token(direction[None], like.new_tensor([offset]))
    return LinearOutputs((_output(analysis),), targets, row.new_zeros(1))


def _of_site(
    analysis: Analysis, metric: SiteMetric, model: ReplacementModel, prompt: int
) -> LinearOutputs:
    """What a feature or a probe reads at each token that counts."""
    site = _read_site(metric.site)
    x = model.read(site)
    weights = metric.weights[prompt, -model.n_tokens :].to(x)
    assert metric.value is not None, "what is read here is read from a mean"
    value, gradient = _linearised(metric.value, (weights @ x)[None])
    position = weights.nonzero().squeeze(-1)
    vectors = weights[position, None] * gradient
    constant = torch.zeros_like(weights[position])
    constant[0] = value - float((weights @ x).double() @ gradient[0].double())
    targets = Targets(site, vectors, position, constant)
    return LinearOutputs((_output(analysis),), targets, torch.zeros_like(position))


def _read_site(site: Site) -> Site:
    if site.kind not in READABLE or site == Site("resid_pre", 0):
        raise ValueError(
            f"a replacement graph cannot lead to what {site} holds: it reads the stream between "
            f"layers or what an MLP reads, so a site of {', '.join(READABLE)}"
        )
    return Site("resid_post", site.layer - 1) if site.kind == "resid_pre" else site


def _linearised(
    metric: Callable[[Tensor], Tensor], x: Float[Tensor, "one width"]
) -> tuple[float, Float[Tensor, "one width"]]:
    """The metric at `x`, and its gradient there."""
    with torch.enable_grad():
        leaf = x.detach().clone().requires_grad_()
        (value,) = metric(leaf)
        (gradient,) = torch.autograd.grad(value, leaf)
    if not gradient.any():
        raise ValueError(NO_GRADIENT)
    return float(value.detach()), gradient


def _output(analysis: Analysis) -> Output:
    node, label = output_node(analysis.prompts, analysis.config.metric, analysis.model.tokenizer)
    return Output(node, label, 1.0)


def _head(model: TransformerBridge) -> tuple[Tensor, Tensor]:
    """The unembedding's weight and bias, of zeros where it has none."""
    head = cast(Any, model.unembed).original_component
    weight, bias = head.weight.detach(), head.bias
    return weight, weight.new_zeros(len(weight)) if bias is None else bias.detach()
