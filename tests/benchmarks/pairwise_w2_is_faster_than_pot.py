"""W2² between all pairs of two lists of Gaussians, alone and with the gradients, against POT's crossed form.

Ours is the public call, `otkit.gaussian.pairwise_w2_squared`, validation on.
"""

import warnings
from collections.abc import Iterator

import ot
import torch

from otkit.gaussian import pairwise_w2_squared
from tests.benchmarks.gaussian_w2_is_faster_than_pot import covariances, differentiated
from tests.benchmarks.paired import Row, paired


def pot_squared(m1: torch.Tensor, C1: torch.Tensor, m2: torch.Tensor, C2: torch.Tensor) -> torch.Tensor:
    return ot.gaussian.bures_wasserstein_distance(m1, m2, C1, C2, paired=False) ** 2


def rows() -> Iterator[Row]:
    warnings.simplefilter("ignore")
    n, d = 200, 32
    m1, m2 = torch.randn(2, n, d, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for kind in ("1e2", "1e4"):
        inputs = (m1, covariances(n, d, kind, 1), m2, covariances(n, d, kind, 2))
        yield from paired(
            f"value, {n} x {n}, d {d}, {kind}",
            lambda inputs=inputs: pairwise_w2_squared(*inputs),
            {"POT": (lambda inputs=inputs: pot_squared(*inputs), 4)},
            least=2,
        )
    yield from paired(
        f"value of one list with itself, {n} x {n}, d {d}, 1e2",
        lambda: pairwise_w2_squared(*inputs[:2]),
        {"POT": (lambda: pot_squared(*inputs[:2], *inputs[:2]), 4)},
        least=2,
    )
    n = 100  # POT's graph takes gigabytes
    for kind in ("1e2", "1e4"):
        inputs = (m1[:n], covariances(n, d, kind, 1), m2[:n], covariances(n, d, kind, 2))
        yield from paired(
            f"value and gradients, {n} x {n}, d {d}, {kind}",
            lambda inputs=inputs: differentiated(pairwise_w2_squared, *inputs),
            {"POT": (lambda inputs=inputs: differentiated(pot_squared, *inputs), None)},
            least=2,
        )
