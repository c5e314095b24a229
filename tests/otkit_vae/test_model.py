import re

import numpy as np
import pytest
import torch
from scipy import stats
from torch.distributions import Bernoulli as TorchBernoulli
from torch.distributions import (
    Cauchy,
    Independent,
    Normal,
)

from otkit_vae import VAE, Objective, evaluate, penalties
from otkit_vae.distributions import Deterministic
from otkit_vae.likelihoods import Bernoulli, Gaussian
from otkit_vae.posteriors import FLOOR, FullPosterior

PENALTIES = penalties.names()


SHAPES = [
    *(("mlp", shape) for shape in [(5,), (8, 8), (3, 4, 4)]),
    *(("conv", shape) for shape in [(8, 8), (28, 28), (1, 28, 28), (3, 32, 32), (9, 7, 3), (4, 5, 13), (1, 1)]),
]


@pytest.mark.parametrize(("network", "event_shape"), SHAPES)
@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
@pytest.mark.parametrize("posterior", ["deterministic", "diagonal", "full"])
def test_shapes_follow_the_data(network, event_shape, likelihood, posterior):
    model = VAE.sized(event_shape, 3, likelihood, network=network, posterior=posterior)
    x = torch.rand(7, *event_shape)
    q = model.encode(x)
    assert (q.batch_shape, q.event_shape) == ((7,), (3,))
    assert (q.stddev > 0).all() != (posterior == "deterministic")
    assert q.rsample().shape == (7, 3)
    posterior = q
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


def pixels(name, output, scale):
    """What torch's own classes make of an output."""
    base = TorchBernoulli(logits=output, validate_args=False) if name == "bernoulli" else Normal(output, scale)
    return Independent(base, output.ndim - 1, validate_args=False)


