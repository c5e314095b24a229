"""Matrix functions with exact derivatives, batched over leading dimensions.

All functions work under `torch.func` transforms (``jacrev(jacrev(f))``, not ``hessian``, which wants forward mode) and
under ``torch.compile(fullgraph=True)``, validation included. Values and gradients compile, second derivatives do not:
from ``torch.compile(jacrev(jacrev(f)))`` torch gives 0 or an error.
"""

from otkit.linalg._polar import polar as polar
from otkit.linalg._square_root import inv_sqrtm as inv_sqrtm
from otkit.linalg._square_root import sqrtm as sqrtm

__all__ = ["inv_sqrtm", "polar", "sqrtm"]
