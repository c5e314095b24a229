r"""Adam's averages without denormal numbers.

Where a gradient is exactly 0 for good, at a pixel that is always black or a unit that no observation reaches, the
average :math:`m \leftarrow \beta_1 m` decays below the smallest normal number (1e-38 in float32) after some 700 steps
and stays there, as rounding no longer lets it shrink. A processor is many times slower on such numbers: for a
perceptron on Fashion-MNIST one average in five is one, and a step takes half as long again.

Here what is below a million times the smallest normal number is set to 0, often enough that no average gets from there
to below that number: :math:`10^6 \beta_1^n > 1`. A step moves a parameter by lr · m / (√v + ε), so nothing that a
parameter shows is lost: with m = 1e-32 and ε = 1e-8 that is lr · 1e-24, and √v = 1e-16 is less than the rounding of ε.
(The processor can do the same by itself, `torch.set_flush_denormal`, but in each thread on its own, and worker threads
keep what they were started with.)
"""

from __future__ import annotations

import torch
from torch import Tensor

EVERY = 100
"""How many steps apart: 0.9^100 = 3e-5."""


@torch.no_grad()
def drop_denormals(optimizer: torch.optim.Optimizer) -> None:
    """Set Adam's averages to 0 where they are about to become denormal, on a CPU; to be called every 100 steps."""
    for state in optimizer.state.values():
        for name in ("exp_avg", "exp_avg_sq"):
            average = state.get(name)
            if isinstance(average, Tensor) and average.device.type == "cpu":
                least = torch.finfo(average.dtype).tiny * 1e6
                if least < 1e-30:  # half precision has no such room
                    average.masked_fill_(average.abs() < least, 0.0)
