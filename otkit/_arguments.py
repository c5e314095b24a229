"""What goes into and comes out of every public function: arrays, their checks, and the way back.

One function per concern. Each error names the argument and says what came and what was expected.
Checks that look at values (``isfinite``, symmetry, sums) can be skipped with ``validate=False``
in the public functions; checks of types and shapes, which cost nothing, always run.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

import numpy as np
import torch
from torch import Tensor

from otkit._operators import checked, value_check

ArrayLike: TypeAlias = np.ndarray | Tensor | Sequence[Any] | float
"""What the functions take: a NumPy array, a torch tensor, or (nested) sequences of numbers."""

Array = TypeVar("Array", np.ndarray, Tensor)

# Tuples, as torch.compile does not trace through unions of types.
NUMPY, ARRAYS, SEQUENCES = (np.ndarray, np.generic), (np.ndarray, Tensor), (list, tuple)
HALF = (torch.float16, torch.bfloat16)
FLOATING = (torch.float64, torch.float32, *HALF)


@dataclass(frozen=True)
class Restore:
    """The way back from a tensor result to the caller's kind of array and dtype.

    Attributes:
        dtype: The dtype that came.
        to_torch: Whether torch came.
    """

    dtype: torch.dtype
    to_torch: bool

    @property
    def eps(self) -> float:
        """The rounding of what came, by which symmetry, definiteness and sums are judged."""
        return torch.finfo(self.dtype).eps

    def __call__(self, result: Tensor) -> Any:
        """The result as the caller wants it."""
        result = result.to(self.dtype)
        if self.to_torch:
            return result
        array = result.numpy()
        # Entries that share memory, as after a broadcast, would be written together.
        return (array.copy() if 0 in array.strides else array)[()]


def as_tensors(*, optional: tuple[str, ...] = (), **named: ArrayLike | None) -> tuple[list[Any], Restore]:
    """Bring named arguments to tensors of one dtype and device, and say how to bring a result back.

    NumPy in gives NumPy out, torch in gives torch out on the same device and in the same dtype. Half
    precision is computed in float32. Numbers, NumPy's included, and sequences take the dtype of the arrays
    beside them; when nothing else came, they count as NumPy arrays, of float64 unless they say another dtype.

    Args:
        optional: The names that may be None, and stay so.
        **named: The arguments.

    Returns:
        The tensors in the order given, and the function from a tensor result to the caller's kind of array.

    Raises:
        TypeError: Integer, complex or boolean arrays; NumPy mixed with torch; mixed dtypes or devices.
    """
    tensors = {name: value for name, value in named.items() if isinstance(value, Tensor)}
    first: Any = next(iter(tensors.values()), None)
    if len(tensors) < len(named):
        arrays = _numpy_arrays(named)
        first = next(iter((tensors or arrays).values()), None)
        if tensors and arrays:
            kinds = {**dict.fromkeys(tensors, "torch"), **dict.fromkeys(arrays, "numpy")}
            listed = ", ".join(f"{name}: {kinds[name]}" for name in named if name in kinds)
            raise TypeError(f"arrays of one kind expected, all NumPy or all torch; got {listed}")
        for name, value in named.items():
            if name in arrays:
                tensors[name] = _from_numpy(name, arrays[name])
            elif value is None and name not in optional:
                raise TypeError(f"{name} is None; expected a NumPy array, a torch tensor or sequences of numbers")
    require_one_dtype_and_device(tensors)
    for name, value in named.items():
        if value is not None and name not in tensors:
            tensors[name] = _from_sequence(name, value, like=first)

    restore = Restore(next(iter(tensors.values())).dtype, isinstance(first, Tensor))
    if restore.dtype in HALF:
        tensors = {name: tensor.float() for name, tensor in tensors.items()}
    return [tensors.get(name) for name in named], restore


def _numpy_arrays(named: dict[str, Any]) -> dict[str, np.ndarray | np.generic]:
    """The NumPy arrays and numbers; beside arrays, floating-point numbers count as Python's and are left out."""
    alone = not any(isinstance(value, ARRAYS) for value in named.values())
    return {
        name: value
        for name, value in named.items()
        if isinstance(value, NUMPY) and (alone or not isinstance(value, np.floating))
    }


def _from_numpy(name: str, value: np.ndarray | np.generic) -> Tensor:
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{name} is a masked array; expected one without a mask (drop or fill the masked entries)")
    array = np.asarray(value)
    if array.dtype.type not in (np.float64, np.float32, np.float16):
        raise TypeError(
            f"{name} has dtype {array.dtype}; expected float64 or float32 (convert with {name}.astype(float))"
        )
    # A copy where torch cannot share the memory: read-only, off its grid, backwards or of foreign byte order.
    strange = any(stride < 0 or stride % array.itemsize for stride in array.strides)
    if strange or not array.flags.behaved or not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="), copy=True, order="C")
    return torch.from_numpy(array)


def _from_sequence(name: str, value: Any, *, like: Any) -> Tensor:
    if _holds_tensors(value):
        raise TypeError(
            f"{name} is a {type(value).__name__} of torch tensors; expected one tensor (torch.stack({name}))"
        )
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"{name} is a {type(value).__name__} that does not convert to an array of numbers ({error}); "
            "expected a NumPy array, a torch tensor or sequences of numbers"
        ) from None
    if like is None:
        return torch.from_numpy(array)
    if isinstance(like, Tensor):
        return torch.as_tensor(array, dtype=like.dtype, device=like.device)
    return _from_numpy(name, array.astype(like.dtype))


