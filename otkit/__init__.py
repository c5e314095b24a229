"""Optimal transport for people who compute, verify and train with it.

- `otkit.gaussian`: closed forms between Gaussians.
- `otkit.empirical`: measures given by samples, exact and Sinkhorn, through POT.
- `otkit.distributions`: torch distributions, by their types.
- `otkit.pairwise`: matrices of distances, in parallel, resumable.
- `otkit.linalg`: matrix functions with exact derivatives.

NumPy in gives NumPy out; torch in gives torch out, with gradients. Leading dimensions are batches.
"""

from otkit import distributions as distributions
from otkit import empirical as empirical
from otkit import gaussian as gaussian
from otkit import linalg as linalg
from otkit import pairwise as pairwise
from otkit._convergence import ConvergenceWarning as ConvergenceWarning
from otkit._wasserstein import wasserstein as wasserstein
from otkit.pairwise import pairwise_distances as pairwise_distances
from otkit.pairwise import pairwise_tiles as pairwise_tiles

__version__ = "0.1.0"

__all__ = [
    "ConvergenceWarning",
    "__version__",
    "distributions",
    "empirical",
    "gaussian",
    "linalg",
    "pairwise",
    "pairwise_distances",
    "pairwise_tiles",
    "wasserstein",
]
