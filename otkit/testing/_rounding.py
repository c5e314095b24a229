r"""How far rounding alone can move a distance: where the laws' tolerances come from.

Two things move the computed W. The *data* are rounded: what is compared is the distance between measures that are off
by a rounding, and by the triangle inequality W moves by no more than the distances :math:`\rho` of the two measures to
their rounded selves. Points move by :math:`\rho = \mathrm{eps}\,\max_i |x_i|`. A Gaussian's mean moves by
:math:`\mathrm{eps}\,|m|`, and a covariance that is off by a symmetric E with :math:`\|E\| = \mathrm{eps}\,\|\Sigma\|`
moves the measure by

.. math:: \rho^2 \le \tfrac14 \operatorname{Tr}(E \Sigma^{-1} E) \le
          \tfrac14\, d\, \mathrm{eps}^2\, \|\Sigma\|\, \kappa(\Sigma) , \qquad
          \rho^2 \le \operatorname{Tr} |E| \le d\, \mathrm{eps}\, \|\Sigma\| ,

to leading order, the first for regular covariances and the second for singular ones (where the condition number
:math:`\kappa` exceeds 1/eps); the first is taken without its quarter, so that it runs into the second. And the *sum* is
rounded: the power :math:`W_p^p`, a sum of k terms of the size of :math:`S^p`, comes with an error u = eps·k·S^p, and
its root with

.. math:: (W^p + u)^{1/p} - W ,

which is about :math:`u / (p W^{p-1})` for distances far from zero and :math:`u^{1/p}` at zero: at equal measures a W2
in float64 is known to 1e-8 of the data's size only. k is the number of points of both measures, or the dimension of
Gaussians; S is the size of the data, the longest of the vectors or root mean squares, times two.

An error of ``slack`` times both is granted. A correct textbook algorithm stays below that; one that is more exact
(as `otkit.gaussian` is between near Gaussians) can be held to less.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from otkit.testing._measures import AnyMeasure, Gaussian, points_of

SLACK = 16.0
"""How many of the units below a law grants."""


@dataclass(frozen=True)
class Rounding:
    r"""What rounding does to distances between some measures.

    Attributes:
        data: How far the measures are from their rounded selves, :math:`\rho`, summed over the measures.
        power: The error u of the power.
        p: The exponent.
        slack: The number of units granted.
        eps: The rounding of the arrays.
    """

    data: float
    power: float
    p: float
    slack: float
    eps: float

    def of(self, *distances: float) -> float:
        """The tolerance of a sum of distances W, each with an error of its own."""
        p, u = self.p, self.slack * self.power
        roots = [(abs(w) ** p + u) ** (1 / p) - abs(w) for w in distances]
        # Where |w|^p is far above u the difference of the roots is lost in rounding, which eps covers.
        return sum(roots) + len(distances) * self.slack * self.data + self.slack * self.eps * sum(map(abs, distances))

    def of_powers(self, *distances: float) -> float:
        r"""The tolerance of a sum of powers W^p: :math:`u + p W^{p-1}\rho`, to first order in the second."""
        return sum(
            self.slack * (self.power + self.p * (abs(w) + self.data) ** (self.p - 1) * self.data) for w in distances
        )

    def __str__(self) -> str:
        return (
            f"{self.slack:g} units; a unit is the rounding of the data, {self.data:.1e}, and of a sum of the size of "
            f"W^{self.p:g}, {self.power:.1e}; eps = {self.eps:.1e}"
        )


def rounding(*measures: AnyMeasure, p: float, eps: float, slack: float = SLACK) -> Rounding:
    """The rounding of the distances between these measures."""
    size = 2 * max(_size(measure) for measure in measures)
    terms = sum(len(m.loc) if isinstance(m, Gaussian) else len(points_of(m)) for m in measures)
    return Rounding(sum(_moved(measure, eps) for measure in measures), eps * terms * size**p, p, slack, eps)


def _size(measure: AnyMeasure) -> float:
    if isinstance(measure, Gaussian):
        return float(np.sqrt((measure.loc**2).sum() + np.trace(measure.cov)))
    return float(np.linalg.norm(points_of(measure), axis=1).max())


def _moved(measure: AnyMeasure, eps: float) -> float:
    if not isinstance(measure, Gaussian):
        return eps * _size(measure)
    eigenvalues = np.linalg.eigvalsh(measure.cov)
    largest = max(float(eigenvalues[-1]), 0.0)
    smallest = max(float(eigenvalues[0]), eps * largest)
    # Twice the bound for regular ones: at a condition number of 1/eps it is the sqrt(eps) of a singular covariance.
    spread = eps * np.sqrt(largest / smallest) if largest else 0.0
    return eps * float(np.linalg.norm(measure.loc)) + float(np.sqrt(len(eigenvalues) * largest) * spread)
