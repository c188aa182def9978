"""A toy architecture: ReLU with a learnt gain, and a penalty that grows with the logarithm.

    f = exp(log_gain) relu(pre)        cost = heat / d_target * sum_i log(1 + f_i) / tokens

`heat` doubles in the first step and stays there.
"""

from dataclasses import replace

import torch

from saes.architectures.architecture import Architecture, Begun, FoldedFeatures
from saes.training.dense_step import dense_step
from saes.training.step import number_like


def begin(start):
    gain = torch.full_like(start.weights.b_enc, 0.1)
    return Begun(parameters={"log_gain": gain}, numbers={"heat": number_like(0.01, start.x)})


def step(weights, x, y, options):
    heat = options.numbers["heat"]

    def encoding(w, pre, rest):
        f = w.own["log_gain"].exp() * pre.relu()
        return f, (heat / y.shape[1]).to(x.dtype) * (1 + f).log().sum(-1).mean()

    result = dense_step(weights, x, y, encoding)
    return replace(result, numbers={"heat": (2 * heat).clamp(max=0.02)})


def fold(weights):
    gain = weights.own["log_gain"].exp()
    return FoldedFeatures(gain=gain, bias=gain * weights.b_enc)


ARCHITECTURE = Architecture(step=step, begin=begin, fold=fold, rates={"log_gain": 3.0})
