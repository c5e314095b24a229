"""Codes, what is fitted to them, and their measures: known answers."""

import pytest
import torch
from torch.distributions import Independent, Normal

from otkit import ConvergenceWarning
from otkit_vae import VAE
from otkit_vae.evaluation import Codes, active_units, encode, ex_post, fit_classes, fit_mixture, latent, noiseless_units
from otkit_vae.evaluation._distances import sliced_w2
from otkit_vae.sampling import sample


def test_codes_by_batches_are_the_codes():
    torch.manual_seed(0)
    model, x = VAE.sized((4, 4), 3), torch.rand(50, 4, 4)
    codes, parts = encode(model, x), encode(model, x, batch_size=7)
    assert codes.mean.shape == codes.scale.shape == codes.z.shape == (50, 3)
    for whole, part in zip(codes[:2], parts[:2], strict=True):
        assert torch.allclose(whole, part, atol=1e-6)
    assert torch.allclose(codes.mean, model.encode(x).mean)
    assert ((codes.z - codes.mean) / codes.scale).std() == pytest.approx(1, abs=0.2)


def test_active_units_are_those_whose_means_vary_by_more_than_a_hundredth():
    torch.manual_seed(0)
    noise = torch.randn(1000, 4, dtype=torch.float64)
    noise = (noise - noise.mean(0)) / noise.std(0)
    variances = torch.tensor([0.0, 0.0099, 0.0101, 1.0])
    assert active_units(5 + noise * variances.sqrt()).tolist() == [False, False, True, True]


def test_units_without_noise():
    scales = torch.tensor([[1.0, 0.02, 0.015, 0.0, 0.016], [1.0, 0.02, 0.0001, 0.0, 0.0001]])
    prior = torch.tensor([1.0, 1.0, 2.0, 1.0, 1.0])
    # The third: rms 0.0106 against 0.01 · 2. The fourth has never had noise. The last: rms 0.0113, of mean 0.008.
    assert noiseless_units(scales, prior).tolist() == [False, False, True, False, False]


def test_codes_from_the_prior_are_at_the_null_value_and_shifted_ones_are_not():
    generator = torch.Generator().manual_seed(0)
    prior = Independent(Normal(torch.zeros(3), torch.ones(3)), 1)
    z = torch.randn(2000, 3, generator=generator)
    match = latent(Codes(torch.zeros_like(z), torch.ones_like(z), z), prior, generator=generator)
    assert match.sliced_w2 == pytest.approx(match.sliced_w2_null, rel=0.5)
    assert match.active == (False,) * 3
    # A shift by t has the sliced W2 |t| / sqrt(d).
    shifted = latent(Codes(z + 3, torch.full_like(z, 0.001), z + 3), prior, generator=generator)
    assert shifted.sliced_w2 == pytest.approx(3, rel=0.05)
    assert shifted.sliced_w2_null < 0.2
    assert shifted.active == (True,) * 3


def test_the_null_value_of_the_sliced_distance_is_a_mean_that_takes_nothing_from_the_generator():
    prior = Independent(Normal(torch.zeros(2), torch.ones(2)), 1)
    z = torch.zeros(359, 2)
    generators = [torch.Generator().manual_seed(seed) for seed in range(10)]
    found = [latent(Codes(z, z, z), prior, generator=generators[k], seed=k) for k in range(10)]
    # One pair has the mean 0.13 and the standard deviation 0.03, the mean over 20 of them 0.0065.
    nulls = torch.tensor([each.sliced_w2_null for each in found])
    assert nulls.mean() == pytest.approx(0.134, abs=0.01)
    assert nulls.std() < 0.013
    # The generator has been asked for two samples and the directions of two distances.
    generator = torch.Generator().manual_seed(0)
    y, other = sample(prior, 359, generator), sample(prior, 359, generator)
    assert found[0].sliced_w2 == sliced_w2(z, y, generator=generator)
    sliced_w2(other, y, generator=generator)
    assert torch.equal(generator.get_state(), generators[0].get_state())


def test_no_active_unit_is_a_collapse_of_the_posterior():
    prior = Independent(Normal(torch.zeros(2), torch.ones(2)), 1)
    z = torch.randn(100, 2, generator=torch.Generator().manual_seed(0))
    (note,) = latent(Codes(0.01 * z, torch.ones_like(z), z), prior).notes
    assert note.startswith("posterior collapse: no unit is active")
    assert latent(Codes(z * torch.tensor([1.0, 0.0]), torch.ones_like(z), z), prior).notes == ()


def test_a_mixture_finds_its_components():
    generator = torch.Generator().manual_seed(0)
    centres = torch.tensor([[-10.0, 0.0], [10.0, 0.0], [0.0, 20.0]])
    z = (centres + torch.tensor([1.0, 0.5]) * torch.randn(800, 3, 2, generator=generator)).flatten(0, 1)
    mixture = fit_mixture(z, components=3)
    order = mixture.component_distribution.mean[:, 0].argsort()
    assert torch.allclose(mixture.component_distribution.mean[order], centres[[0, 2, 1]], atol=0.15)
    cov = mixture.component_distribution.covariance_matrix
    assert torch.allclose(cov, torch.tensor([1.0, 0.25]).diag().expand(3, 2, 2), atol=0.12)
    assert mixture.sample((5,)).shape == (5, 2)
    assert mixture.sample((5,)).dtype == z.dtype
    assert torch.equal(fit_mixture(z, components=3).component_distribution.mean, mixture.component_distribution.mean)


