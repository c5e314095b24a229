"""The Kantorovich problem by a general solver."""

import numpy as np
from scipy.optimize import linprog


def linear_programme(a, b, M):
    """The least cost of moving a (n,) to b (m,) at costs M (n, m), by SciPy's HiGHS."""
    n, m = M.shape
    rows, columns = np.kron(np.eye(n), np.ones(m)), np.kron(np.ones(n), np.eye(m))
    return linprog(M.ravel(), A_eq=np.vstack([rows, columns]), b_eq=np.concatenate([a, b])).fun
