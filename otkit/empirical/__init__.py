"""Optimal transport between measures given by samples, through POT.

Batches are leading dimensions: ``torch.vmap`` and ``torch.compile(fullgraph=True)`` raise, and compiled functions had
better leave these functions out (``torch.compiler.disable``), as some fail there. `torch.func.grad` works on the line
and for sliced distances, except the max-sliced; the others raise in it, and ``backward()`` gives their gradients.
"""

from otkit.empirical._exact import transport_cost as transport_cost
from otkit.empirical._exact import wasserstein as wasserstein
from otkit.empirical._max_sliced import max_sliced_cost as max_sliced_cost
from otkit.empirical._max_sliced import max_sliced_wasserstein as max_sliced_wasserstein
from otkit.empirical._mean_over_directions import Estimate as Estimate
from otkit.empirical._normal import transport_cost_1d_to_normal as transport_cost_1d_to_normal
from otkit.empirical._normal import wasserstein_1d_to_normal as wasserstein_1d_to_normal
from otkit.empirical._quantile import transport_cost_1d as transport_cost_1d
from otkit.empirical._quantile import wasserstein_1d as wasserstein_1d
from otkit.empirical._sinkhorn import sinkhorn_cost as sinkhorn_cost
from otkit.empirical._sinkhorn import sinkhorn_divergence as sinkhorn_divergence
from otkit.empirical._sliced import sliced_cost as sliced_cost
from otkit.empirical._sliced import sliced_wasserstein as sliced_wasserstein
from otkit.empirical._sliced_normal import sliced_cost_to_normal as sliced_cost_to_normal
from otkit.empirical._sliced_normal import sliced_wasserstein_to_normal as sliced_wasserstein_to_normal
from otkit.empirical._solve import solve as solve
from otkit.empirical._solve import solve_matrix as solve_matrix
from otkit.empirical._transport import Transport as Transport

__all__ = [
    "Estimate",
    "Transport",
    "max_sliced_cost",
    "max_sliced_wasserstein",
    "sinkhorn_cost",
    "sinkhorn_divergence",
    "sliced_cost",
    "sliced_cost_to_normal",
    "sliced_wasserstein",
    "sliced_wasserstein_to_normal",
    "solve",
    "solve_matrix",
    "transport_cost",
    "transport_cost_1d",
    "transport_cost_1d_to_normal",
    "wasserstein",
    "wasserstein_1d",
    "wasserstein_1d_to_normal",
]
