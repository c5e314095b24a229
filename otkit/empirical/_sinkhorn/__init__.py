"""Entropically regularised transport."""

from otkit.empirical._sinkhorn._batch import solve_each as solve_each
from otkit.empirical._sinkhorn._cost import point_gradients as point_gradients
from otkit.empirical._sinkhorn._cost import sinkhorn_cost as sinkhorn_cost
from otkit.empirical._sinkhorn._divergence import sinkhorn_divergence as sinkhorn_divergence
from otkit.empirical._sinkhorn._points import entropic_potentials_of_points as entropic_potentials_of_points
from otkit.empirical._sinkhorn._potentials import MATRICES as MATRICES
from otkit.empirical._sinkhorn._potentials import entropic_potentials as entropic_potentials
from otkit.empirical._sinkhorn._potentials import require_method as require_method
from otkit.empirical._sinkhorn._potentials import require_reg_above_rounding as require_reg_above_rounding
from otkit.empirical._sinkhorn._transform import soft_c_transform as soft_c_transform

__all__ = [
    "MATRICES",
    "entropic_potentials",
    "entropic_potentials_of_points",
    "point_gradients",
    "require_method",
    "require_reg_above_rounding",
    "sinkhorn_cost",
    "sinkhorn_divergence",
    "soft_c_transform",
    "solve_each",
]
