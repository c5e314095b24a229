"""Hypothesis strategies for optimal transport, for our tests and our users'. Needs hypothesis."""

from otkit.testing.strategies import gaussians as gaussians
from otkit.testing.strategies import measures as measures
from otkit.testing.strategies import psd_matrices as psd_matrices
from otkit.testing.strategies import rotations as rotations

__all__ = ["gaussians", "measures", "psd_matrices", "rotations"]
