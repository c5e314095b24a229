"""POT's Sinkhorn solvers, by their names.

They stop on the L2 error of one marginal, √m times which bounds the L1 error, and look at it only now and then.
They warn in their own words of sums that underflowed: `solve_each` sees to that, before there are threads.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from otkit.empirical._sinkhorn._watch import Watch

METHODS = ("sinkhorn", "sinkhorn_log", "sinkhorn_stabilized", "sinkhorn_epsilon_scaling", "greenkhorn")


def pot_potential(
    M: np.ndarray, a: np.ndarray, b: np.ndarray, reg: float, tol: float, watch: Watch, method: str
) -> np.ndarray:
    """The potential g (m,) of POT's solution for costs (n, m) and positive weights of sum one.

    Raises:
        ValueError: The kernel underflowed.
    """
    import ot  # here, as it takes long to import

    # Greenkhorn's criterion is the largest error of any row or column.
    stop = tol / (len(a) + len(b)) if method == "greenkhorn" else tol / len(b) ** 0.5
    # POT exponentiates potentials on the way.
    with np.errstate(all="ignore"):
        solved: Any = ot.sinkhorn(a, b, M, reg, method, watch.max_iter, stop, log=True, warn=False)
        log: dict[str, Any] = solved[1]
        watch.count(int(log.get("niter", log.get("n_iter", 0))) + 1, np.nan)
        if method == "sinkhorn_log":
            scaled = np.asarray(log["log_v"])
        elif method in ("sinkhorn", "greenkhorn"):
            scaled = np.log(log["v"])
        else:
            scaled = np.asarray(log["beta"]) / reg
        potential = reg * (scaled - np.log(b))
    if not np.isfinite(potential).all():
        raise ValueError(
            f"method is {method!r}, of which the kernel exp(-M/reg) underflows at reg = {reg / M.max():.2g} of the "
            'largest cost; expected method="auto", or a larger reg'
        )
    # A constant in it, which may be far larger than costs, would take digits from the dual.
    return potential - potential.mean()
