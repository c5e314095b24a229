"""Optimal transport between measures given by samples, through POT."""

from otkit.empirical._exact import transport_cost as transport_cost
from otkit.empirical._exact import wasserstein as wasserstein
from otkit.empirical._sinkhorn import sinkhorn_cost as sinkhorn_cost

__all__ = ["sinkhorn_cost", "transport_cost", "wasserstein"]
