"""Priors: learned mixtures, and any distribution of torch's."""

import pytest
import torch
from scipy import stats
from torch.distributions import (
    AffineTransform,
    Categorical,
    ExpTransform,
    Independent,
    Laplace,
    LowRankMultivariateNormal,
    MixtureSameFamily,
    MultivariateNormal,
    Normal,
    StudentT,
    TransformedDistribution,
)

from otkit_vae import VAE, Objective, penalties
from otkit_vae.distributions import fingerprint, moments
from otkit_vae.priors import FixedPrior, MixturePrior


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


def test_a_mixture_starts_as_draws_from_the_standard_normal_and_keeps_its_scales_above_a_thousandth():
    torch.manual_seed(0)
    prior = MixturePrior(2, components=5000)
    for dim in prior.locs.detach().unbind(-1):
        assert stats.kstest(dim, "norm").pvalue > 0.01
    torch.nn.init.constant_(prior.raw_scales, -200.0)
    torch.testing.assert_close(prior().component_distribution.stddev, torch.full((5000, 2), 1e-3))


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


@pytest.mark.parametrize("name", ["kl", "gaussian_w2", "aggregated_gaussian_w2"])
def test_a_gaussian_of_low_rank_is_that_of_its_covariance(name):
    loc, tall, wide = torch.randn(3, 4, 3, dtype=torch.float64).unbind()
    few = LowRankMultivariateNormal(loc, tall[..., None], wide.square() + 0.1)
    full = MultivariateNormal(loc, few.covariance_matrix)
    prior = Independent(Normal(torch.zeros(3, dtype=torch.float64), 2.0), 1)
    one, other = (penalties.get(name)(q, loc, prior) for q in (few, full))
    torch.testing.assert_close(one, other)


@pytest.mark.parametrize("shape", [(2, 3), (2, 4, 3)])
def test_a_prior_is_one_distribution_of_codes(shape):
    several = Independent(Normal(torch.zeros(shape), 1.0), 1)
    with pytest.raises(
        ValueError, match=r"^prior has batch shape \(2,.*\) and event shape \(3,\); expected \(\) and \(d,\)"
    ):
        FixedPrior(several)
    with pytest.raises(ValueError, match=r"^prior has batch shape \(\) and event shape \(2, .*3\); expected"):
        FixedPrior(Independent(several, len(shape) - 1))
    with pytest.raises(ValueError, match=r"^prior has batch shape \(\) and event shape \(\); expected"):
        FixedPrior(Normal(0.0, 1.0))


def test_no_two_priors_have_one_fingerprint_and_copies_of_one_have():
    def mine():
        zero, one, scale = torch.zeros(2), torch.ones(2), AffineTransform(torch.zeros(2), torch.ones(2))
        torch.manual_seed(0)
        return [
            *(Normal(zero, one), Normal(zero.double(), one.double()), Normal(zero[:, None], one[:, None])),
            *(
                Normal(one, one),
                Laplace(zero, one),
                Independent(Normal(zero, one), 1),
                torch.distributions.Beta(one, one),
            ),
            *(TransformedDistribution(Normal(zero, one), part) for part in ([], [scale], [scale, ExpTransform()])),
            *(MixturePrior(2, 3), MixturePrior(2, 3), FixedPrior(Independent(Normal(zero, one), 1))),
        ]

    first, second = (list(map(fingerprint, mine())) for _ in range(2))
    assert first == second
    assert len(set(first)) == len(first)


def test_a_transform_that_remembers_its_inverse_is_the_same():
    transform = AffineTransform(torch.zeros(2), torch.ones(2))
    prior = TransformedDistribution(Normal(torch.zeros(2), 1.0), [transform])
    before, inverse = fingerprint(prior), transform.inv
    assert inverse.inv is transform
    assert fingerprint(prior) == before


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
        rf"^prior is (Independent\(StudentT\)|Transformed\w*); the penalty {name} expects one whose variance is known "
        "and finite"
    )
    with pytest.raises(ValueError, match=message):
        Objective(penalties.get(name)).check(model, torch.rand(16, 4))
