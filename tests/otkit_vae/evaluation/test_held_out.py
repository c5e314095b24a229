"""What a training ends with, for posteriors of a user's own."""

import pytest
import torch
from torch import nn
from torch.distributions import Independent, Laplace

from otkit_vae import VAE, Objective, penalties
from otkit_vae.evaluation import evaluate
from otkit_vae.likelihoods import Bernoulli


class LaplaceEncoder(nn.Module):
    """q(z|x) with mean x and the variance 2 b² in each coordinate."""

    def forward(self, x):
        return Independent(Laplace(4 * x, torch.full_like(x, 2**0.5)), 1)


def test_a_posterior_that_is_not_gaussian_has_moments_too():
    torch.manual_seed(0)
    model = VAE(LaplaceEncoder(), nn.Linear(2, 2), Bernoulli(), 2)
    found = evaluate(model, Objective(penalties.get("sliced")), torch.rand(5000, 2))
    # Means uniform on [0, 4]²: the variance is 16 / 12 + 4 in each coordinate.
    wanted = (2 * 2**2 + 2 * ((16 / 12 + 4) ** 0.5 - 1) ** 2) ** 0.5
    assert found.moments_w2 == pytest.approx(wanted, rel=0.02)
    assert found.posterior_scale == pytest.approx(2)
