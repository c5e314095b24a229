"""POT's Sinkhorn solvers, by their names.

They stop on the L2 error of one marginal, of which √m times bounds the L1 error, and look at it now and then only.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import ot

from otkit.empirical._sinkhorn._watch import Watch

METHODS = ("sinkhorn", "sinkhorn_log", "sinkhorn_stabilized", "sinkhorn_epsilon_scaling", "greenkhorn")


def pot_potential(
    M: np.ndarray, a: np.ndarray, b: np.ndarray, reg: float, tol: float, watch: Watch, method: str
) -> np.ndarray:
    """The potential g (m,) of POT's solution for costs (n, m) and positive weights of sum one.

    A kernel that underflows gives entries that are not finite.
    """
    stop = tol / len(b) ** 0.5
    # POT exponentiates potentials on the way, and divides by sums that may have underflowed.
    with np.errstate(all="ignore"):
        solved: Any = ot.sinkhorn(a, b, M, reg, method, watch.max_iter, stop, log=True, warn=False)
        log: dict[str, Any] = solved[1]
        watch.count(int(log.get("niter", log.get("n_iter", 0))) + 1, float(np.min(log.get("err", [np.nan])[-1:])))
        if method == "sinkhorn_log":
            scaled = np.asarray(log["log_v"])
        elif method in ("sinkhorn", "greenkhorn"):
            scaled = np.log(log["v"])
        else:
            scaled = np.asarray(log["beta"]) / reg
        return reg * (scaled - np.log(b))
