"""Matrix functions with exact derivatives, batched over leading dimensions."""

from otkit.linalg._polar import polar as polar
from otkit.linalg._square_root import inv_sqrtm as inv_sqrtm
from otkit.linalg._square_root import sqrtm as sqrtm

__all__ = ["inv_sqrtm", "polar", "sqrtm"]
