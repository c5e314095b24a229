"""The result of solving a transport problem: what was found, and how much of it is certain."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic

from otkit._arguments import Array


@dataclass(frozen=True, eq=False)
class Transport(Generic[Array]):
    r"""A solved transport problem, or a batch of them with batch shape (...), in the kind of arrays that came.

    Whatever happened in the solver, the exact (unregularised) cost lies between `lower_bound` and `upper_bound`, up to
    the rounding of their sums: the plan and the potentials are made feasible before the bounds are computed.

    Attributes:
        cost: :math:`\langle P, M \rangle`, with shape (...). Without reg its gradient is that of the exact cost; with
            reg it has no envelope gradient, so that differentiating it raises.
        value: What was minimised, with shape (...): cost without reg, and cost + reg·KL(P | a⊗b) with it, by the
            dual :math:`D(f, g)`, a lower bound of the regularised optimum. It has the envelope gradients. For weights
            of a common sum m other than one, it is m times that of the normalised weights, with reg too.
        plan: The plan P as the solver left it, without derivative: dense, with shape (..., n, m), up to nm = 2048² and
            in batches; beyond, a SciPy or torch sparse COO array where it is exact, and None where it is entropic:
            then :math:`P_{ij} = a_i b_j e^{(f_i + g_j - M_{ij}) / \varepsilon}` for weights of sum one.
        potentials: f, with shape (..., n), and g, with shape (..., m), without derivative; with reg in the convention
            of :math:`a \otimes b`. Only :math:`f_i + g_j` has a meaning: they are centred, with the same mean where
            there is weight.
        lower_bound: The dual value of a feasible pair of potentials, with shape (...).
        upper_bound: The cost of a plan with the right marginals, with shape (...).
        marginal_error: The L1 error of both marginals of the plan, over the mass, with shape (...).
        n_iter: Iterations of Sinkhorn's algorithm, or runs of the network simplex: one where it looks at all arcs, and
            one for each list of arcs otherwise; the largest number in the batch.
        converged: Whether all problems of the batch converged: without reg the two bounds are equal up to rounding,
            with reg the marginal error is at most tol.
    """

    cost: Array
    value: Array
    plan: Any
    potentials: tuple[Array, Array]
    lower_bound: Array
    upper_bound: Array
    marginal_error: Array
    n_iter: int
    converged: bool
