"""The same distances as peers compute them, as functions that the laws can call. What is not installed is left out."""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from otkit import empirical, gaussian


@dataclass(frozen=True)
class Entry:
    """A function of a library, where it is used, and how."""

    library: str
    name: str
    distance: Callable[..., Any]
    on: str
    options: dict[str, Any] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()


def entries() -> Iterator[Entry]:
    """All functions of all libraries that are installed."""
    yield from _otkit()
    for library, found in (("POT", _pot), ("geomloss", _geomloss), ("ott-jax", _ott), ("torchmetrics", _torchmetrics)):
        try:
            importlib.metadata.version(library)
        except importlib.metadata.PackageNotFoundError:
            continue
        yield from found()
    yield from _scipy()


GRADIENT = {"differentiable": True}


# A distance of its own, which is W2 on the line only: held to what it has in common with W2.
SLICED = ("rotation", "translation", "known answers", "bounds", "Gelbrich bound")


def _otkit() -> Iterator[Entry]:
    def sliced(x, y, p):
        return empirical.sliced_wasserstein(x, y, p, n_projections=50, generator=0)

    yield Entry("otkit", "empirical.wasserstein", empirical.wasserstein, "measures", GRADIENT)
    yield Entry(
        "otkit",
        "empirical.wasserstein, lines",
        lambda x, y, p: empirical.wasserstein(x[:, None], y[:, None], p),
        "line",
    )
    yield Entry("otkit", "empirical.sliced_wasserstein, 50 directions", sliced, "points", left_out=SLICED)
    yield Entry("otkit", "gaussian.w2", gaussian.w2, "gaussians", GRADIENT)
    yield Entry("otkit", "gaussian.w2", gaussian.w2, "degenerate gaussians", GRADIENT)


def _pot() -> Iterator[Entry]:
    import ot

    def emd2(x, y, a, b):
        return ot.emd2(a, b, ot.dist(x, y))

    def sinkhorn2(x, y, a, b):
        M = ot.dist(x, y)
        return ot.sinkhorn2(a, b, M, 0.05 * float(M.max()) or 1.0, warn=False) ** 0.5

    def bures(m1, C1, m2, C2):
        return ot.gaussian.bures_wasserstein_distance(m1, m2, C1, C2)

    def line(x, y, p):
        return ot.wasserstein_1d(x, y, p=p) ** (1 / p)

    def sliced(x, y, p):
        return ot.sliced_wasserstein_distance(x, y, p=p, n_projections=50, seed=0)

    yield Entry("POT", "emd2", emd2, "measures", {"power": True, **GRADIENT})
    yield Entry("POT", "sinkhorn2, reg = 0.05 max cost", sinkhorn2, "measures")
    yield Entry("POT", "gaussian.bures_wasserstein_distance", bures, "gaussians", GRADIENT)
    yield Entry("POT", "gaussian.bures_wasserstein_distance", bures, "degenerate gaussians", GRADIENT)
    yield Entry("POT", "wasserstein_1d", line, "line")
    yield Entry("POT", "sliced_wasserstein_distance, 50 directions", sliced, "points", left_out=SLICED)


def _scipy() -> Iterator[Entry]:
    import scipy.linalg
    import scipy.stats

    def line(x, y):
        return scipy.stats.wasserstein_distance(x, y)

    def by_sqrtm(m1, C1, m2, C2):
        """The trace formula as FID codes have it: the real part of the root of a product that is not symmetric."""
        cross = scipy.linalg.sqrtm(C1 @ C2)
        return abs(((m1 - m2) ** 2).sum() + np.trace(C1 + C2 - 2 * np.real(cross))) ** 0.5

    yield Entry("SciPy", "stats.wasserstein_distance", line, "line", {"p": 1})
    yield Entry("SciPy", "linalg.sqrtm(C1 @ C2), as in FID codes", by_sqrtm, "gaussians")
    yield Entry("SciPy", "linalg.sqrtm(C1 @ C2), as in FID codes", by_sqrtm, "degenerate gaussians")


def _geomloss() -> Iterator[Entry]:
    import torch
    from geomloss import SamplesLoss

    # The diameter is given, as the one that it finds is 0 for points that coincide, which it refuses;
    # it and the blur are absolute, so that the law of scaling is not asked of it.
    loss = SamplesLoss("sinkhorn", p=2, blur=1e-2, scaling=0.9, diameter=64.0, backend="tensorized")

    def sinkhorn(x, y, a, b):
        """The cost is ½|x - y|²."""
        return (2 * loss(a, x, b, y)).clamp(min=0) ** 0.5

    yield Entry(
        "GeomLoss", "SamplesLoss, blur = 0.01", sinkhorn, "measures", {"as_array": torch.as_tensor}, ("scaling",)
    )


def _ott() -> Iterator[Entry]:
    import jax

    jax.config.update("jax_enable_x64", True)
    import jax.numpy as jnp
    from ott.geometry import costs

    @functools.cache
    def compiled(d):
        cost = costs.Bures(dimension=d)
        return jax.jit(lambda *packed: jnp.maximum(cost(*packed), 0) ** 0.5)

    def bures(m1, C1, m2, C2):
        return compiled(len(m1))(*(jnp.concatenate([m, C.ravel()]) for m, C in ((m1, C1), (m2, C2))))

    # It raises an IndexError for d = 1.
    options = {"as_array": jnp.asarray, "dimensions": (2, 3)}
    yield Entry("OTT-JAX", "costs.Bures, d > 1", bures, "gaussians", options)
    yield Entry("OTT-JAX", "costs.Bures, d > 1", bures, "degenerate gaussians", options)


def _torchmetrics() -> Iterator[Entry]:
    import torch

    fid = importlib.import_module("torchmetrics.image.fid")

    def frechet(m1, C1, m2, C2):
        return fid._compute_fid(m1, C1, m2, C2).clamp(min=0) ** 0.5

    options = {"as_array": torch.as_tensor}
    yield Entry("torchmetrics", "image.fid", frechet, "gaussians", options)
    yield Entry("torchmetrics", "image.fid", frechet, "degenerate gaussians", options)
