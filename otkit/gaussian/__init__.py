"""Optimal transport between Gaussians, in closed form."""

from otkit.gaussian._distance import w2 as w2
from otkit.gaussian._distance import w2_squared as w2_squared
from otkit.gaussian._distance import w2_squared_diagonal as w2_squared_diagonal

__all__ = ["w2", "w2_squared", "w2_squared_diagonal"]
