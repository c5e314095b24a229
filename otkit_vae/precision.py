"""Half precision is for networks: codes, densities and penalties take the digits of float32.

Under autocast a network gives numbers of 8 or 11 bits, and so does every product that is taken beside it, of noise or
of distances of codes. Some operations do not exist in half precision at all.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

_nothing = nullcontext()


def single(x: Tensor) -> Tensor:
    """The same numbers in float32, if they are of fewer digits."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def widened(output: Tensor) -> Tensor:
    """What a network gave: under autocast in float32 at least, otherwise in its own dtype."""
    return single(output) if output.itemsize < 4 and torch.is_autocast_enabled(output.device.type) else output


def without_autocast(like: Tensor) -> AbstractContextManager[object]:
    """Within this context, operations on the device of a tensor are in the dtypes of what they are given."""
    device = like.device.type
    return torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else _nothing
