"""What a training ends with, for posteriors of a user's own."""

import pytest
import torch
from torch import nn
from torch.distributions import ExpTransform, Independent, Laplace, Normal, StudentT, TransformedDistribution

from otkit_vae import VAE, Objective, penalties
from otkit_vae.evaluation import decode, encode, evaluate, importance_weighted_bound
from otkit_vae.likelihoods import Bernoulli, Gaussian
from otkit_vae.posteriors import DeterministicPosterior


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


@pytest.mark.parametrize(
    "prior",
    [
        Independent(StudentT(torch.full((2,), 1.5)), 1),
        TransformedDistribution(Independent(Normal(torch.zeros(2), torch.ones(2)), 1), [ExpTransform()]),
    ],
    ids=["infinite", "not known"],
)
def test_a_prior_without_a_covariance_leaves_out_what_is_made_of_it(prior):
    sized = VAE.sized((4,), 2)
    model = VAE(sized.encoder, sized.decoder, sized.likelihood, 2, prior=prior)
    found = evaluate(model, Objective(penalties.get("wasserstein")), torch.rand(20, 4))
    assert found.moments_w2 is found.moments_w2_null is found.posterior_scale_null is None
    assert found.w2 > 0
    assert "moments_w2" not in [measure.key for measure in found.section.measures]
    assert "no W2 of moments: the covariance of the prior is not known, or not finite" in found.table()
    with pytest.raises(
        ValueError,
        match=r"^prior is (Independent\(StudentT\)|Transformed\w+); the penalty aggregated_gaussian_w2 expects",
    ):
        Objective(penalties.get("aggregated_gaussian_w2")).check(model, torch.rand(20, 4))


def test_the_null_value_of_moments_is_a_mean_and_the_same_in_every_run_of_one_prior_n_and_seed():
    def null(penalty, x, seed):
        model = VAE(nn.Identity(), nn.Identity(), Gaussian(1.0), 8, posterior=DeterministicPosterior())
        return evaluate(model, Objective(penalties.get(penalty)), x, seed=seed).moments_w2_null

    x, other = torch.randn(359, 8), torch.randn(359, 8)
    assert null("sliced", x, 1) == null("sinkhorn", other, 1)
    # One draw has the standard deviation 0.025, the mean over 20 of them 0.0056: between ten seeds.
    found = torch.tensor([null("none", x, seed) for seed in range(10)])
    assert found.mean() == pytest.approx(0.265, abs=0.01)
    assert found.std() < 0.012


@pytest.mark.parametrize(("n", "d"), [(100, 2), (100, 8), (359, 8)])
def test_codes_are_called_too_close_where_they_are_and_not_at_q_equal_to_p(n, d):
    # The encoder is the identity: codes are the observations.
    model = VAE(nn.Identity(), nn.Identity(), Gaussian(1.0), d, posterior=DeterministicPosterior())
    generator = torch.Generator().manual_seed(0)

    def said(scale):
        x = scale * torch.randn(n, d, generator=generator)
        found = evaluate(model, Objective(penalties.get("none")), x, seed=int(x[0, 0].abs() * 1e6))
        assert found.too_close == ("codes are too close together" in found.table())
        return found.too_close

    # At most 1 in 32 by chance: of 40 more than 5 once in 600 times.
    assert sum(said(1.0) for _ in range(40)) <= 5
    if d == 8:  # in two dimensions codes of this scale are farther from the prior than its samples
        assert sum(said(0.7) for _ in range(10)) >= 7


def test_few_codes_are_not_called_too_close():
    model = VAE(nn.Identity(), nn.Identity(), Gaussian(1.0), 8, posterior=DeterministicPosterior())
    found = evaluate(
        model, Objective(penalties.get("none")), 0.7 * torch.randn(4, 8, generator=torch.Generator().manual_seed(0))
    )
    assert found.w2 < found.w2_null
    assert not found.too_close


def test_codes_far_from_the_prior_are_said_to_be():
    model = VAE(nn.Identity(), nn.Identity(), Gaussian(1.0), 2, posterior=DeterministicPosterior())
    x = torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
    objective = Objective(penalties.get("none"))
    assert not any("the codes do not follow" in note for note in evaluate(model, objective, x).notes)
    found = evaluate(model, objective, x + 7)
    (note,) = (note for note in found.notes if "the codes do not follow" in note)
    assert note.startswith(f"W2 of moments is {found.moments_w2 / found.moments_w2_null:.0f} times its value at q = p")
    # Without moments of the prior it is said of samples.
    student = Independent(StudentT(torch.full((2,), 1.5)), 1)
    model = VAE(nn.Identity(), nn.Identity(), Gaussian(1.0), 2, posterior=DeterministicPosterior(), prior=student)
    assert any(note.startswith("W2 of samples is") for note in evaluate(model, objective, x + 1e4).notes)