def _holds_tensors(value: Any) -> bool:
    return isinstance(value, SEQUENCES) and any(isinstance(part, Tensor) or _holds_tensors(part) for part in value)


def require_one_dtype_and_device(tensors: dict[str, Tensor]) -> None:
    """Raise unless named tensors are dense, floating point, and of one dtype and one device."""
    reference = None
    for name, tensor in tensors.items():
        if tensor.layout != torch.strided:
            raise TypeError(f"{name} has layout {tensor.layout}; expected a dense tensor ({name}.to_dense())")
        if tensor.dtype not in FLOATING:
            raise TypeError(
                f"{name} has dtype {tensor.dtype}; expected float64 or float32 (convert with {name}.double())"
            )
        reference = reference or name
        first = tensors[reference]
        for what, mine, theirs in (("dtype", tensor.dtype, first.dtype), ("device", tensor.device, first.device)):
            if mine != theirs:
                raise TypeError(
                    f"{name} has {what} {mine} but {reference} has {what} {theirs}; expected the same {what}"
                )


def working_precision(tensor: Tensor) -> Tensor:
    """The tensor in float64, in which distances are computed."""
    return tensor.double()


def shape(tensor: Tensor) -> str:
    """The shape as it stands in messages, ``(3, 2)``."""
    return str(tuple(tensor.shape))


@value_check
def require_finite(name: str, tensor: Tensor, eps: float = 0.0) -> None:
    """Raise if any entry is NaN or infinite, and name the first one; eps, which other checks need, plays no part."""
    # One sum tells whether all are finite, unless it overflows.
    if math.isfinite(tensor.detach().sum().item()):
        return
    finite = torch.isfinite(tensor)
    if not bool(finite.all()):
        bad = (~finite).nonzero()
        first = tuple(bad[0].tolist())
        raise ValueError(
            f"{name} must be finite; got {len(bad)} entries that are NaN or infinite of {tensor.numel()}, "
            f"the first {tensor[first].item()} at index {first}"
        )


def checked_finite(name: str, tensor: Tensor) -> Tensor:
    """The tensor, known to be finite; the check also works inside `torch.func` transforms and ``torch.compile``."""
    return checked(require_finite, name, tensor)


def require_broadcast(**named: tuple[int, ...]) -> torch.Size:
    """The broadcast of named batch shapes."""
    first, *others = named.values()
    if all(other == first for other in others):
        return torch.Size(first)  # torch takes its time even where there is nothing to do
    try:
        return torch.broadcast_shapes(*named.values())
    except RuntimeError:
        listed = ", ".join(f"{name}: {tuple(value)}" for name, value in named.items())
        raise ValueError(f"batch shapes do not broadcast; got {listed}") from None


def require_exponent(p: float) -> float:
    """Return p as a float if W_p is a distance that is computed here: 1 <= p < inf."""
    if isinstance(p, bool) or not isinstance(p, int | float | np.number):
        raise TypeError(f"p is {p!r} of type {type(p).__name__}; expected a number p >= 1")
    if not 1 <= p < math.inf:
        raise ValueError(f"p is {p}; expected 1 <= p < inf (for p < 1 and p = inf W_p is another problem)")
    return float(p)


def require_positive(name: str, value: float) -> float:
    """Return value as a float if it is a finite number > 0."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.number):
        raise TypeError(f"{name} is {value!r} of type {type(value).__name__}; expected a number > 0")
    if not 0 < value < math.inf:
        raise ValueError(f"{name} is {value}; expected a finite number > 0")
    return float(value)


def require_count(name: str, value: Any, least: int = 1) -> int:
    """Return value as an int if it is a whole number >= least."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise ValueError(f"{name} is {value!r}; expected a whole number >= {least}")
    return int(value)


def require_square(name: str, matrix: Tensor) -> int:
    """Return d if the shape is (..., d, d) with d >= 1."""
    if matrix.ndim < 2 or matrix.shape[-1] != matrix.shape[-2] or matrix.shape[-1] == 0:
        raise ValueError(f"{name} has shape {shape(matrix)}; expected square matrices (..., d, d) with d >= 1")
    return matrix.shape[-1]


def allowance(n: int, eps: float) -> float:
    """The relative error that n roundings by eps may make: n·eps, and never more than half of the digits."""
    return min(n * eps, eps**0.5)


@value_check
def require_nonnegative_spectrum(name: str, eigenvalues: Tensor, eps: float) -> None:
    """Raise if eigenvalues (..., d), in ascending order, are negative beyond `allowance(64 d)` of the largest."""
    if eigenvalues.numel() == 0:
        return
    least = eigenvalues.amin(-1)
    largest = eigenvalues.abs().amax(-1)
    allowed = allowance(64 * eigenvalues.shape[-1], eps) * largest
    if bool((least < -allowed).any()):
        at = index_in_batch((least + allowed).argmin(), least)
        raise ValueError(
            f"{name} must be positive semidefinite; got a smallest eigenvalue of "
            f"{least[at].item():.6g} beside a largest of {largest[at].item():.6g}{of_batch(at)}"
        )


def index_in_batch(flat: Tensor, batch: Tensor) -> tuple[int, ...]:
    """Where in a batch (...) a flat index points."""
    return tuple(int(i) for i in np.unravel_index(int(flat), batch.shape))


def of_batch(at: tuple[int, ...]) -> str:
    """Which matrix it is, for an error; nothing where there is but one."""
    return f", in matrix {at} of the batch" if at else ""
