"""Matrix functions with exact derivatives, batched over leading dimensions."""

from otkit.linalg._square_root import sqrtm as sqrtm

__all__ = ["sqrtm"]
