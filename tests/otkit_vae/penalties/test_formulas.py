"""Each penalty against its own formula, computed another way, by NumPy, SciPy and POT in float64."""

import numpy as np
import ot
import pytest
import torch
from scipy import integrate, linalg, optimize, special, stats
from torch.distributions import Categorical, Independent, MixtureSameFamily, MultivariateNormal, Normal

from otkit_vae import penalties
from otkit_vae.distributions import Deterministic
from otkit_vae.penalties._projections import random_directions
from otkit_vae.penalties.cramer_wold import kummer
from otkit_vae.sampling import sample

N, d = 24, 3
rng = np.random.default_rng(0)
MU, SIGMA = rng.normal(size=(N, d)), rng.uniform(0.1, 1.5, size=(N, d))
TRIL = np.tril(rng.normal(size=(N, d, d))) / 2
TRIL[:, range(d), range(d)] = SIGMA
M, G = rng.normal(size=d), np.tril(rng.normal(size=(d, d))) + 2 * np.eye(d)
t = torch.from_numpy


def normal(loc, scale):
    return Independent(Normal(loc, scale), 1)


STANDARD = normal(torch.zeros(d, dtype=torch.float64), torch.ones(d, dtype=torch.float64))
DIAGONAL, FULL, POINTS = normal(t(MU), t(SIGMA)), MultivariateNormal(t(MU), scale_tril=t(TRIL)), Deterministic(t(MU))
PRIOR = MultivariateNormal(t(M), scale_tril=t(G))
Z = sample(DIAGONAL, None, torch.Generator().manual_seed(0))
z = Z.numpy()


def seed():
    return torch.Generator().manual_seed(3)


def value(name, posterior=DIAGONAL, prior=STANDARD, codes=Z, **options):
    return penalties.get(name, **options)(posterior, codes, prior, generator=seed()).item()


def w2_squared(m1, C1, m2, C2):
    root = linalg.sqrtm(C1)
    return ((m1 - m2) ** 2).sum() + np.trace(C1 + C2 - 2 * linalg.sqrtm(root @ C2 @ root)).real


def close(expected):
    return pytest.approx(expected, rel=1e-6)


# Per sample


def test_kl():
    expected = 0.5 * (MU**2 + SIGMA**2 - 1 - np.log(SIGMA**2)).sum(-1).mean()
    assert value("kl") == close(expected)


@pytest.mark.parametrize("prior", [STANDARD, PRIOR])
def test_kl_of_full_covariances(prior):
    m, C = prior.mean.numpy(), np.eye(d) if prior is STANDARD else G @ G.T
    P = np.linalg.inv(C)
    terms = [
        np.trace(P @ L @ L.T) + (m - mu) @ P @ (m - mu) - d + np.linalg.slogdet(C)[1] - np.linalg.slogdet(L @ L.T)[1]
        for mu, L in zip(MU, TRIL, strict=True)
    ]
    assert value("kl", FULL, prior) == close(np.mean(terms) / 2)


def test_kl_to_a_mixture_is_that_of_the_code():
    mixture = MixtureSameFamily(Categorical(torch.tensor([0.3, 0.7])), normal(t(MU[:2]), t(SIGMA[:2])))
    q = stats.norm(MU, SIGMA).logpdf(z).sum(-1)
    p = special.logsumexp(
        [np.log(w) + stats.norm(MU[k], SIGMA[k]).logpdf(z).sum(-1) for k, w in enumerate((0.3, 0.7))], axis=0
    )
    assert value("kl", prior=mixture) == close((q - p).mean())


def test_gaussian_w2_and_talagrand():
    expected = (MU**2 + (SIGMA - 1) ** 2).sum(-1)
    penalty = penalties.get("gaussian_w2")
    ours = penalty.per_observation(DIAGONAL, Z, STANDARD).numpy()
    np.testing.assert_allclose(ours, expected, rtol=1e-12)
    for posterior in (DIAGONAL, FULL):
        bound = penalties.get("kl").per_observation(posterior, Z, STANDARD)
        assert (0.5 * penalty.per_observation(posterior, Z, STANDARD) <= bound).all()