@pytest.mark.parametrize("n", [32, 36, 65])
def test_codes_from_the_prior_are_at_the_null_value_whatever_is_left_of_the_last_batch(n):
    # The data are N(0, I) and the encoder is the identity: q(z) is p(z).
    model = VAE(nn.Identity(), nn.Identity(), Gaussian(1.0), 4, posterior=DeterministicPosterior())
    objective, generator = Objective(penalties.get("aggregated_gaussian_w2")), torch.Generator().manual_seed(0)
    found = [evaluate(model, objective, torch.randn(n, 4, generator=generator), batch_size=32) for _ in range(30)]
    mean = sum(evaluation.penalty for evaluation in found) / len(found)
    assert mean == pytest.approx(found[0].penalty_null, rel=0.2)


def test_every_observation_is_in_a_batch_that_the_penalty_allows():
    model = VAE(nn.Identity(), nn.Identity(), Gaussian(1.0), 2, posterior=DeterministicPosterior())
    x = torch.zeros(9, 2)
    x[-1] = 3.0  # by itself it would be a batch of one
    found = evaluate(model, Objective(penalties.get("sliced")), x, batch_size=4)
    # The likelihood of the mean: x is its own reconstruction.
    assert found.squared_error == 0
    # 8 codes at 0 and one at (3, 3): the mean is 1/3 (1, 1), the covariance 8/9 of ones.
    assert found.moments_w2**2 == pytest.approx(2 / 9 + 1 + (16**0.5 / 3 - 1) ** 2, rel=1e-4)


def test_the_scale_of_a_posterior_stands_beside_that_of_the_prior():
    model = VAE.sized((2,), 3, prior="mixture", components=2)
    with torch.no_grad():
        model.prior_module.locs.copy_(torch.tensor([[2.0] * 3, [-2.0] * 3]))
    found = evaluate(model, Objective(penalties.get("sliced")), torch.rand(20, 2))
    assert found.posterior_scale_null == pytest.approx(5**0.5, rel=1e-3)
    (measure,) = (measure for measure in found.section.measures if measure.key == "posterior_scale")
    assert measure.null == found.posterior_scale_null


def test_units_that_have_lost_their_noise_are_named_among_the_numbers():
    class Scales(nn.Module):
        def forward(self, x):
            return Independent(Normal(x, torch.tensor([0.5, 0.001, 0.02])), 1)

    model = VAE(Scales(), nn.Identity(), Gaussian(1.0), 3)
    found = evaluate(model, Objective(penalties.get("sliced")), torch.randn(500, 3))
    assert found.noiseless == (False, True, False)
    assert {m.key: m.value for m in found.section.measures}["noiseless_units"] == 1
    assert "sigma collapse: in 1 of 3 units (from 0: 1) the standard deviation of q(z|x) is below 0.01" in found.table()
    deterministic = VAE(nn.Identity(), nn.Identity(), Gaussian(1.0), 3, posterior=DeterministicPosterior())
    found = evaluate(deterministic, Objective(penalties.get("sliced")), torch.randn(500, 3))
    assert not any(found.noiseless)
    assert "sigma collapse:" not in found.table()


def test_modules_of_ones_own_are_evaluated_in_evaluation_mode():
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 6))
    model = VAE(encoder, nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5)), Gaussian(1.0), 3)
    objective, x = Objective(penalties.get("sliced")), torch.randn(50, 4)
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    encoder[2].eval()  # a part that is kept so in training
    modes = [part.training for part in model.modules()]

    def numbers():
        generator = torch.Generator().manual_seed(0)
        codes = encode(model, x, generator=generator)
        bound = importance_weighted_bound(model, x, n_samples=2, generator=generator)
        return evaluate(model, objective, x), codes.mean, codes.scale, decode(model, codes.z), bound

    (evaluation, *found), after = numbers(), [part.training for part in model.modules()]
    assert after == modes
    assert all(torch.equal(weights[name], value) for name, value in model.state_dict().items())
    model.eval()
    expected, *tensors = numbers()
    assert evaluation == expected
    assert all(map(torch.equal, found, tensors))


def test_observations_are_reconstructed_batch_by_batch(monkeypatch):
    model = VAE(nn.Identity(), nn.Identity(), Gaussian(1.0), 2, posterior=DeterministicPosterior())
    decoded, decode = [], model.decode
    monkeypatch.setattr(model, "decode", lambda z: decoded.append(len(z)) or decode(z))
    assert evaluate(model, Objective(penalties.get("none")), torch.randn(5000, 2)).squared_error == 0
    assert max(decoded) <= 2000
