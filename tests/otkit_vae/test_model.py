import numpy as np
import pytest
import torch
from scipy import stats
from torch.distributions import Independent, Normal

from otkit_vae import VAE, Objective, evaluate, penalties
from otkit_vae.likelihoods import Bernoulli, Gaussian

PENALTIES = penalties.names()


@pytest.mark.parametrize("event_shape", [(5,), (8, 8), (3, 4, 4)])
@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
def test_shapes_follow_the_data(event_shape, likelihood):
    model = VAE.sized(event_shape, 3, likelihood)
    x = torch.rand(7, *event_shape)
    posterior = model.encode(x)
    assert (posterior.batch_shape, posterior.event_shape) == ((7,), (3,))
    assert (posterior.stddev > 0).all()
    assert model.decode(posterior.mean).log_prob(x).shape == (7,)
    assert model.sample(4).shape == (4, *event_shape)
    assert model.reconstruct(x).shape == x.shape


def test_bernoulli_is_the_summed_cross_entropy():
    logits, x = torch.randn(2, 6, 3, 3, dtype=torch.float64).unbind()
    x = x.sigmoid()
    pi = 1 / (1 + np.exp(-logits.numpy()))
    expected = (x.numpy() * np.log(pi) + (1 - x.numpy()) * np.log1p(-pi)).sum((-2, -1))
    np.testing.assert_allclose(Bernoulli()(logits).log_prob(x), expected, rtol=1e-12)


@pytest.mark.parametrize("scale", [0.3, None])
def test_gaussian_is_the_summed_density(scale):
    likelihood = Gaussian(scale).double()
    output, x = torch.randn(2, 6, 4, dtype=torch.float64).unbind()
    expected = stats.norm(output, likelihood.scale.item()).logpdf(x).sum(-1)
    np.testing.assert_allclose(likelihood(output).log_prob(x).detach(), expected, rtol=1e-10)


def test_objective_is_reconstruction_plus_weighted_penalty():
    model, x = VAE.sized((4, 4), 2).double(), torch.rand(16, 4, 4, dtype=torch.float64)
    terms = Objective(penalties.get("kl"), weight=0.7)(model, x, generator=torch.Generator().manual_seed(0))
    reconstruction = -model.decode(terms.z).log_prob(x).mean()
    torch.testing.assert_close(terms.reconstruction, reconstruction)
    kl = torch.distributions.kl_divergence(model.encode(x), model.prior).mean()
    torch.testing.assert_close(terms.loss, reconstruction + 0.7 * kl)


def test_a_weight_means_the_same_at_any_image_and_batch_size():
    """Twice the pixels, twice the reconstruction; twice the batch, the same; and the penalty stays as it is."""
    x = torch.rand(32, 6, dtype=torch.float64)
    z = torch.randn(32, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    class Copy(torch.nn.Module):
        def forward(self, z):
            return z[:, :1].expand(-1, self.n)

    terms = []
    for n, data, codes in ((6, x, z), (12, x.repeat(1, 2), z), (6, x.repeat(2, 1), z.repeat(2, 1))):
        model = VAE.sized((n,), 2).double()
        model.decoder = Copy()
        model.decoder.n = n
        # Posteriors so narrow that their sample is their mean.
        model.encode = lambda _, codes=codes: Independent(Normal(codes, torch.full_like(codes, 1e-12)), 1)
        terms.append(Objective(penalties.get("gaussian_w2"), weight=2.0)(model, data))
    one, pixels, batch = terms
    assert pixels.reconstruction.item() == pytest.approx(2 * one.reconstruction.item())
    assert batch.reconstruction.item() == pytest.approx(one.reconstruction.item())
    assert pixels.penalty.item() == pytest.approx(one.penalty.item())
    assert batch.penalty.item() == pytest.approx(one.penalty.item())
    assert one.loss.item() == pytest.approx(one.reconstruction.item() + 2 * one.penalty.item())


def test_a_penalty_must_be_a_scalar():
    class Vector(penalties.LatentPenalty):
        estimand = "per-sample"

        def forward(self, posterior, z, prior, *, generator=None):
            return z.sum(-1)

    with pytest.raises(ValueError, match=r"the penalty Vector has shape \(4,\); expected a scalar"):
        Objective(Vector())(VAE.sized((4,), 2), torch.rand(4, 4))


def test_model_follows_device_and_dtype():
    model = VAE.sized((4,), 2).double()
    assert model.prior.mean.dtype == torch.float64
    assert model.sample(2).dtype == torch.float64


def test_sampling_with_a_generator_repeats_and_leaves_the_global_state():
    model, before = VAE.sized((4,), 2), torch.random.get_rng_state()
    first, second = (model.sample(3, generator=torch.Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize("name", PENALTIES)
def test_evaluation_of_a_perfect_match_is_near_its_null_values(name):
    torch.manual_seed(0)
    model = VAE.sized((4, 4), 3)
    # An encoder that does not look at x: every posterior is the prior.
    torch.nn.init.zeros_(model.encoder.network[-1].weight)
    with torch.no_grad():
        model.encoder.network[-1].bias.copy_(torch.tensor([0.0] * 3 + [float(np.log(np.expm1(1)))] * 3))
    result = evaluate(model, Objective(penalties.get(name)), torch.rand(300, 4, 4), batch_size=64)
    assert result.posterior_scale == pytest.approx(1, abs=1e-4)
    assert result.penalty == pytest.approx(result.penalty_null, rel=0.2, abs=1e-6)
    assert result.w2 == pytest.approx(result.w2_null, rel=0.2)
    # Moments have no sampling noise where every posterior is the prior; two samples have.
    assert result.moments_w2 == pytest.approx(0, abs=1e-4)
    assert result.moments_w2_null > 0.05
    assert "at q = p" in result.table()


# Bad input


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((), 2), r"event_shape is \(\)"),
        (((4, 0), 2), r"event_shape is \(4, 0\)"),
        (((4,), 0), "latent_dim is 0"),
        (((4,), 2, "poisson"), "likelihood is 'poisson'; expected one of bernoulli, gaussian"),
        (((4,), 2, "bernoulli", [0]), r"widths is \(0,\)"),
    ],
)
def test_bad_sizes(arguments, message):
    with pytest.raises(ValueError, match=message):
        VAE.sized(*arguments)


def test_bad_objective():
    with pytest.raises(ValueError, match="weight is -1; expected"):
        Objective(penalties.get("kl"), weight=-1)
    with pytest.raises(ValueError, match="x has 1 observations; the penalty Wasserstein needs at least 2"):
        Objective(penalties.get("wasserstein"))(VAE.sized((4,), 2), torch.rand(1, 4))
    with pytest.raises(ValueError, match="scale is 0"):
        Gaussian(0)
