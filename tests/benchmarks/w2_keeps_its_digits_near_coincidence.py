"""Relative errors of W2² between Gaussians, and of its gradient in a covariance, as the two approach each other.

Against 60 digits on the same float inputs: N(0, A) and N(0, CAC) with C = I + X for a small symmetric X, so that C is
the optimal map, d = 8. Peers stand here where they are installed, as their own users would call them. The gradient
I - C shrinks with the distance: an error of one is a gradient of which nothing is right.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import ClassVar

import mpmath
import numpy as np
import ot
import scipy.linalg
import torch

from otkit.gaussian import w2_squared

D = 8
RATIOS = tuple(10.0**-k for k in range(0, 15, 2))
Values = dict[str, Callable[..., float]]
Gradients = dict[str, Callable[..., np.ndarray]]


@dataclass(frozen=True)
class Errors:
    """The relative error of each method in one case; None where it is NaN.

    Attributes:
        case: What was computed, in which dtype, at which condition number and W2² / Tr.
        errors: For each method, |computed / exact - 1|, or the same in the Frobenius norm.
    """

    case: str
    errors: dict[str, float | None]

    HEAD: ClassVar[str] = "relative errors"

    def __str__(self) -> str:
        return f"{self.case:<46}" + "  ".join(
            f"{name} {'NaN' if error is None else f'{error:.1e}'}" for name, error in self.errors.items()
        )

    def json(self) -> dict[str, object]:
        return asdict(self)


def trace_form(m1, C1, m2, C2):
    return w2_squared(m1, C1, m2, C2, method="trace")


def pot(m1, C1, m2, C2):
    return ot.gaussian.bures_wasserstein_distance(m1, m2, C1, C2) ** 2


def scipy_sqrtm(m1, C1, m2, C2):
    return ((m1 - m2) ** 2).sum() + np.trace(C1 + C2 - 2 * np.real(scipy.linalg.sqrtm(C1 @ C2)))


def methods(dtype: type) -> tuple[Values, Gradients]:
    """Functions of NumPy arrays, with the value and with the gradient in the first covariance."""
    values: Values = {"otkit": w2_squared, "trace form": trace_form, "POT": pot, "SciPy sqrtm": scipy_sqrtm}
    gradients: Gradients = {
        "otkit": by_torch(w2_squared),
        "trace form": by_torch(trace_form),
        "POT": by_torch(pot),
    }
    with contextlib.suppress(ImportError):
        from torchmetrics.image.fid import _compute_fid

        values["torchmetrics"] = lambda *g: float(_compute_fid(*map(torch.as_tensor, g)))
        gradients["torchmetrics"] = by_torch(_compute_fid)
    if dtype is np.float32:  # OTT-JAX has one type for all numbers of a process
        return values, gradients
    with contextlib.suppress(ImportError):
        bures = ott_bures()
        import jax

        values["OTT-JAX"] = lambda *g: float(bures(*g))
        gradients["OTT-JAX"] = lambda *g: np.asarray(jax.grad(bures, argnums=1)(*g))
    return values, gradients


def ott_bures() -> Callable:
    """The squared distance of OTT-JAX, as a function of means and covariances."""
    import jax
    import jax.numpy as jnp
    from ott.geometry.costs import Bures

    jax.config.update("jax_enable_x64", True)

    def bures(m1, C1, m2, C2):
        x, y = (jnp.concatenate([jnp.asarray(m), jnp.ravel(C)]) for m, C in ((m1, C1), (m2, C2)))
        return Bures(dimension=len(m1))(x, y)

    return bures


def by_torch(distance_squared: Callable) -> Callable[..., np.ndarray]:
    def gradient(m1, C1, m2, C2):
        leaf = torch.tensor(C1, requires_grad=True)
        value = distance_squared(torch.as_tensor(m1), leaf, torch.as_tensor(m2), torch.as_tensor(C2))
        return torch.autograd.grad(value, leaf)[0].numpy()

    return gradient


def pair(cond: float, ratio: float, dtype: type) -> tuple[np.ndarray, ...]:
    """Two Gaussians with mean 0, and W2² about `ratio` of their traces."""
    rng = np.random.default_rng(int(-np.log10(ratio)))
    Q = np.linalg.qr(rng.normal(size=(D, D)))[0]
    A = (Q * np.geomspace(1, 1 / cond, D)) @ Q.T
    X = rng.normal(size=(D, D))
    X = X @ X.T if ratio > 1e-3 else X + X.T
    X *= np.sqrt(2 * ratio * np.trace(A) / np.trace(X @ A @ X))
    C = np.eye(D) + X
    A, B = (0.5 * (M + M.T).astype(dtype) for M in (A, C @ A @ C))
    return np.zeros(D, dtype), A, np.zeros(D, dtype), B


def exactly(A: np.ndarray, B: np.ndarray) -> tuple[mpmath.mpf, np.ndarray]:
    """W2² = Tr(A + B) - 2 Tr(Lᵀ B L)^½ and its gradient I - L⁻ᵀ (Lᵀ B L)^½ L⁻¹ in A = L Lᵀ, with 60 digits."""
    with mpmath.workdps(60):
        A, B = (mpmath.matrix(M.astype(float).tolist()) for M in (A, B))
        L = mpmath.cholesky(A)
        eigenvalues, V = mpmath.eigsy(L.T * B * L)
        roots = [mpmath.sqrt(e) for e in eigenvalues]
        inverse = mpmath.inverse(L)
        gradient = mpmath.eye(D) - inverse.T * V * mpmath.diag(roots) * V.T * inverse
        return sum(A[i, i] + B[i, i] for i in range(D)) - 2 * sum(roots), np.array(gradient.tolist(), dtype=float)


def power(x: float) -> str:
    return f"1e{round(np.log10(x))}" if x != 1 else "1"


def number(error: object) -> float | None:
    error = float(error)  # pyright: ignore[reportArgumentType]
    return error if np.isfinite(error) else None


def rows() -> Iterator[Errors]:
    warnings.simplefilter("ignore")
    for dtype, conds in ((np.float64, (1e2, 1e4)), (np.float32, (1e2,))):
        values, gradients = methods(dtype)
        for cond in conds:
            for ratio in RATIOS if dtype is np.float64 else RATIOS[:4]:
                inputs = pair(cond, ratio, dtype)
                value, gradient = exactly(inputs[1], inputs[3])
                case = f"{np.dtype(dtype).name}, cond {power(cond)}, W2²/Tr {power(ratio)}"
                yield Errors(f"value, {case}", {k: number(abs(f(*inputs) / value - 1)) for k, f in values.items()})
                norm = np.linalg.norm(gradient)
                yield Errors(
                    f"gradient, {case}",
                    {k: number(np.linalg.norm(f(*inputs) - gradient) / norm) for k, f in gradients.items()},
                )
