"""Priors: learned mixtures, and any distribution of torch's."""

import pytest
import torch
from torch.distributions import (
    AffineTransform,
    Categorical,
    ExpTransform,
    Independent,
    MixtureSameFamily,
    Normal,
    StudentT,
    TransformedDistribution,
)

from otkit_vae import VAE, Objective, penalties
from otkit_vae.distributions import moments
from otkit_vae.priors import MixturePrior


def test_samples_of_a_learned_mixture_move_with_its_parameters():
    torch.manual_seed(0)
    prior = MixturePrior(2, components=3).double()
    drawn = prior().rsample((20_000,))
    mean, cov = moments(prior())
    torch.testing.assert_close(drawn.mean(0), mean, atol=0.05, rtol=0)
    torch.testing.assert_close(drawn.mT.cov(), cov, atol=0.1, rtol=0)
    # A step of all means moves the mean of the sample by as much, each component by its share.
    (gradient,) = torch.autograd.grad(drawn[:, 0].mean(), prior.locs)
    torch.testing.assert_close(gradient[:, 0], torch.full((3,), 1 / 3, dtype=torch.float64), atol=0.02, rtol=0)
    assert prior().expand((4,)).rsample((2,)).shape == (2, 4, 2)
    assert not prior().sample((2,)).requires_grad
    assert (prior().component_distribution.stddev - 1).abs().max() < 0.01


@pytest.mark.parametrize("name", ["kl", "aggregated_gaussian_w2", "wasserstein", "mmd"])
def test_a_mixture_learns_from_the_penalty(name):
    model = VAE.sized((4,), 2, prior="mixture", components=3)
    Objective(penalties.get(name))(model, torch.rand(16, 4)).loss.backward()
    assert (model.prior_module.locs.grad != 0).any()


def test_any_distribution_is_a_prior_and_follows_the_model():
    components = Independent(Normal(torch.randn(2, 3), torch.ones(2, 3)), 1)
    mixture = MixtureSameFamily(Categorical(torch.ones(2)), components)
    sized = VAE.sized((4,), 3)
    model = VAE(sized.encoder, sized.decoder, sized.likelihood, 3, prior=mixture).double()
    assert model.prior.sample().dtype == torch.float64
    assert mixture.sample().dtype == torch.float32
    assert Objective(penalties.get("wasserstein"))(model, torch.rand(8, 4).double()).loss.dtype == torch.float64


def test_a_prior_follows_the_model_with_its_transforms():
    base, shift = Independent(Normal(torch.zeros(3), torch.ones(3)), 1), AffineTransform(torch.ones(3), torch.ones(3))
    sized = VAE.sized((4,), 3)
    model = VAE(sized.encoder, sized.decoder, sized.likelihood, 3, prior=TransformedDistribution(base, [shift]))
    assert model.bfloat16().prior.sample().dtype == torch.bfloat16
    assert shift.loc.dtype == torch.float32


@pytest.mark.parametrize("name", ["mmd", "sinkhorn", "max_sliced"])
@pytest.mark.parametrize(
    "prior",
    [
        Independent(StudentT(torch.full((2,), 1.5)), 1),
        Independent(StudentT(torch.tensor([1.5, 5.0])), 1),
        TransformedDistribution(Independent(Normal(torch.zeros(2), torch.ones(2)), 1), [ExpTransform()]),
    ],
    ids=["infinite", "infinite in a dimension", "not known"],
)
def test_a_prior_without_a_variance_is_named(name, prior):
    sized = VAE.sized((4,), 2)
    model = VAE(sized.encoder, sized.decoder, sized.likelihood, 2, prior=prior)
    message = (
        rf"^prior is a (Independent|Transformed\w*); the penalty {name} expects one whose variance is known and finite"
    )
    with pytest.raises(ValueError, match=message):
        Objective(penalties.get(name)).check(model, torch.rand(16, 4))
