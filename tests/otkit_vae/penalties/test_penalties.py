"""Every penalty by the same conformance suite, and each against its own formula."""

import math

import numpy as np
import ot
import pytest
import torch
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from otkit_vae import penalties
from otkit_vae.penalties import _registry
from otkit_vae.sampling import sample

N, d = 32, 4


def normal(loc, scale):
    return Independent(Normal(loc, scale), 1)


def prior(dtype=torch.float64):
    return normal(torch.zeros(d, dtype=dtype), torch.ones(d, dtype=dtype))


def batch(seed=0, dtype=torch.float64, scale=None):
    generator = torch.Generator().manual_seed(seed)
    loc = torch.randn(N, d, generator=generator, dtype=dtype).requires_grad_()
    scale = (
        torch.rand(N, d, generator=generator, dtype=dtype) if scale is None else torch.full((N, d), scale, dtype=dtype)
    ) + 0
    posterior = normal(loc, scale.requires_grad_())
    return posterior, sample(posterior, None, generator)


@pytest.fixture(params=penalties.names())
def penalty(request):
    return penalties.get(request.param)


# Conformance


def test_is_a_finite_scalar_with_gradients(penalty):
    posterior, z = batch()
    value = penalty(posterior, z, prior(), generator=torch.Generator().manual_seed(1))
    assert value.shape == ()
    assert value >= 0
    if not isinstance(penalty, penalties.NoPenalty):
        grads = torch.autograd.grad(value, [posterior.base_dist.loc, posterior.base_dist.scale], allow_unused=True)
        assert all(grad is not None and torch.isfinite(grad).all() for grad in grads)
        assert any((grad != 0).any() for grad in grads)


def test_says_what_it_estimates(penalty):
    assert penalty.estimand in {"per-sample", "aggregated"}
    assert penalty.min_batch >= 1
    assert penalty.default_weight > 0


def test_does_not_depend_on_the_order_of_the_batch(penalty):
    posterior, z = batch()
    order = torch.randperm(N, generator=torch.Generator().manual_seed(2))
    shuffled = normal(posterior.base_dist.loc[order], posterior.base_dist.scale[order])
    values = [
        penalty(q, codes, prior(), generator=torch.Generator().manual_seed(1)).item()
        for q, codes in ((posterior, z), (shuffled, z[order]))
    ]
    # The iteration of Sinkhorn stops at its tolerance.
    assert values[0] == pytest.approx(values[1], rel=1e-4)


def test_float32(penalty):
    posterior, z = batch(dtype=torch.float32)
    assert penalty(posterior, z, prior(torch.float32)).dtype == torch.float32


def test_finite_at_the_prior_and_as_the_scale_vanishes(penalty):
    for scale in (1.0, 1e-12):
        posterior, z = batch(scale=scale)
        value = penalty(posterior, z, prior())
        assert math.isfinite(value.item())


def test_same_generator_same_value_and_the_global_state_is_left_alone(penalty):
    posterior, z = batch()
    before = torch.random.get_rng_state()
    values = [penalty(posterior, z, prior(), generator=torch.Generator().manual_seed(5)).item() for _ in range(2)]
    assert values[0] == values[1]
    assert torch.equal(before, torch.random.get_rng_state())


def test_grows_with_distance_from_the_prior(penalty):
    if isinstance(penalty, penalties.NoPenalty):
        pytest.skip("no penalty is no penalty")
    values = []
    for shift in (0.0, 1.0, 3.0):
        q = normal(torch.full((N, d), shift, dtype=torch.float64), torch.ones(N, d, dtype=torch.float64))
        generator = torch.Generator().manual_seed(0)
        values.append(penalty(q, sample(q, None, generator), prior(), generator=generator).item())
    assert values[0] < values[1] < values[2]


def test_null_value_is_zero_only_where_there_is_no_noise(penalty):
    null = penalty.null_value(prior(), 16)
    if penalty.estimand == "per-sample":
        assert null == 0
    else:
        assert null > penalty.null_value(prior(), 256) > 0


