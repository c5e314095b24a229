"""The Fréchet distance of d = 1024 features against torchmetrics' `_compute_fid`: of covariances, and of samples.

From samples the peer is given the covariances by `torch.cov`, so that both do that part.
torchmetrics itself where it is installed, and otherwise the same two torch operations that are all of its formula.
"""

from collections.abc import Iterator

import torch

from otkit.gaussian import frechet_distance, w2_squared
from tests.benchmarks.paired import Row, paired

try:
    from torchmetrics.image.fid import _compute_fid
except ImportError:

    def _compute_fid(m1: torch.Tensor, C1: torch.Tensor, m2: torch.Tensor, C2: torch.Tensor) -> torch.Tensor:
        cross = torch.linalg.eigvals(C1 @ C2).sqrt().real.sum()
        return (m1 - m2).square().sum() + C1.trace() + C2.trace() - 2 * cross


def features(n: int, d: int, seed: int) -> torch.Tensor:
    """Samples whose spectrum falls off as that of a network's features does."""
    generator = torch.Generator().manual_seed(seed)
    scale = torch.logspace(0, -2, d, dtype=torch.float64)
    return torch.randn(n, d, dtype=torch.float64, generator=generator) * scale + 0.01 * seed


def rows() -> Iterator[Row]:
    d = 1024
    x, y = features(4 * d, d, 1), features(4 * d, d, 2)
    moments = [part for samples in (x, y) for part in (samples.mean(0), torch.cov(samples.T))]
    yield from paired(
        f"covariances, d {d}",
        lambda: w2_squared(*moments),
        {"torchmetrics": (lambda: _compute_fid(*moments), 2)},
    )

    def fid() -> torch.Tensor:
        return _compute_fid(x.mean(0), torch.cov(x.T), y.mean(0), torch.cov(y.T))

    yield from paired(
        f"{len(x)} and {len(y)} samples, d {d}",
        lambda: frechet_distance(x, y),
        {"torchmetrics": (fid, 2)},
    )
