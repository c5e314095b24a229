"""Optimal transport between Gaussians, in closed form."""

from otkit.gaussian._distance import w2 as w2
from otkit.gaussian._distance import w2_squared as w2_squared
from otkit.gaussian._distance import w2_squared_diagonal as w2_squared_diagonal
from otkit.gaussian._factors import w2_squared_from_factors as w2_squared_from_factors
from otkit.gaussian._moments import fit as fit
from otkit.gaussian._moments import frechet_distance as frechet_distance

__all__ = ["fit", "frechet_distance", "w2", "w2_squared", "w2_squared_diagonal", "w2_squared_from_factors"]
