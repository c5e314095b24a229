"""Pictures that say something false would not be noticed by anyone who only sees that they are there."""

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from torch.distributions import Categorical, Independent, Normal, StudentT

from otkit_vae import VAE, pictures
from otkit_vae.priors import EqualMixture, FixedPrior


def test_points_at_some_standard_deviations_of_the_prior():
    loc, cov = np.array([1.0, -2.0]), np.array([[4.0, 1.5], [1.5, 1.0]])
    points = pictures.prior_ellipse((loc, cov), 2)
    offsets = points - loc
    assert np.einsum("ni,ij,nj->n", offsets, np.linalg.inv(cov), offsets) == pytest.approx(4.0)
    assert np.abs(offsets).max(0) == pytest.approx([4.0, 2.0], rel=1e-3)
    # On a line, the ends.
    line = pictures.prior_ellipse((np.array([3.0]), np.array([[0.25]])), 2)
    assert (line[:, 0].min(), line[:, 0].max()) == pytest.approx((2.0, 4.0), rel=1e-3)
    assert not line[:, 1].any()


def mixture(d):
    locs = torch.stack([torch.full((d,), 3.0), torch.full((d,), -3.0)])
    parts = Independent(Normal(locs, 1.0), 1)
    return EqualMixture(Categorical(torch.ones(2)), parts)


@pytest.mark.parametrize("d", [1, 2, 5])
@pytest.mark.parametrize(
    ("prior", "variance"),
    [
        (lambda d: Independent(Normal(torch.zeros(d), torch.ones(d)), 1), lambda u: 1.0),
        # The parts are 3 sqrt(d) from the centre, along one direction.
        (mixture, lambda u: 1 + 9 * u.sum() ** 2),
        (lambda d: Independent(StudentT(torch.full((d,), 4.0)), 1), lambda u: 2.0),
    ],
)
def test_the_map_has_the_prior_of_the_model(prior, variance, d, tmp_path, monkeypatch):
    torch.manual_seed(0)
    model = VAE.sized((6,), d, widths=[4])
    model.prior_module = FixedPrior(prior(d))
    x = torch.rand(50, 6)
    drawn = []
    plot = Axes.plot
    monkeypatch.setattr(Axes, "plot", lambda ax, *a, **k: drawn.append(np.stack(a, -1)) or plot(ax, *a, **k))
    pictures.latent_map(model, x, torch.arange(50) % 3 if d == 2 else None, tmp_path / "latent.png")
    assert (tmp_path / "latent.png").stat().st_size > 0
    means = model.encode(x).mean.detach().double()
    main = torch.linalg.svd(means - means.mean(0), full_matrices=False)[2][0]
    axis = torch.eye(2, dtype=torch.float64)[0] if d == 2 else main
    one, two = drawn
    reach = variance(axis.numpy()) ** 0.5
    assert np.abs(one[:, 0]).max() == pytest.approx(reach, rel=1e-3)
    assert np.abs(two[:, 0]).max() == pytest.approx(2 * reach, rel=1e-3)