@pytest.mark.parametrize("prior", [STANDARD, PRIOR])
def test_gaussian_w2_of_full_covariances(prior):
    m, C = prior.mean.numpy(), np.eye(d) if prior is STANDARD else G @ G.T
    expected = [w2_squared(mu, L @ L.T, m, C) for mu, L in zip(MU, TRIL, strict=True)]
    ours = penalties.get("gaussian_w2").per_observation(FULL, Z, prior).numpy()
    np.testing.assert_allclose(ours, expected, rtol=1e-6)
    if prior is STANDARD:
        nuclear = [
            (mu**2).sum() + (L**2).sum() + d - 2 * linalg.svdvals(L).sum() for mu, L in zip(MU, TRIL, strict=True)
        ]
        np.testing.assert_allclose(ours, nuclear, rtol=1e-9)


def test_gaussian_w2_of_points_is_the_mean_squared_distance_to_the_prior():
    expected = ((MU - M) ** 2).sum(-1).mean() + np.trace(G @ G.T)
    assert value("gaussian_w2", POINTS, PRIOR) == close(expected)


# Aggregated


@pytest.mark.parametrize("posterior", [DIAGONAL, FULL, POINTS])
def test_aggregated_gaussian_w2(posterior):
    spread = {
        DIAGONAL: np.diag((SIGMA**2).mean(0)),
        FULL: np.einsum("nij,nkj->ik", TRIL, TRIL) / N,
        POINTS: np.zeros((d, d)),
    }[posterior]
    expected = w2_squared(MU.mean(0), np.cov(MU.T, bias=True) + spread, M, G @ G.T)
    assert value("aggregated_gaussian_w2", posterior, PRIOR) == close(expected)


def test_aggregated_gaussian_w2_to_a_mixture_is_that_to_its_moments():
    weights = np.array([0.3, 0.7])
    mixture = MixtureSameFamily(Categorical(t(weights)), normal(t(MU[:2]), t(SIGMA[:2])))
    mean = weights @ MU[:2]
    cov = sum(w * (np.diag(s**2) + np.outer(m - mean, m - mean)) for w, m, s in zip(weights, MU, SIGMA, strict=False))
    expected = w2_squared(MU.mean(0), np.cov(MU.T, bias=True), mean, cov)
    assert value("aggregated_gaussian_w2", POINTS, mixture) == close(expected)


@pytest.mark.parametrize("s", [1.0, 0.4])
def test_aggregated_gaussian_w2_to_an_isotropic_prior_is_that_to_any_gaussian_with_its_derivatives(s):
    """What knows that the covariances commute, against what does not: a prior with the same factor, as a matrix."""
    mean, eye = t(M), torch.eye(d, dtype=torch.float64)
    penalty, codes = penalties.get("aggregated_gaussian_w2"), t(MU).requires_grad_()
    direction = torch.randn(N, d, dtype=torch.float64, generator=seed())

    def derivatives(prior):
        distance = penalty(normal(codes, t(SIGMA)), codes, prior)
        (gradient,) = torch.autograd.grad(distance, codes, create_graph=True)
        (second,) = torch.autograd.grad((gradient * direction).sum(), codes)
        return distance, gradient, second

    with_matrix = derivatives(MultivariateNormal(mean, scale_tril=s * eye))
    for mine, expected in zip(derivatives(normal(mean, s * eye.diagonal())), with_matrix, strict=True):
        torch.testing.assert_close(mine, expected, rtol=1e-9, atol=1e-12)


def test_aggregated_gaussian_w2_keeps_its_digits_near_the_prior():
    """At covariances with 1e-6 between them a difference of traces would have four digits left."""
    codes = torch.cat([torch.eye(d, dtype=torch.float64), -torch.eye(d, dtype=torch.float64)]) * (1 + 1e-6) * d**0.5
    distance = value("aggregated_gaussian_w2", Deterministic(codes), STANDARD, codes)
    assert distance == pytest.approx(d * 1e-12, rel=1e-8)


