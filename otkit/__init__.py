"""Optimal transport for people who compute, verify and train with it.

- `otkit.gaussian`: closed forms between Gaussians.
- `otkit.empirical`: measures given by samples, exact and Sinkhorn, through POT.
- `otkit.distributions`: torch distributions, by their types.
- `otkit.linalg`: matrix functions with exact derivatives.

NumPy in gives NumPy out; torch in gives torch out, with gradients. Leading dimensions are batches.
"""

from otkit import distributions as distributions
from otkit import empirical as empirical
from otkit import gaussian as gaussian
from otkit import linalg as linalg
from otkit._convergence import ConvergenceWarning as ConvergenceWarning
from otkit._wasserstein import wasserstein as wasserstein

__version__ = "0.1.0"

__all__ = ["ConvergenceWarning", "__version__", "distributions", "empirical", "gaussian", "linalg", "wasserstein"]
