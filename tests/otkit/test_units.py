"""Units of lengths are powers of two, over all of the range of float64."""

import math

import torch
from torch.overrides import TorchFunctionMode

from otkit._units import power_of_two


def test_is_the_power_of_two_next_below():
    lengths = [5e-324, 1e-310, 2.0**-1022, 0.3, 0.5, 1.0, 3.0, 2.0**1023, math.nextafter(math.inf, 0)]
    expected = [2.0 ** (math.frexp(length)[1] - 1) for length in lengths]
    units = power_of_two(torch.tensor([*lengths, 0.0, math.inf], dtype=torch.float64))
    assert units.tolist() == [*expected, 1.0, 1.0]


def test_computes_with_no_integers():
    """Beside float64, torch.compile turns the exponents of frexp into C++ that does not compile."""
    taken = []

    class Recorded(TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            taken.extend(part.dtype for part in args if isinstance(part, torch.Tensor))
            return function(*args, **(kwargs or {}))

    with Recorded():
        power_of_two(torch.ones(64, dtype=torch.float64))
    assert set(taken) == {torch.float64}
