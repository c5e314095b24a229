"""Random weights and covariances, the same for the same seed."""

import numpy as np


def weights(n, seed=0):
    """Weights of sum one, none of them small, with shape (n,)."""
    w = np.random.default_rng(seed).random(n) + 0.1
    return w / w.sum()


def spd(*shape, seed=0):
    """Well-conditioned covariances for a shape (..., d), with shape (..., d, d); the seed may be a generator."""
    d = shape[-1]
    X = np.random.default_rng(seed).normal(size=(*shape, 2 * d))
    return X @ np.swapaxes(X, -1, -2) / (2 * d)