@pytest.mark.parametrize("name", ["bernoulli", "gaussian"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_likelihood_of_a_whole_image_is_that_of_torch_with_its_derivatives(name, dtype):
    output, x = torch.randn(2, 5, 3, 4, dtype=dtype, generator=torch.Generator().manual_seed(0)).unbind()
    # Logits at which one side or the other is certain, and pixels that are not grey.
    output[0, 0], x[0, 0, :2] = torch.tensor([-60.0, 60.0, -200.0, 200.0]), torch.tensor([-60.0, 60.0])
    output, x = output.requires_grad_(), x.sigmoid().requires_grad_()
    likelihood = (Bernoulli() if name == "bernoulli" else Gaussian()).to(dtype)
    parameters = (output, x, *likelihood.parameters())
    scale = None if name == "bernoulli" else likelihood.scale
    mine, torchs = likelihood(output).log_prob(x), pixels(name, output, scale).log_prob(x)
    torch.testing.assert_close(mine, torchs)
    weights = torch.arange(1.0, 6.0, dtype=dtype)
    for one, other in zip(
        torch.autograd.grad(mine, parameters, weights), torch.autograd.grad(torchs, parameters, weights), strict=True
    ):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("name", ["bernoulli", "gaussian"])
def test_a_likelihood_of_a_whole_image_is_twice_differentiable_and_can_be_mapped(name):
    output, x = torch.randn(2, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).unbind()
    likelihood = Bernoulli() if name == "bernoulli" else Gaussian(0.7)

    def log_prob(output, x):
        return likelihood(output).log_prob(x)

    inputs = output.requires_grad_(), x.sigmoid().requires_grad_()
    assert torch.autograd.gradcheck(log_prob, inputs)
    assert torch.autograd.gradgradcheck(log_prob, inputs)
    mapped = torch.func.vmap(lambda o, x: log_prob(o[None], x[None])[0])(*inputs)
    torch.testing.assert_close(mapped, log_prob(*inputs))


@pytest.mark.parametrize("name", ["bernoulli", "gaussian"])
def test_a_likelihood_takes_many_outputs_of_one_image_and_expands(name):
    outputs, x = torch.randn(7, 5, 3, 4), torch.rand(5, 3, 4)
    likelihood = Bernoulli() if name == "bernoulli" else Gaussian(0.7)
    decoded = likelihood(outputs[0])
    assert decoded.expand((7, 5)).batch_shape == (7, 5)
    many = torch.stack([likelihood(output).log_prob(x) for output in outputs])
    torch.testing.assert_close(
        torch.stack([decoded.log_prob(x)] * 7), decoded.expand((7, 5)).log_prob(x.expand(7, 5, 3, 4))
    )
    torch.testing.assert_close(likelihood(outputs.flatten(0, 1)).log_prob(x.repeat(7, 1, 1)), many.flatten())
    one = torch.stack([likelihood(outputs[0]).log_prob(x[:1].expand_as(x)), decoded.log_prob(x[:1])])
    torch.testing.assert_close(one[0], one[1])


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


@pytest.mark.parametrize("n", [4, 1])
def test_a_penalty_must_be_a_scalar(n):
    class Vector(penalties.LatentPenalty):
        estimand = "per-sample"

        def forward(self, posterior, z, prior, *, generator=None):
            return z.sum(-1)[:n]

    with pytest.raises(ValueError, match=rf"the penalty Vector has shape \({n},\); expected a scalar"):
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
    # Unbiased penalties have noise about 0, and moments none at all where every posterior is the prior.
    noise = {"wasserstein": 0.2, "sinkhorn": 0.2, "mmd": 0.03, "cramer_wold": 2e-3, "aggregated_gaussian_w2": 0.2}
    assert result.penalty == pytest.approx(result.penalty_null, rel=0.2, abs=noise.get(name, 1e-6))
    assert result.w2 == pytest.approx(result.w2_null, rel=0.2)
    # Moments have no sampling noise where every posterior is the prior; two samples have.
    assert result.moments_w2 == pytest.approx(0, abs=1e-4)
    assert result.moments_w2_null > 0.05
    assert "at q = p" in result.table()


# Networks and posteriors


def test_convolutions_know_one_observation_at_a_time():
    """GroupNorm: what an image becomes does not depend on its batch."""
    model, x = VAE.sized((28, 28), 2, network="conv").double(), torch.rand(5, 28, 28, dtype=torch.float64)
    torch.testing.assert_close(model.encode(x).mean[:1], model.encode(x[:1]).mean)
    z = torch.randn(5, 2, dtype=torch.float64)
    torch.testing.assert_close(model.decode(z).mean[:1], model.decode(z[:1]).mean)


def test_channels_last_are_the_same_images():
    first, last = (VAE.sized(shape, 2, network="conv") for shape in ((3, 10, 6), (10, 6, 3)))
    last.load_state_dict(first.state_dict())
    x = torch.rand(4, 3, 10, 6)
    torch.testing.assert_close(first.encode(x).mean, last.encode(x.movedim(1, -1)).mean)
    torch.testing.assert_close(first.reconstruct(x).movedim(1, -1), last.reconstruct(x.movedim(1, -1)))


def test_a_full_posterior_has_the_covariance_of_its_factor():
    features = torch.randn(6, 2 * 4 + 6, dtype=torch.float64)
    q = FullPosterior()(features)
    L = q.scale_tril
    assert (L.triu(1) == 0).all()
    torch.testing.assert_close(L.diagonal(dim1=-2, dim2=-1), FLOOR + torch.nn.functional.softplus(features[:, 4:8]))
    torch.testing.assert_close(L[:, 3, :3], features[:, -3:])
    torch.testing.assert_close(q.covariance_matrix, L @ L.mT)


def test_a_deterministic_posterior_is_its_mean():
    loc = torch.randn(5, 3, requires_grad=True)
    q = Deterministic(loc)
    assert torch.equal(q.rsample((2,))[1], loc)
    assert q.rsample().requires_grad
    assert q.expand((4, 5)).batch_shape == (4, 5)
    assert (q.stddev == 0).all()
    with pytest.raises(NotImplementedError, match="no density"):
        q.log_prob(loc)


@pytest.mark.parametrize("head", [True, False])
def test_a_users_own_modules(head):
    class Mine(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(4, 4)

        def forward(self, x):
            features = self.layer(x)
            return features if head else Independent(Normal(features[:, :2], features[:, 2:].exp()), 1)

    model = VAE(Mine(), torch.nn.Linear(2, 4), Bernoulli(), latent_dim=2)
    objective, x = Objective(penalties.get("kl")), torch.rand(16, 4)
    objective.check(model, x)
    objective(model, x).loss.backward()
    assert model.encoder.layer.weight.grad is not None


# The objective's parts, schedule and balance


@pytest.mark.parametrize("name", PENALTIES)
def test_per_observation_where_it_exists(name):
    model, objective = VAE.sized((4,), 2), Objective(penalties.get(name))
    terms = objective(model, torch.rand(16, 4))
    assert terms.reconstructions.shape == (16,)
    torch.testing.assert_close(terms.reconstructions.mean(), terms.reconstruction)
    if objective.penalty.estimand == "aggregated":
        assert terms.penalties is None
    else:
        assert terms.penalties.shape == (16,)
        torch.testing.assert_close(terms.penalties.mean(), terms.penalty)


def test_the_weight_warms_up():
    objective = Objective(penalties.get("kl"), weight=2.0, warmup=10)
    assert [objective.weight_at(step) for step in (0, 5, 10, 99, None)] == [0, 1, 2, 2, 2]
    model, x = VAE.sized((4,), 2), torch.rand(16, 4)
    terms = objective(model, x, step=5)
    torch.testing.assert_close(terms.loss, terms.reconstruction + terms.penalty)
    cosine = Objective(penalties.get("kl"), weight=2.0, warmup=lambda step: 0.5 * (1 - np.cos(np.pi * step / 10)))
    assert cosine.weight_at(5) == pytest.approx(1)


@pytest.mark.parametrize("name", [name for name in PENALTIES if name != "none"])
@pytest.mark.parametrize("ratio", [None, 0.25])
def test_balance_sets_the_ratio_of_the_gradients(name, ratio):
    torch.manual_seed(0)
    model, x = VAE.sized((4,), 2).double(), torch.rand(64, 4, dtype=torch.float64)
    objective = Objective(penalties.get(name), weight=ratio)
    objective.check(model, x)
    objective.balance(model, x, generator=torch.Generator().manual_seed(1))
    norms = []
    for part in ("reconstruction", "penalty"):
        model.zero_grad()
        terms = objective(model, x, generator=torch.Generator().manual_seed(1))
        getattr(terms, part).backward()
        norms.append(sum(p.grad.square().sum().item() for p in model.encoder.parameters()) ** 0.5)
    assert objective.weight * norms[1] / norms[0] == pytest.approx(ratio or 1, rel=1e-6)


def test_nothing_to_balance():
    with pytest.raises(ValueError, match=r"balance: the gradients have norms .* \(penalty none\)"):
        Objective(penalties.get("none")).balance(VAE.sized((4,), 2), torch.rand(16, 4))
    held = VAE.sized((4,), 2)
    held.encoder.requires_grad_(False)
    with pytest.raises(ValueError, match=r"balance: the gradients have norms 0 .* 0 \(penalty kl\)"):
        Objective(penalties.get("kl")).balance(held, torch.rand(16, 4))


@pytest.mark.parametrize("factor", [-1.0, float("nan"), float("inf")])
def test_a_schedule_without_a_factor_is_named(factor):
    objective = Objective(penalties.get("kl"), warmup=lambda step: factor)
    with pytest.raises(ValueError, match=rf"^warmup at step 3 is {factor}; expected a finite factor >= 0"):
        objective.weight_at(3)
    assert objective.weight_at(None) == objective.weight


# Bad input


@pytest.mark.parametrize(
    ("change", "penalty", "message"),
    [
        ({"posterior": "deterministic"}, "kl", "posterior is deterministic; the penalty kl"),
        ({"prior": "mixture"}, "gaussian_w2", "prior is EqualMixture; the penalty gaussian_w2"),
        ({"prior": "mixture"}, "cramer_wold", "prior is EqualMixture; the penalty cramer_wold"),
    ],
)
def test_what_does_not_go_together_is_said_before_training(change, penalty, message):
    with pytest.raises(ValueError, match=message):
        Objective(penalties.get(penalty)).check(VAE.sized((4,), 2, **change), torch.rand(8, 4))


def test_what_a_prior_or_posterior_is_made_of_is_said():
    x, cauchy = torch.rand(8, 4), Independent(Cauchy(torch.zeros(2), 1.0), 1)
    sized = VAE.sized((4,), 2)
    model = VAE(sized.encoder, sized.decoder, sized.likelihood, 2, prior=cauchy)
    with pytest.raises(ValueError, match=r"^prior is Independent\(Cauchy\); the penalty gaussian_w2 expects"):
        Objective(penalties.get("gaussian_w2")).check(model, x)


def test_observations_are_tensors():
    with pytest.raises(TypeError, match=r"^x is a ndarray; expected a torch tensor of observations"):
        VAE.sized((4,), 2).encode(np.zeros((3, 4), np.float32))


def test_sizes_that_do_not_go_together():
    sized, x = VAE.sized((4,), 2), torch.rand(8, 4)
    with pytest.raises(ValueError, match=r"prior has event shape \(3,\); expected \(2,\), as latent_dim is 2"):
        VAE(sized.encoder, sized.decoder, sized.likelihood, 2, prior=Independent(Normal(torch.zeros(3), 1.0), 1))
    with pytest.raises(ValueError, match=r"prior has batch shape \(2,\) and event shape \(\)"):
        VAE(sized.encoder, sized.decoder, sized.likelihood, 2, prior=Normal(torch.zeros(2), 1.0))
    other = VAE(sized.encoder, torch.nn.Linear(3, 4), sized.likelihood, latent_dim=3)
    with pytest.raises(ValueError, match=r"prior has event shape \(3,\), and posterior \(2,\)"):
        Objective(penalties.get("kl")).check(other, x)
    other = VAE(sized.encoder, torch.nn.Linear(2, 5), sized.likelihood, latent_dim=2)
    with pytest.raises(ValueError, match=r"decoder gives observations of shape \(5,\); expected \(4,\)"):
        Objective(penalties.get("kl")).check(other, x)
    with pytest.raises(ValueError, match="the bernoulli likelihood expects"):
        Objective(penalties.get("kl")).check(sized, 2 * x)


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
def test_observations_of_another_shape_are_refused_in_any_loop(likelihood):
    """They would be broadcast, and the loss be wrong by a factor."""
    with pytest.raises(ValueError, match=r"decoder gives observations of shape \(1, 8, 8\); expected \(8, 8\)"):
        Objective(penalties.get("kl"))(VAE.sized((1, 8, 8), 2, likelihood), torch.rand(16, 8, 8))


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


@pytest.mark.parametrize("sizes", [64, "64", (8.0, 8.0), None, {64}])
def test_sizes_are_sequences_of_whole_numbers(sizes):
    message = rf"^event_shape is {re.escape(repr(sizes))}; expected a sequence of whole numbers, such as \(64,\)$"
    with pytest.raises(TypeError, match=message):
        VAE.sized(sizes, latent_dim=2)
    if sizes is not None:
        with pytest.raises(TypeError, match=message.replace("event_shape", "widths")):
            VAE.sized((4,), 2, widths=sizes)


@pytest.mark.parametrize("n", [-1, 2.5, "3", True])
def test_a_number_of_samples_is_a_whole_one(n):
    model = VAE.sized((4,), 2)
    with pytest.raises(ValueError, match=rf"^n is {n!r}; expected a whole number >= 0"):
        model.sample(n)
    assert model.sample(0).shape == (0, 4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"network": "rnn"}, "network is 'rnn'; expected one of mlp, conv"),
        ({"network": "conv"}, r"network is 'conv', and observations have shape \(4,\)"),
        ({"posterior": "half"}, "posterior is 'half'; expected one of deterministic, diagonal, full"),
        ({"prior": "cauchy"}, "prior is 'cauchy'; expected one of normal, mixture"),
        ({"prior": "mixture", "components": 0}, "components is 0"),
        ({"scale": 0.1}, "expected a scale with gaussian only"),
        ({"components": 3}, "components is 3 and prior is 'normal'; expected a number of components with mixture only"),
    ],
)
def test_bad_choices(options, message):
    with pytest.raises(ValueError, match=message):
        VAE.sized((4,), 2, **options)


def test_bad_objective():
    for weight in (-1, float("inf"), float("nan")):
        with pytest.raises(ValueError, match=f"weight is {weight}; expected"):
            Objective(penalties.get("kl"), weight=weight)
    with pytest.raises(ValueError, match="x has 1 observations; the penalty Wasserstein needs at least 2"):
        Objective(penalties.get("wasserstein"))(VAE.sized((4,), 2), torch.rand(1, 4))
    for scale in (0, float("inf"), float("nan")):
        with pytest.raises(ValueError, match=f"scale is {scale}; expected a finite standard deviation > 0"):
            Gaussian(scale)
    for penalty in ("kl", penalties.KL):
        with pytest.raises(TypeError, match=r"^penalty is .*; expected a LatentPenalty, such as penalties.get\('kl'\)"):
            Objective(penalty)
    with pytest.raises(TypeError, match=r"^weight is '1'; expected a finite number >= 0"):
        Objective(penalties.get("kl"), weight="1")
    for warmup in (-1, 1.5, True):
        with pytest.raises(ValueError, match="warmup is"):
            Objective(penalties.get("kl"), warmup=warmup)
