"""Probes of texts' means: what they say, as a metric, and where they read."""

import torch

from circuits.shift.probe import fitted_probe, held_out_loss, losses
from hooked_qwen.sites import Site


def means(n=60, d=5, seed=0):
    """Means in which the second column tells the class, and the last is constant."""
    generator = torch.Generator().manual_seed(seed)
    positive = torch.arange(n) % 2 == 0
    x = torch.randn(n, d, generator=generator, dtype=torch.float64)
    x[:, 1] = 100 * (x[:, 1] + 4.0 * positive)
    x[:, -1] = 7.0
    return x, positive


def test_a_probe_is_in_the_units_of_what_it_reads():
    x, positive = means()
    probe = fitted_probe(x, positive)
    assert (probe.says(x) == positive).double().mean() > 0.95
    assert probe.direction[-1] == 0
    torch.testing.assert_close(probe.logits(x), x @ probe.direction + probe.bias)
    # The same probe of the same texts in other units and from another origin.
    other = fitted_probe(x / 100 - 3, positive)
    torch.testing.assert_close(other.logits(x / 100 - 3), probe.logits(x), atol=1e-4, rtol=1e-4)


def test_the_loss_is_of_texts_that_the_probe_did_not_see():
    x, positive = means()
    noise = torch.randn(60, 200, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert (fitted_probe(noise, positive).says(noise) == positive).all()
    assert held_out_loss(noise, positive, seed=0) > 0.6
    assert held_out_loss(x, positive, seed=0) < 0.3
    sites = {Site("resid_post", 0): noise, Site("resid_post", 1): x}
    found = losses(sites, positive, seed=0)
    assert min(found, key=found.get) == Site("resid_post", 1)
