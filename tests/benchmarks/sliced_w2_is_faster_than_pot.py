"""Sliced and one-dimensional distances, alone and with gradients, against POT and SciPy on the same directions.

Ours are the public calls, validation on. The others check nothing.
"""

from collections.abc import Iterator

import numpy as np
import ot
import torch
from scipy.stats import wasserstein_distance

from otkit.empirical import sliced_wasserstein, wasserstein_1d
from tests.benchmarks.paired import Row, paired

SIZES = ((128, 128, 8, 500), (1000, 1000, 8, 500), (1000, 700, 8, 500), (10_000, 10_000, 3, 256), (1000, 1000, 64, 256))


def rows() -> Iterator[Row]:
    rng = np.random.default_rng(0)
    for n, m, d, L in SIZES:
        x, y, theta = rng.normal(size=(n, d)), rng.normal(size=(m, d)), rng.normal(size=(L, d))
        theta /= np.linalg.norm(theta, axis=-1, keepdims=True)
        leaf, y_, theta_ = torch.tensor(x, requires_grad=True), torch.tensor(y), torch.tensor(theta)
        case = f"n {n}, m {m}, d {d}, {L} directions"
        yield from paired(
            f"sliced W2, {case}",
            lambda x=x, y=y, theta=theta: sliced_wasserstein(x, y, projections=theta),
            {"POT": (lambda x=x, y=y, t=theta: ot.sliced_wasserstein_distance(x, y, projections=t.T), 1)},
        )
        yield from paired(
            f"and gradient, {case}",
            lambda x=leaf, y=y_, t=theta_: torch.autograd.grad(sliced_wasserstein(x, y, projections=t), x),
            {
                "POT": (
                    lambda x=leaf, y=y_, t=theta_: torch.autograd.grad(
                        ot.sliced_wasserstein_distance(x, y, projections=t.T), x
                    ),
                    1,
                )
            },
        )
    for n, m in ((1_000_000, 1_000_000), (1_000_000, 700_000)):
        x, y, a, b = rng.normal(size=n), rng.normal(size=m), rng.random(n), rng.random(m)
        a, b = a / a.sum(), b / b.sum()
        yield from paired(
            f"W1 on the line, n {n}, m {m}",
            lambda x=x, y=y: wasserstein_1d(x, y, 1),
            {
                "POT": (lambda x=x, y=y: ot.wasserstein_1d(x, y, p=1), 1),
                "SciPy": (lambda x=x, y=y: wasserstein_distance(x, y), 1),
            },
            least=5,
        )
        yield from paired(
            f"W1 on the line with weights, n {n}, m {m}",
            lambda x=x, y=y, a=a, b=b: wasserstein_1d(x, y, 1, a=a, b=b),
            {
                "POT": (lambda x=x, y=y, a=a, b=b: ot.wasserstein_1d(x, y, a, b, p=1), 1),
                "SciPy": (lambda x=x, y=y, a=a, b=b: wasserstein_distance(x, y, a, b), 1),
            },
            least=5,
        )
