"""Optimal transport between measures given by samples, through POT."""

from otkit.empirical._exact import transport_cost as transport_cost
from otkit.empirical._exact import wasserstein as wasserstein
from otkit.empirical._quantile import transport_cost_1d as transport_cost_1d
from otkit.empirical._quantile import wasserstein_1d as wasserstein_1d
from otkit.empirical._sinkhorn import sinkhorn_cost as sinkhorn_cost

__all__ = ["sinkhorn_cost", "transport_cost", "transport_cost_1d", "wasserstein", "wasserstein_1d"]
