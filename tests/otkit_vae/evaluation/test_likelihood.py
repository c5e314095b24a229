"""The importance-weighted bound, against linear-Gaussian models, of which log p(x) is known."""

import pytest
import torch
from torch import nn
from torch.distributions import Independent, MultivariateNormal, Normal

from otkit_vae import VAE, Objective, penalties
from otkit_vae.data import Data
from otkit_vae.evaluation import evaluate_fully, importance_weighted_bound
from otkit_vae.likelihoods import Gaussian

D, EVENT, NOISE = 2, 5, 0.7


class Exact(nn.Module):
    """The posterior p(z|x) of probabilistic PCA, its covariance multiplied by a factor and its mean moved."""

    def __init__(self, W, inflate=1.0, shift=0.0):
        super().__init__()
        M = W.mT @ W + NOISE**2 * torch.eye(D, dtype=W.dtype)
        self.shift = shift
        self.register_buffer("A", torch.linalg.solve(M, W.mT))
        self.register_buffer("L", torch.linalg.cholesky(inflate * NOISE**2 * torch.linalg.inv(M)))

    def forward(self, x):
        return MultivariateNormal(x @ self.A.mT + self.shift, scale_tril=self.L.expand(len(x), D, D))


@pytest.fixture
def problem():
    """Probabilistic PCA (Tipping & Bishop, 1999): x ~ N(0, W Wᵀ + s² I), and observations of it."""
    generator = torch.Generator().manual_seed(0)
    W = torch.randn(EVENT, D, generator=generator, dtype=torch.float64)
    cov = W @ W.mT + NOISE**2 * torch.eye(EVENT, dtype=W.dtype)
    x = torch.randn(40, EVENT, generator=generator, dtype=W.dtype) @ torch.linalg.cholesky(cov).mT
    return W, x, MultivariateNormal(torch.zeros(EVENT, dtype=W.dtype), cov).log_prob(x)


def model(W, **options):
    decoder = nn.Linear(D, EVENT, bias=False)
    vae = VAE(nn.Identity(), decoder, Gaussian(NOISE), D).double()
    vae.encoder = Exact(W, **options)
    with torch.no_grad():
        decoder.weight.copy_(W)
    return vae


@pytest.mark.parametrize("k", [1, 7])
def test_at_the_exact_posterior_it_is_log_p_at_any_k_and_draw(problem, k):
    W, x, log_p = problem
    assert torch.allclose(importance_weighted_bound(model(W), x, n_samples=k), log_p, atol=1e-10)


def test_it_rises_with_k_towards_log_p_from_below(problem):
    W, x, log_p = problem
    vae, generator = model(W, inflate=2.0, shift=0.4), torch.Generator().manual_seed(1)
    x, log_p = x[:10].repeat(200, 1), log_p[:10].repeat(200)
    gaps = [
        (log_p - importance_weighted_bound(vae, x, n_samples=k, generator=generator)).mean().item()
        for k in (1, 3, 10, 100)
    ]
    assert gaps == sorted(gaps, reverse=True)
    assert gaps[0] > 0.3
    # The gap falls as 1/K in the end.
    assert 0 < gaps[-1] < gaps[-2] / 5
    # L_1 is the ELBO, whose gap is KL(q(z|x) | p(z|x)), here known.
    q, exact = vae.encode(x[:10]), model(W).encode(x[:10])
    kl = torch.distributions.kl_divergence(q, exact).mean().item()
    assert gaps[0] == pytest.approx(kl, rel=0.1)


def test_chunks_and_seeds(problem, monkeypatch):
    W, x, log_p = problem
    vae = model(W, inflate=1.5)
    first, again = (
        importance_weighted_bound(vae, x, n_samples=5, generator=torch.Generator().manual_seed(3)) for _ in range(2)
    )
    assert torch.equal(first, again)
    many = importance_weighted_bound(vae, x, n_samples=500, generator=torch.Generator().manual_seed(3))
    assert torch.allclose(many, log_p, atol=0.2)
    # Three samples of one observation at a time: other draws, and all K of them counted.
    monkeypatch.setattr("otkit_vae.evaluation._likelihood.LARGEST_CHUNK", 3 * EVENT)
    assert torch.allclose(importance_weighted_bound(model(W), x, n_samples=8), log_p, atol=1e-10)


def test_an_evaluation_has_the_mean_over_the_first_observations(problem, monkeypatch):
    W, x, log_p = problem
    monkeypatch.setattr("otkit_vae.evaluation._full.LARGEST_BOUND", 5)
    for n in (4, 12):
        found = evaluate_fully(model(W), Objective(penalties.get("kl")), Data("x", x[20:], x[:n])).bound
        assert found.value == pytest.approx(log_p[: min(n, 5)].mean().item())
        assert found.measure().title == f"log p(x) >= (K = 100, n = {min(n, 5)}), nats"


def test_images_of_any_shape():
    assert importance_weighted_bound(VAE.sized((3, 4, 2), 2), torch.rand(5, 3, 4, 2), n_samples=3).shape == (5,)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_densities_of_a_model_in_half_precision(problem, dtype):
    W, x, log_p = problem
    found = importance_weighted_bound(model(W).to(dtype), x[:20].to(dtype), n_samples=8)
    torch.testing.assert_close(found, log_p[:20], rtol=0, atol=4 * torch.finfo(dtype).eps * log_p.abs().max().item())


def test_bad_input():
    class Dirac(Normal):
        def log_prob(self, value):
            raise NotImplementedError

    vae, x = VAE.sized((4,), 2), torch.rand(3, 4)
    for k in (0, 1.5, True):
        with pytest.raises(ValueError, match="n_samples is"):
            importance_weighted_bound(vae, x, n_samples=k)
    vae.encode = lambda x: Independent(Dirac(torch.zeros(len(x), 2), 1.0), 1)
    with pytest.raises(ValueError, match="deterministic and has no density"):
        importance_weighted_bound(vae, x)
