"""The numbers of an evaluation against NumPy and SciPy, on the same observations and draws."""

import json
from dataclasses import asdict

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from otkit_vae import VAE, Objective, penalties
from otkit_vae.data import Data
from otkit_vae.evaluation import (
    Augmentation,
    EvaluationOptions,
    Quality,
    Reference,
    evaluate,
    precision_recall,
    quality,
)
from otkit_vae.evaluation._augmentation import Labelled, _subsets
from otkit_vae.sampling import sample


def w2(x, y):
    costs = cdist(x, y, "sqeuclidean")
    return costs[linear_sum_assignment(costs)].mean() ** 0.5


def frechet(mean, cov, other_mean, other_cov):
    return ((mean - other_mean) ** 2).sum() + np.trace(cov + other_cov - 2 * sqrtm(cov @ other_cov).real)


def test_numbers_on_held_out_data():
    torch.manual_seed(0)
    model, x = VAE.sized((4,), 2, "gaussian", [8], posterior="full").double(), 2 * torch.randn(11, 4).double()
    found = evaluate(model, Objective(penalties.get("kl")), x, batch_size=4, seed=3)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        z = torch.cat([sample(model.encode(batch), generator=generator) for batch in x.split([4, 4, 3])])
        y, other, many = (sample(model.prior, 11, generator) for _ in range(3))
        apart = torch.Generator().manual_seed(3)
        drawn = [sample(model.prior, 11, apart).numpy() for _ in range(20)]
        q = model.encode(x)
        z, y, other, many, mean, cov, scale = (
            t.numpy() for t in (z, y, other, many, q.mean, q.covariance_matrix, q.stddev)
        )
        decoded, at_mean = (model.decoder(torch.from_numpy(code)).numpy() for code in (z, mean))
    s = 1e-3 + np.log(2)
    densities = -((x.numpy() - decoded) ** 2).sum(1) / (2 * s**2) - 4 * np.log(s * (2 * np.pi) ** 0.5)
    kl = [(np.trace(c) + m @ m - 2 - np.linalg.slogdet(c)[1]) / 2 for m, c in zip(mean, cov, strict=True)]
    aggregated = mean.mean(0), cov.mean(0) + np.cov(mean.T, ddof=0)
    expected = {
        "reconstruction": -densities.mean(),
        "squared_error": ((x.numpy() - at_mean) ** 2).sum(1).mean(),
        "penalty": np.mean(kl),
        "penalty_null": 0,
        "posterior_scale": scale.mean(),
        "posterior_scale_null": 1,
        "w2": w2(z, y),
        "w2_null": w2(other, y),
        "moments_w2": frechet(*aggregated, np.zeros(2), np.eye(2)) ** 0.5,
        "moments_w2_null": np.mean(
            [frechet(d.mean(0), np.cov(d.T, ddof=0), np.zeros(2), np.eye(2)) ** 0.5 for d in drawn]
        ),
    }
    numbers = vars(found).copy()
    assert numbers.pop("noiseless") == tuple((scale**2).mean(0) ** 0.5 < 0.01 * many.std(0)) == (False, False)
    assert numbers.pop("too_close") == any("too close together" in note for note in found.notes)
    assert numbers == pytest.approx(expected, rel=1e-6)
    closer = [w2(z[k::5], y[k::5]) < w2(other[k::5], y[k::5]) for k in range(5)]
    assert any("too close together" in note for note in found.notes) == (found.w2 < found.w2_null and all(closer))


def test_the_quality_of_samples_and_how_many_its_titles_say(monkeypatch):
    monkeypatch.setattr("otkit_vae.evaluation._distances.LARGEST_EXACT", 7)
    monkeypatch.setattr("otkit_vae.evaluation._samples.LARGEST_EXACT", 7)
    monkeypatch.setattr("otkit_vae.evaluation._samples.LARGEST_SUPPORT", 11)
    rng = np.random.default_rng(0)
    real, narrow = rng.normal(size=(30, 3)), 0.3 * rng.normal(size=(30, 3))
    found = quality(torch.from_numpy(narrow), torch.from_numpy(real))
    assert found.n == 30
    assert found.w2 == pytest.approx(w2(narrow[:7], real[:7]))
    fits = [(x.mean(0), np.cov(x.T)) for x in (narrow, real)]
    assert found.frechet == pytest.approx(frechet(*fits[0], *fits[1]))
    # Samples in the middle of the data are all among them, and few of the data are among the samples.
    assert (found.precision, found.recall) == precision_recall(*(torch.from_numpy(x[:11]) for x in (real, narrow)))
    assert found.precision > found.recall
    null = Quality(30, 0.1, 0.2, 0.3, 0.8, 0.9)
    assert [(m.key, m.title, m.value, m.null, m.better) for m in found.measures("prior", null)] == [
        ("prior_frechet", "Fréchet distance, n = 30", found.frechet, 0.1, "lower"),
        ("prior_w2", "W2, n = 7", found.w2, 0.2, "lower"),
        ("prior_sliced_w2", "sliced W2, n = 30", found.sliced_w2, 0.3, "lower"),
        ("prior_precision", "precision, n = 11", found.precision, 0.8, "higher"),
        ("prior_recall", "recall, n = 11", found.recall, 0.9, "higher"),
    ]


@pytest.mark.parametrize(("n_train", "n_held_out"), [(9, 6), (6, 9)])
def test_training_observations_stand_for_samples_in_the_null_value(n_train, n_held_out):
    rng = np.random.default_rng(0)
    train, held_out = rng.normal(size=(n_train, 2)), 1 + rng.normal(size=(n_held_out, 2))
    found = Reference(Data("some", torch.from_numpy(train), torch.from_numpy(held_out))).null
    assert found.n == 6
    assert found.w2 == pytest.approx(w2(train[:6], held_out[:6]))
    fits = [(x[:6].mean(0), np.cov(x[:6].T)) for x in (train, held_out)]
    assert found.frechet == pytest.approx(frechet(*fits[0], *fits[1]))


def test_options_of_numpy_are_those_that_a_file_has():
    options = EvaluationOptions(importance_samples=np.int64(5), generated_per_class=np.int32(2))
    assert json.loads(json.dumps(asdict(options))) == asdict(EvaluationOptions(5, generated_per_class=2))


def test_no_two_evaluations_share_a_labelled_subset():
    labelled = Labelled(torch.rand(40, 2), torch.arange(40) % 2)
    seeds = [{seed for seed, _ in _subsets(labelled, 2, 3, k)} for k in range(3)]
    assert len(set.union(*seeds)) == 9


def test_accuracies_are_means_with_those_of_real_data_for_null_values():
    (measure,) = Augmentation(10, 30, real=(0.5, 0.7), augmented=(0.8, 0.9)).measures()
    assert (measure.value, measure.null) == pytest.approx((0.85, 0.6))