def test_a_mixture_of_few_or_equal_codes():
    assert fit_mixture(torch.randn(12, 3)).component_distribution.batch_shape == (1,)
    equal = fit_mixture(torch.ones(40, 3))
    assert torch.allclose(equal.sample((5,)), torch.ones(5, 3), atol=0.02)
    with pytest.raises(ValueError, match="z has 1 codes"):
        fit_mixture(torch.ones(1, 3))
    with pytest.raises(ValueError, match="components is 0"):
        fit_mixture(torch.ones(9, 3), components=0)


@pytest.mark.parametrize("scale", [1e-4, 1e7])
def test_what_is_fitted_does_not_depend_on_the_units_of_the_codes(scale):
    # Three groups of twenty codes, two of which lie on a line each: their covariances have rank one.
    z = torch.randn(60, 6, generator=torch.Generator().manual_seed(0)) + torch.arange(3).repeat(20)[:, None] * 9
    z[1::3] = z[1, :] * torch.linspace(-1, 1, 20)[:, None]
    z[2::3] = z[2, :] * torch.linspace(-1, 1, 20)[:, None]
    z, labels = z.double(), torch.arange(60) % 3
    for fit in (
        lambda x: fit_mixture(x, components=3).component_distribution,
        lambda x: fit_classes(x, labels).gaussians,
        lambda x: fit_classes(x[[1, 2, 4, 5]], labels[[1, 2, 4, 5]]).gaussians,  # two codes of each
    ):
        here, there = fit(z), fit(scale * z)
        assert torch.allclose(there.mean / scale, here.mean, rtol=1e-6, atol=1e-6)
        assert torch.allclose(there.covariance_matrix / scale**2, here.covariance_matrix, rtol=1e-6, atol=1e-6)


def test_single_precision_keeps_a_mixture_of_narrow_gaussians():
    # Codes near a line: the ridge is all that the covariance has across it, less than float32 tells from its entries.
    generator = torch.Generator().manual_seed(0)
    z = 30 * torch.randn(400, 1, generator=generator) * torch.ones(8) + 1e-4 * torch.randn(400, 8, generator=generator)
    mixture = fit_mixture(z)
    assert mixture.sample().dtype == torch.float32
    assert bool((mixture.component_distribution.scale_tril.diagonal(dim1=-2, dim2=-1) > 0).all())


def test_a_mixture_says_that_it_did_not_converge(monkeypatch):
    import sklearn.mixture

    real = sklearn.mixture.GaussianMixture
    monkeypatch.setattr(sklearn.mixture, "GaussianMixture", lambda k, **o: real(k, **(o | {"max_iter": 1})))
    torch.manual_seed(0)
    with pytest.warns(ConvergenceWarning, match="take fewer components"):
        fit_mixture(torch.randn(300, 4), components=5)


def test_class_gaussians_have_the_moments_of_their_class():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(3000) % 2 * 7
    z = torch.randn(3000, 2, generator=generator) * torch.where(labels == 7, 2.0, 0.5)[:, None] + labels[:, None]
    fitted = fit_classes(z, labels)
    assert fitted.classes.tolist() == [0, 7]
    drawn, of = fitted.draw(4000, generator=generator)
    assert drawn.shape == (8000, 2)
    for label, scale in ((0, 0.5), (7, 2.0)):
        part = drawn[of == label]
        assert len(part) == 4000
        assert torch.allclose(part.mean(0), torch.full((2,), float(label)), atol=0.15)
        assert torch.allclose(part.std(0), torch.full((2,), scale), rtol=0.1)


def test_class_gaussians_of_two_or_equal_codes_exist_and_of_one_do_not():
    z = torch.tensor([[0.0, 1.0, 2.0], [1.0, 1.0, 0.0], [5.0, 5.0, 5.0], [5.0, 5.0, 5.0]])
    fitted = fit_classes(z, torch.tensor([0, 0, 1, 1]))
    assert bool(torch.isfinite(fitted.gaussians.scale_tril).all())
    assert torch.allclose(fitted.gaussians.mean[1], torch.full((3,), 5.0))
    with pytest.raises(ValueError, match="class 1 has one observation"):
        fit_classes(z[:3], torch.tensor([0, 0, 1]))


def test_an_ex_post_mixture_is_that_of_the_first_codes(monkeypatch):
    torch.manual_seed(0)
    model, x = VAE.sized((4, 4), 3), torch.rand(50, 4, 4)
    monkeypatch.setattr("otkit_vae.evaluation._codes.LARGEST_FIT", 40)
    encoded, encode_ = [], model.encode
    monkeypatch.setattr(model, "encode", lambda x: encoded.append(len(x)) or encode_(x))
    found = ex_post(model, x, seed=3, generator=torch.Generator().manual_seed(1))
    assert sum(encoded) == 40
    expected = fit_mixture(encode(model, x[:40], generator=torch.Generator().manual_seed(1)).z, seed=3)
    assert torch.equal(found.component_distribution.mean, expected.component_distribution.mean)
