"""Published arithmetic carried into the weights, so that a dictionary takes raw activations.

Everything is in float64: reading rounds it once.
"""

import torch
from torch import Tensor


def centred(W_enc: Tensor, b_enc: Tensor, centre: Tensor) -> Tensor:
    """The encoder bias that does what subtracting `centre` from the input does.

    (x - c) @ W_enc.T + b_enc = x @ W_enc.T + (b_enc - W_enc @ c)
    """
    # In float64: the two terms are often large and nearly equal.
    return b_enc.double() - W_enc.double() @ centre.double()


def gated(
    W_gate: Tensor, b_gate: Tensor, r_mag: Tensor, b_mag: Tensor, centre: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """`W_enc`, `b_enc` and `threshold` of a gated encoder.

        u = W_gate @ (x - c);  f = relu(exp(r) * u + b_mag) * [u + b_gate > 0]

    With pre = exp(r) * u + b_mag the gate opens where pre > b_mag - exp(r) * b_gate.

    Source: Rajamanoharan et al. 2024, arXiv:2404.16014.
    """
    scale = r_mag.double().exp()
    b_enc = b_mag.double() - scale * (W_gate.double() @ centre.double())
    return scale[:, None] * W_gate, b_enc, b_mag.double() - scale * b_gate.double()


def unit_rows(W_enc: Tensor, b_enc: Tensor, W_dec: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The same dictionary with decoder rows of length one: features carry the length instead.

    pre_i -> ||W_dec_i|| * pre_i, which the k largest are chosen by where a library says so.
    A row of zeros stays one, and its feature is off.
    """
    norm = torch.linalg.vector_norm(W_dec.double(), dim=-1)
    unit = W_dec / norm.where(norm > 0, 1.0)[:, None]
    return W_enc * norm[:, None], b_enc * norm, unit


def shrunk(threshold: Tensor, W_dec: Tensor) -> Tensor:
    """The threshold of activations that does what one of activations times row lengths does.

    p ||W_dec_i|| > threshold_i  where  p > threshold_i / ||W_dec_i||; no p where the row is zero.
    """
    norm = torch.linalg.vector_norm(W_dec.double(), dim=-1)
    most = torch.finfo(torch.float32).max
    return (threshold.double() / norm).nan_to_num(nan=most, posinf=most, neginf=-most)
