"""Pictures that say something false would not be noticed by anyone who only sees that they are there."""

import matplotlib.image
import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from torch.distributions import Categorical, Independent, Normal, StudentT

from otkit_vae import VAE, pictures
from otkit_vae.priors import EqualMixture, FixedPrior
from otkit_vae.report._figures import ellipse


def test_points_at_some_standard_deviations_of_the_prior():
    loc, cov = np.array([1.0, -2.0]), np.array([[4.0, 1.5], [1.5, 1.0]])
    patch = ellipse(loc, cov, 2)
    unit = np.column_stack([np.cos(angles := np.linspace(0, 2 * np.pi, 200)), np.sin(angles)])
    offsets = patch.get_patch_transform().transform(unit) - loc
    assert np.einsum("ni,ij,nj->n", offsets, np.linalg.inv(cov), offsets) == pytest.approx(4.0)
    assert extents(patch) == pytest.approx(np.array([[-3.0, -4.0], [5.0, 0.0]]), abs=1e-4)
    # On a line, the ends.
    assert extents(ellipse(np.array([3.0, 0.0]), np.diag([0.25, 0.0]), 2)) == pytest.approx(
        np.array([[2.0, 0.0], [4.0, 0.0]]), rel=1e-3
    )


def extents(patch):
    """The lower left and the upper right corner around an ellipse, with shape (2, 2)."""
    return patch.get_patch_transform().transform_path(patch.get_path()).get_extents().get_points()


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
    add = Axes.add_patch
    monkeypatch.setattr(Axes, "add_patch", lambda ax, patch: drawn.append(extents(patch)) or add(ax, patch))
    pictures.latent_map(model, x, np.arange(50) % 3 if d == 2 else None, tmp_path / "latent.png")
    assert (tmp_path / "latent.png").stat().st_size > 0
    means = model.encode(x).mean.detach().double()
    main = torch.linalg.svd(means - means.mean(0), full_matrices=False)[2][0]
    axis = torch.eye(2, dtype=torch.float64)[0] if d == 2 else main
    one, two = drawn
    reach = variance(axis.numpy()) ** 0.5
    assert np.abs(one[:, 0]).max() == pytest.approx(reach, rel=1e-3)
    assert np.abs(two[:, 0]).max() == pytest.approx(2 * reach, rel=1e-3)


def test_each_observation_is_in_its_place_on_one_scale(tmp_path, monkeypatch):
    shown = []
    imshow, plot = Axes.imshow, Axes.plot
    monkeypatch.setattr(Axes, "imshow", lambda ax, x, **k: shown.append((x, k["extent"])) or imshow(ax, x, **k))
    monkeypatch.setattr(Axes, "plot", lambda ax, *a, **k: shown.append(a) or plot(ax, *a, **k))
    model = VAE.sized((2, 3), 2)
    x = torch.arange(12.0).reshape(12, 1, 1).expand(12, 2, 3)
    monkeypatch.setattr(model, "reconstruct", lambda x: x - 1)
    pictures.reconstructions(model, x, tmp_path / "a.png")
    ((sheet, extent),) = shown
    # Two rows of ten and their reconstructions, of which the last has two: cells of 2 x 3 and a white pixel.
    assert sheet.shape == (4 * 3, 10 * 4)
    assert extent == (0, 10, 4, 0)
    grey = np.round(255 * (np.arange(-1, 12) + 1) / 12)
    for cell, value in (((0, 0), 1), ((0, 9), 10), ((1, 0), 0), ((1, 9), 9), ((2, 1), 12), ((3, 1), 11)):
        rows, columns = (slice(n * k, n * k + n - 1) for n, k in zip((3, 4), cell, strict=True))
        assert (sheet[rows, columns] == grey[value]).all(), cell
    for white in (sheet[2::3], sheet[:, 3::4], sheet[6:, 8:]):
        assert (white == 255).all()

    del shown[:]
    pictures.side_by_side({"one": torch.tensor([[0.0, 4.0]]), "two": torch.tensor([[2.0, 4.0], [4.0, 0.0]])},
                          tmp_path / "b.png", title="curves")  # fmt: skip
    across, up = (np.array(parts) for parts in zip(*shown, strict=True))
    assert across == pytest.approx(np.array([[0.05, 0.95], [0.05, 0.95], [1.05, 1.95]]))
    assert up == pytest.approx(np.array([[0.95, 0.05], [1.5, 1.05], [1.05, 1.95]]))
    pictures.grid(torch.full((3, 1), 5.0), tmp_path / "c.png", title="numbers")
    assert matplotlib.image.imread(tmp_path / "c.png")[60:, :, :3].min() < 0.7  # a point each


def test_samples_are_those_of_the_seed(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(pictures, "grid", lambda x, *_, **__: drawn.append(x))
    model = VAE.sized((6,), 2, widths=[4])
    pictures.samples(model, tmp_path / "a.png", seed=3)
    assert torch.equal(drawn[0], model.sample(pictures.SAMPLES, generator=torch.Generator().manual_seed(3)))


def test_the_name_of_a_row_is_beside_its_middle(tmp_path, monkeypatch):
    said, text = [], Axes.text
    monkeypatch.setattr(Axes, "text", lambda ax, x, y, name, **k: said.append((y, name)) or text(ax, x, y, name, **k))
    pictures.side_by_side({"one": torch.rand(2, 3), "two": torch.rand(2, 3)}, tmp_path / "a.png", title="")
    assert said == [(0.5, "one"), (1.5, "two")]


def test_names_are_shown_letter_by_letter(tmp_path, monkeypatch):
    names = np.array(["US$_$", "_hidden"])
    legends, legend = [], Axes.legend
    monkeypatch.setattr(Axes, "legend", lambda ax, *a, **k: legends.append(legend(ax, *a, **k)) or legends[-1])
    pictures.latent_map(VAE.sized((6,), 2, widths=[4]), torch.rand(4, 6), names[[1, 0, 0, 1]], tmp_path / "a.png")
    assert [text.get_text() for text in legends[0].get_texts()] == names.tolist()
    pictures.side_by_side({name: torch.rand(2, 3) for name in names}, tmp_path / "b.png", title="")


@pytest.mark.parametrize("length", [8, 12, 30])
def test_long_names_are_not_cut_off(tmp_path, length):
    rows = {"M" * (length if k == 0 else k): torch.rand(12, 28, 28) for k in range(11)}
    pictures.side_by_side(rows, tmp_path / "a.png", title="")
    assert (matplotlib.image.imread(tmp_path / "a.png")[:, :3] == 1).all()