@pytest.mark.parametrize("n", [2, 4, 6])
@pytest.mark.parametrize("scales", [torch.ones(6), torch.arange(1.0, 7.0) / 3])
def test_aggregated_gaussian_w2_with_no_more_codes_than_dimensions(n, scales):
    """A singular covariance: the derivative in the codes is finite, and that of the value, whichever way they move."""
    few = torch.randn(n, 6, dtype=torch.float64, generator=seed(), requires_grad=True)
    prior = normal(torch.zeros(6, dtype=torch.float64), scales.double())
    penalty = penalties.get("aggregated_gaussian_w2")

    def distance(codes):
        return penalty(Deterministic(codes), codes, prior)

    (gradient,) = torch.autograd.grad(distance(few), few)
    h = 1e-5
    for way in (few.detach(), torch.randn(n, 6, dtype=torch.float64, generator=seed().manual_seed(1))):
        slope = (distance(few + h * way) - distance(few - h * way)).item() / (2 * h)
        assert (gradient * way).sum().item() == pytest.approx(slope, rel=1e-6)


def halves(y):
    z1, z2, y1, y2 = z[: N // 2], z[N // 2 :], y[: N // 2], y[N // 2 :]
    return [(z1, y1, 0.25), (z1, y2, 0.25), (z2, y1, 0.25), (z2, y2, 0.25), (z1, z2, -0.5), (y1, y2, -0.5)]


def costs(x, y, p):
    return np.linalg.norm(x[:, None] - y, axis=-1) ** p


def assignment(x, y, p):
    C = costs(x, y, p)
    return C[optimize.linear_sum_assignment(C)].mean()


@pytest.mark.parametrize("p", [1.0, 2.0, 3.0])
def test_wasserstein(p):
    y = sample(STANDARD, N, seed()).numpy()
    assert value("wasserstein", p=p, debiased=False) == close(assignment(z, y, p))
    assert value("wasserstein", p=p) == close(sum(w * assignment(u, v, p) for u, v, w in halves(y)))
    root = sum(w * assignment(u, v, p) ** (1 / p) for u, v, w in halves(y))
    assert value("wasserstein", p=p, root=True) == close(root)


def test_wasserstein_of_an_odd_batch_has_halves_of_one_size():
    """With one more in the first halves the mean at q = p is below 0: -0.7 at N = 3, d = 8."""
    y, k = sample(STANDARD, N - 1, seed()).numpy(), (N - 1) // 2
    z1, z2, y1, y2 = z[:k], z[k : 2 * k], y[:k], y[k : 2 * k]
    cross = np.mean([assignment(u, v, 2) for u in (z1, z2) for v in (y1, y2)])
    expected = cross - 0.5 * assignment(z1, z2, 2) - 0.5 * assignment(y1, y2, 2)
    assert value("wasserstein", codes=Z[: N - 1]) == close(expected)


@pytest.mark.parametrize("p", [1.0, 2.0])
def test_sinkhorn(p):
    y = sample(STANDARD, N, seed()).numpy()
    reg = 0.5 * (2 * d) ** (p / 2)

    def entropic(u, v):
        return ot.solve(costs(u, v, p), reg=reg, reg_type="KL", tol=1e-11, max_iter=10_000).value

    options = {"reg": 0.5, "p": p, "tol": 1e-9}
    assert value("sinkhorn", debiased=False, **options) == close(entropic(z, y))
    divergence = entropic(z, y) - 0.5 * entropic(z, z) - 0.5 * entropic(y, y)
    assert value("sinkhorn", split=False, **options) == close(divergence)
    assert value("sinkhorn", **options) == close(sum(w * entropic(u, v) for u, v, w in halves(y)))


@pytest.mark.parametrize("p", [1.0, 2.0])
def test_sinkhorn_has_the_derivative_of_its_regularisation_in_the_scale_of_a_learned_prior(p):
    def cost(scale):
        prior = normal(torch.zeros(3, dtype=torch.float64), scale.expand(3))
        return penalties.get("sinkhorn", p=p, debiased=False, tol=1e-9)(DIAGONAL, Z, prior, generator=seed())

    scale, h = torch.tensor(1.3, dtype=torch.float64, requires_grad=True), 1e-5
    (slope,) = torch.autograd.grad(cost(scale), scale)
    assert slope.item() == pytest.approx((cost(scale + h) - cost(scale - h)).item() / (2 * h), rel=1e-6)


def cost_on_a_line(u, m, s):
    """W2² of points to N(m, s²), by integration over each quantile cell."""
    u, n = np.sort(u), len(u)
    edges = stats.norm.ppf(np.arange(n + 1) / n)
    return sum(
        integrate.quad(lambda x, i=i: (u[i] - m - s * x) ** 2 * stats.norm.pdf(x), edges[i], edges[i + 1])[0]
        for i in range(n)
    )


def test_sliced():
    directions = random_directions(4, Z, seed()).numpy()
    np.testing.assert_allclose((directions**2).sum(-1), 1)
    expected = np.mean([cost_on_a_line(z @ v, v @ M, np.linalg.norm(G.T @ v)) for v in directions])
    assert value("sliced", prior=PRIOR, n_projections=4) == close(expected)
    # Expanded, for N(0, I).
    a = stats.norm.pdf(stats.norm.ppf(np.arange(N + 1) / N))
    u = np.sort(z @ directions.T, axis=0)
    expected = (u**2).mean(0) - 2 * (u * (a[:-1] - a[1:])[:, None]).sum(0) + 1
    assert value("sliced", n_projections=4) == close(expected.mean())


def test_sliced_to_a_prior_that_is_sampled():
    mixture = MixtureSameFamily(Categorical(torch.ones(2)), normal(t(MU[:2]), t(SIGMA[:2])))
    generator = seed()
    v = random_directions(4, Z, generator).numpy()
    y = sample(mixture, N, generator).numpy()
    expected = ((np.sort(z @ v.T, axis=0) - np.sort(y @ v.T, axis=0)) ** 2).mean()
    assert value("sliced", prior=mixture, n_projections=4) == close(expected)


def test_max_sliced_is_the_maximum_over_all_directions():
    plane = z[:, :2] * [2.0, 0.7] + [0.5, 0.2]
    prior = MultivariateNormal(t(M[:2]), scale_tril=t(G[:2, :2]))

    def cost(angle):
        v = np.array([np.cos(angle), np.sin(angle)])
        return cost_on_a_line(plane @ v, v @ M[:2], np.linalg.norm(G[:2, :2].T @ v))

    best = max(np.linspace(0, np.pi, 60), key=cost)
    found = optimize.minimize_scalar(lambda a: -cost(a), bounds=(best - 0.06, best + 0.06), method="bounded")
    ours = penalties.get("max_sliced", n_steps=200)(None, t(plane), prior, generator=seed()).item()
    assert ours == pytest.approx(-found.fun, rel=1e-3)
    default = penalties.get("max_sliced")(None, t(plane), prior, generator=seed()).item()
    assert default == pytest.approx(-found.fun, rel=1e-2)


def at_the_prior(loc):
    return normal(torch.full((8,), loc, dtype=torch.float64), torch.ones(8, dtype=torch.float64))


@pytest.mark.parametrize("k", range(3))
def test_max_sliced_is_near_the_maximum_where_codes_and_prior_agree(k):
    """There the costs along all directions are small beside the size of the codes."""
    codes = torch.from_numpy(np.random.default_rng(k).normal(size=(128, 8)))
    found = value("max_sliced", POINTS, at_the_prior(0.0), codes, n_starts=64, n_steps=60)
    assert value("max_sliced", POINTS, at_the_prior(0.0), codes) > 0.95 * found


def test_max_sliced_does_not_see_a_shift_of_codes_and_prior():
    codes = torch.from_numpy(np.random.default_rng(0).normal(size=(64, 8)) * np.linspace(0.5, 1.5, 8))
    expected = value("max_sliced", POINTS, at_the_prior(0.0), codes)
    assert value("max_sliced", POINTS, at_the_prior(10.0), codes + 10) == pytest.approx(expected, rel=1e-3)


def mean_of_pairs(K):
    return (K.sum() - np.trace(K)) / (len(K) * (len(K) - 1))


def test_mmd_with_the_multiquadric():
    y, scales = sample(STANDARD, N, seed()).numpy(), (0.1, 0.2, 0.5, 1, 2, 5, 10)

    def k(x, y):
        return sum(2 * d * c / (2 * d * c + costs(x, y, 2)) for c in scales)

    expected = mean_of_pairs(k(z, z)) + mean_of_pairs(k(y, y)) - 2 * k(z, y).mean()
    assert value("mmd") == close(expected)


def test_derivatives_of_mmd_with_the_multiquadric(monkeypatch):
    """In the codes, two of which are one, and in a prior that is learned; over several blocks of distances."""
    monkeypatch.setattr("otkit_vae.penalties.mmd.BLOCK", 7)

    def mmd(codes, loc, scale):
        return penalties.get("mmd")(None, codes, normal(loc, scale), generator=seed())

    def inputs():
        return torch.cat([t(z[:5]), t(z[4:5])]), t(M.copy()), t(SIGMA[0].copy())

    assert torch.autograd.gradcheck(mmd, tuple(leaf.requires_grad_() for leaf in inputs()), atol=1e-6)
    blocks = mmd(*inputs())
    monkeypatch.undo()
    torch.testing.assert_close(blocks, mmd(*inputs()), rtol=1e-13, atol=1e-14)
    codes = inputs()[0].requires_grad_()
    (gradient,) = torch.autograd.grad(mmd(codes, *inputs()[1:]), codes, create_graph=True)
    with pytest.raises(RuntimeError, match="not implemented"):
        torch.autograd.grad(gradient.sum(), codes)


def test_mmd_with_the_gaussian_kernel():
    expected = 0.0
    for c in (0.2, 1.0, 5.0):
        h = d * c
        own = mean_of_pairs(np.exp(-costs(z, z, 2) / (2 * h)))
        to_prior = ((h / (h + 1)) ** (d / 2) * np.exp(-(z**2).sum(-1) / (2 * (h + 1)))).mean()
        expected += own - 2 * to_prior + (h / (h + 2)) ** (d / 2)
    assert value("mmd", kernel="gaussian") == close(expected)


def test_mmd_with_the_gaussian_kernel_takes_a_factor_as_a_vector_or_as_a_matrix():
    codes, scale = t(z).requires_grad_(), t(SIGMA[0])
    values = [
        penalties.get("mmd", kernel="gaussian")(None, codes, prior)
        for prior in (normal(t(M), scale), MultivariateNormal(t(M), scale_tril=scale.diag()))
    ]
    torch.testing.assert_close(*values, rtol=1e-12, atol=0)
    torch.testing.assert_close(*(torch.autograd.grad(v, codes)[0] for v in values), rtol=1e-10, atol=1e-14)


def test_mmd_with_the_gaussian_kernel_to_another_prior():
    """In one dimension, its expectations by integration."""
    m, s, h = 0.7, 1.8, 0.5 * 1.8**2
    p, codes = stats.norm(m, s), z[:, :1]
    to_prior = [
        integrate.quad(lambda y, u=u: np.exp(-((u - y) ** 2) / 2 / h) * p.pdf(y), -20, 20)[0] for u in codes[:, 0]
    ]
    # A difference of two draws is N(0, 2 s²).
    own_of_prior = integrate.quad(lambda v: np.exp(-(v**2) / 2 / h) * stats.norm(0, s * 2**0.5).pdf(v), -30, 30)[0]
    expected = mean_of_pairs(np.exp(-costs(codes, codes, 2) / 2 / h)) - 2 * np.mean(to_prior) + own_of_prior
    prior = normal(torch.tensor([m], dtype=torch.float64), torch.tensor([s], dtype=torch.float64))
    penalty = penalties.get("mmd", kernel="gaussian", scales=[0.5])
    assert penalty(None, t(codes), prior).item() == close(expected)


@pytest.mark.parametrize("gamma", [None, 0.3])
def test_cramer_wold_is_the_average_over_lines(gamma):
    """In the plane: the squared L2 distance of smoothed projections, by integration over the angle."""
    plane, g = z[:, :2], (4 / (3 * N)) ** 0.4 if gamma is None else gamma
    angles = np.linspace(0, np.pi, 400, endpoint=False)
    v = np.stack([np.cos(angles), np.sin(angles)])
    differences = (plane[:, None] - plane) @ v
    own = np.mean([mean_of_pairs(stats.norm.pdf(differences[..., k], scale=(2 * g) ** 0.5)) for k in range(400)])
    to_prior = stats.norm.pdf(plane @ v, scale=(1 + 2 * g) ** 0.5).mean()
    expected = own - 2 * to_prior + stats.norm.pdf(0, scale=(2 + 2 * g) ** 0.5)
    prior = normal(torch.zeros(2, dtype=torch.float64), torch.ones(2, dtype=torch.float64))
    assert penalties.get("cramer_wold", gamma=gamma)(None, t(plane), prior).item() == close(expected)


def test_cramer_wold_to_another_gaussian_is_that_of_whitened_codes():
    white = linalg.solve(G, (z - M).T).T
    assert value("cramer_wold", prior=PRIOR) == close(value("cramer_wold", codes=t(white)))


@pytest.mark.parametrize("dim", [1, 2, 3, 8, 64, 1000])
def test_kummers_function(dim):
    s = np.concatenate([[0], np.logspace(-4, 6, 300)])
    ours, slope = kummer(t(s), dim)
    np.testing.assert_allclose(ours, special.hyp1f1(0.5, dim / 2, -s), rtol=1e-9, atol=1e-300)
    np.testing.assert_allclose(slope, -special.hyp1f1(1.5, dim / 2 + 1, -s) / dim, rtol=1e-7, atol=1e-20)


@pytest.mark.parametrize("dim", [1, 3])
def test_kummers_function_of_nan_is_nan(dim):
    ours, slope = kummer(t(np.array([1.0, np.nan, np.inf])), dim)
    assert ours.isnan().tolist() == slope.isnan().tolist() == [False, True, False]


# The adversary


def test_wae_gan():
    penalty = penalties.get("wae_gan").double()
    codes = Z.clone().requires_grad_()
    ours = penalty(DIAGONAL, codes, STANDARD, generator=seed())
    logits = penalty.discriminator(Z).detach().numpy()
    assert ours.item() == close(np.logaddexp(0, -logits).mean())
    ours.backward()
    assert (codes.grad != 0).any()
    assert all(parameter.grad is None for parameter in penalty.parameters())
    codes.grad = None
    loss = penalty.adversary_loss(codes, STANDARD, generator=seed())
    y = sample(STANDARD, N, seed())
    theirs = penalty.discriminator(y).detach().numpy()
    assert loss.item() == close(np.logaddexp(0, -theirs).mean() + np.logaddexp(0, logits).mean())
    loss.backward()
    assert codes.grad is None
    assert all(parameter.grad is not None for parameter in penalty.parameters())


def test_a_trained_discriminator_tells_codes_from_the_prior_and_the_penalty_moves_them_there():
    penalty = penalties.get("wae_gan", widths=[16]).double()
    far = torch.full((N, d), 3.0, dtype=torch.float64)
    penalty(None, far, STANDARD, generator=seed())
    optimizer = torch.optim.Adam(penalty.parameters(), lr=0.02)
    for _ in range(100):
        optimizer.zero_grad()
        penalty.adversary_loss(far, STANDARD, generator=seed()).backward()
        optimizer.step()
    codes = far.clone().requires_grad_()
    value = penalty(None, codes, STANDARD)
    assert value.item() > 2 * penalty.null_value(STANDARD, N)
    value.backward()
    assert (codes.grad.sum(-1) > 0).all()  # descending is towards 0
