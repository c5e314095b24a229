"""Optimal transport between Gaussians, in closed form.

All functions work under `torch.func` transforms (``jacrev(jacrev(f))``, not ``hessian``, which wants forward mode) and
under ``torch.compile(fullgraph=True)``, validation included. Values and gradients compile, second derivatives do not:
from ``torch.compile(jacrev(jacrev(f)))`` torch gives 0 or an error.
"""

from otkit.gaussian._barycenter import barycenter as barycenter
from otkit.gaussian._distance import w2 as w2
from otkit.gaussian._distance import w2_squared as w2_squared
from otkit.gaussian._distance import w2_squared_diagonal as w2_squared_diagonal
from otkit.gaussian._entropic import entropic_cost as entropic_cost
from otkit.gaussian._entropic import sinkhorn_divergence as sinkhorn_divergence
from otkit.gaussian._factors import w2_squared_from_factors as w2_squared_from_factors
from otkit.gaussian._geodesic import geodesic as geodesic
from otkit.gaussian._map import transport_map as transport_map
from otkit.gaussian._mixture import mixture_plan as mixture_plan
from otkit.gaussian._mixture import mixture_w2 as mixture_w2
from otkit.gaussian._mixture import mixture_w2_squared as mixture_w2_squared
from otkit.gaussian._moments import fit as fit
from otkit.gaussian._moments import frechet_distance as frechet_distance
from otkit.gaussian._pairwise import pairwise_w2 as pairwise_w2
from otkit.gaussian._pairwise import pairwise_w2_squared as pairwise_w2_squared

__all__ = [
    "barycenter",
    "entropic_cost",
    "fit",
    "frechet_distance",
    "geodesic",
    "mixture_plan",
    "mixture_w2",
    "mixture_w2_squared",
    "pairwise_w2",
    "pairwise_w2_squared",
    "sinkhorn_divergence",
    "transport_map",
    "w2",
    "w2_squared",
    "w2_squared_diagonal",
    "w2_squared_from_factors",
]