def test_null_value_does_not_move_the_global_state(penalty):
    before = torch.random.get_rng_state()
    penalty.null_value(prior(), 8)
    assert torch.equal(before, torch.random.get_rng_state())


# Formulas, each computed another way


def test_kl():
    posterior, z = batch()
    mu, s = posterior.base_dist.loc.detach().numpy(), posterior.base_dist.scale.detach().numpy()
    expected = 0.5 * (mu**2 + s**2 - 1 - np.log(s**2)).sum(-1).mean()
    assert penalties.get("kl")(posterior, z, prior()).item() == pytest.approx(expected, rel=1e-12)


def test_gaussian_w2_and_talagrand():
    posterior, z = batch()
    mu, s = posterior.base_dist.loc.detach().numpy(), posterior.base_dist.scale.detach().numpy()
    expected = (mu**2 + (s - 1) ** 2).sum(-1)
    ours = penalties.get("gaussian_w2").per_observation(posterior, z, prior()).detach().numpy()
    np.testing.assert_allclose(ours, expected, rtol=1e-12)
    assert (0.5 * ours <= penalties.get("kl").per_observation(posterior, z, prior()).detach().numpy()).all()


@pytest.mark.parametrize("p", [1.0, 2.0])
def test_wasserstein(p):
    posterior, z = batch()
    y = sample(prior(), N, torch.Generator().manual_seed(3))
    M = np.linalg.norm(z.detach().numpy()[:, None] - y.numpy(), axis=-1) ** p
    expected = ot.emd2(np.full(N, 1 / N), np.full(N, 1 / N), M)
    ours = penalties.get("wasserstein", p=p)(posterior, z, prior(), generator=torch.Generator().manual_seed(3))
    assert ours.item() == pytest.approx(expected, rel=1e-9)


def test_sinkhorn():
    posterior, z = batch()
    y = sample(prior(), N, torch.Generator().manual_seed(3))
    M = ((z.detach().numpy()[:, None] - y.numpy()) ** 2).sum(-1)
    expected = ot.solve(M, reg=0.2 * 2 * d, reg_type="KL", tol=1e-12).value
    ours = penalties.get("sinkhorn", reg=0.2, tol=1e-9)(
        posterior, z, prior(), generator=torch.Generator().manual_seed(3)
    )
    assert ours.item() == pytest.approx(expected, rel=1e-7)


# The registry


@pytest.fixture
def registry(monkeypatch):
    monkeypatch.setattr(_registry, "_CLASSES", dict(_registry._CLASSES))


@pytest.mark.usefixtures("registry")
def test_a_users_penalty_is_a_class_and_one_line():
    @penalties.register("moments")
    class Moments(penalties.LatentPenalty):
        estimand = "aggregated"

        def forward(self, posterior, z, prior, *, generator=None):
            return (z.mean(0) - prior.mean).square().sum()

    assert "moments" in penalties.names()
    assert isinstance(penalties.get("moments"), Moments)


@pytest.mark.usefixtures("registry")
def test_bad_registrations():
    with pytest.raises(ValueError, match="name 'kl' is taken by the penalty KL"):
        penalties.register("kl")(type("Other", (penalties.LatentPenalty,), {}))
    with pytest.raises(TypeError, match="expected a class derived from LatentPenalty"):
        penalties.register("mine")(dict)


def test_unknown_name_lists_the_names():
    with pytest.raises(
        ValueError, match="penalty is 'wassserstein'; expected one of gaussian_w2, kl, none, sinkhorn, wasserstein"
    ):
        penalties.get("wassserstein")


def test_unknown_option():
    with pytest.raises(TypeError, match=r"penalty 'kl' does not take the options reg; expected of"):
        penalties.get("kl", reg=1.0)


def test_gaussian_w2_refuses_what_is_not_gaussian():
    posterior, z = batch()
    components = Independent(Normal(torch.zeros(2, d), torch.ones(2, d)), 1)
    mixture = MixtureSameFamily(Categorical(torch.ones(2)), components)
    with pytest.raises(TypeError, match=r"prior is a MixtureSameFamily.*expects a diagonal Gaussian"):
        penalties.get("gaussian_w2")(posterior, z, mixture)
