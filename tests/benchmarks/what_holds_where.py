"""What holds where: questions that users of optimal transport have, put to each library that is installed.

An answer is what a few lines found, run here, or "none" where a library's public names have nothing of the kind.
"""

from __future__ import annotations

import importlib
import pkgutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import ot
import torch

from otkit import ConvergenceWarning, empirical, gaussian
from tests.benchmarks.w2_keeps_its_digits_near_coincidence import exactly, ott_bures, pair

LIBRARIES = {"otkit": "otkit", "POT": "ot", "OTT-JAX": "ott", "GeomLoss": "geomloss", "pythae": "pythae"}


@dataclass(frozen=True)
class Answers:
    """A question, and what each library answers."""

    case: str
    answers: dict[str, str]

    HEAD: ClassVar[str] = ""

    def __str__(self) -> str:
        return f"{self.case}\n" + "\n".join(f"    {name:<10}{answer}" for name, answer in self.answers.items())

    def json(self) -> dict[str, object]:
        return asdict(self)


def lacks(library: str, *words: str) -> str:
    """ "none", if no public name of the library's modules has one of the words."""
    package = importlib.import_module(LIBRARIES[library])
    modules = [package.__name__] + [m.name for m in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")]
    for name in modules:
        try:
            found = [n for n in dir(importlib.import_module(name)) if any(w in n.lower() for w in words)]
        except Exception:  # a module that needs what is not there
            continue
        found = [n for n in found if not n.startswith("_")]
        if found:
            raise AssertionError(f"{library} has {found} in {name}")
    return "none"


def off(value: Any, truth: Any) -> str:
    """A relative error in words."""
    value, truth = np.asarray(value, float), np.asarray(truth, float)
    error = np.linalg.norm(value - truth) / np.linalg.norm(truth)
    return "exact" if error == 0 else f"off by {error:.0e}" if np.isfinite(error) else "NaN"


def tried(call: Callable[[], str]) -> str:
    """The answer, or the error that was raised."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return call()
    except ImportError:
        return "not installed"
    except Exception as error:
        return type(error).__name__


def pot_w2_squared(m1, C1, m2, C2):
    return ot.gaussian.bures_wasserstein_distance(m1, m2, C1, C2) ** 2


def value_near_coincidence() -> dict[str, str]:
    inputs = pair(1e2, 1e-10, np.float64)
    truth = [exactly(inputs[1], inputs[3])[0]]
    return {
        "otkit": off([gaussian.w2_squared(*inputs)], truth),
        "POT": off([pot_w2_squared(*inputs)], truth),
        "OTT-JAX": tried(lambda: off([ott_bures()(*inputs)], truth)),
        "GeomLoss": tried(lambda: lacks("GeomLoss", "bures")),
        "pythae": tried(lambda: lacks("pythae", "bures", "wasserstein")),
    }


def gradient_at_equal_covariances() -> dict[str, str]:
    """The gradient in the covariance at N(0, I) and N(m, I), which is 0."""
    d = 4
    zero, one, eye = np.zeros(d), np.ones(d), np.eye(d)

    def torch_gradient(function: Callable) -> str:
        C = torch.eye(d, dtype=torch.float64, requires_grad=True)
        rest = torch.as_tensor(zero), torch.as_tensor(one), torch.as_tensor(eye)
        return size(torch.autograd.grad(function(rest[0], C, rest[1], rest[2]), C)[0])

    def size(gradient: Any) -> str:
        norm = np.linalg.norm(np.asarray(gradient))
        return "0" if norm == 0 else f"{norm:.0e}" if np.isfinite(norm) else "NaN"

    def ott() -> str:
        import jax

        return size(jax.grad(ott_bures(), argnums=1)(zero, eye, one, eye))

    return {"otkit": torch_gradient(gaussian.w2_squared), "POT": torch_gradient(pot_w2_squared), "OTT-JAX": tried(ott)}


def second_derivatives() -> dict[str, str]:
    """Of W2² between N(0, (1 + t) A) and N(0, B) at t = 0: Tr(A^½ B A^½)^½ / 2, as its root scales by (1 + t)^½."""
    _, A, _, B = pair(1e2, 1e-2, np.float64)
    zero = np.zeros(len(A))
    truth = [(np.trace(A) + np.trace(B) - float(exactly(A, B)[0])) / 4]

    def by_torch(function: Callable) -> str:
        t = torch.zeros((), dtype=torch.float64, requires_grad=True)
        A_, B_, loc = (torch.as_tensor(M) for M in (A, B, zero))
        (first,) = torch.autograd.grad(function(loc, (1 + t) * A_, loc, B_), t, create_graph=True)
        return off([torch.autograd.grad(first, t)[0]], truth)

    def ott() -> str:
        import jax

        bures = ott_bures()
        return off([jax.grad(jax.grad(lambda t: bures(zero, (1 + t) * A, zero, B)))(0.0)], truth)

    return {
        "otkit": by_torch(gaussian.w2_squared),
        "POT": tried(lambda: by_torch(pot_w2_squared)),
        "OTT-JAX": tried(ott),
    }


def vmap_and_compile() -> dict[str, str]:
    """W2² of a stack of covariances under vmap, and its gradient in one compiled graph."""
    C1, C2 = (torch.stack([torch.as_tensor(pair(1e2, r, np.float64)[k]) for r in (1, 1e-2)]) for k in (1, 3))
    m = torch.zeros(2, C1.shape[-1], dtype=torch.float64)

    def in_torch(function: Callable) -> str:
        def vmap() -> str:
            mapped = torch.func.vmap(function)(m, C1, m, C2)
            one = torch.stack([function(*g) for g in zip(m, C1, m, C2, strict=True)])
            return "yes" if torch.allclose(mapped, one) else "wrong"

        def compiled() -> str:
            leaf = C1[0].clone().requires_grad_()
            whole = torch.compile(function, fullgraph=True, backend="aot_eager")
            torch.autograd.grad(whole(m[0], leaf, m[0], C2[0]), leaf)
            return "yes"

        return f"{tried(vmap)} / {tried(compiled)}"

    def ott() -> str:
        import jax

        bures, arrays = ott_bures(), [t.numpy() for t in (m, C1, m, C2)]
        mapped = jax.vmap(bures)(*arrays)
        one = [float(bures(*g)) for g in zip(*arrays, strict=True)]
        jax.jit(jax.grad(bures, argnums=1))(*(a[0] for a in arrays))
        return f"{'yes' if np.allclose(mapped, one) else 'wrong'} / yes"

    return {"otkit": in_torch(gaussian.w2_squared), "POT": in_torch(pot_w2_squared), "OTT-JAX": tried(ott)}


def exact_batch() -> dict[str, str]:
    """16 problems of 32 points at once, against one at a time by the network simplex."""
    x, y = np.random.default_rng(0).normal(size=(2, 16, 32, 3))
    a = np.full(32, 1 / 32)
    truth = [ot.emd2(a, a, ot.dist(*one)) for one in zip(x, y, strict=True)]

    def ott() -> str:
        import jax
        from ott.geometry.pointcloud import PointCloud
        from ott.tools.unreg import hungarian

        costs = jax.vmap(lambda u, v: hungarian(PointCloud(u, v))[0])(x, y)
        return off(costs, truth) + ", equally many points only"

    def pot() -> str:
        return off(ot.batch.solve_batch(ot.batch.dist_batch(x, y), reg=None).value_linear, truth)

    return {
        "otkit": off(empirical.transport_cost(x, y), truth),
        "POT": tried(pot),
        "OTT-JAX": tried(ott),
        "GeomLoss": tried(lambda: lacks("GeomLoss", "emd", "exact", "hungarian")),
        "pythae": tried(lambda: lacks("pythae", "emd", "sinkhorn")),
    }


def stopped_early() -> dict[str, str]:
    """Sinkhorn at a small reg, with three iterations."""
    x, y = np.random.default_rng(0).normal(size=(2, 100, 2))
    M, a = ot.dist(x, y), np.full(100, 0.01)

    def warned(call: Callable[[], object], category: type[Warning] = Warning) -> str:
        with warnings.catch_warnings(record=True) as raised:
            warnings.simplefilter("always")
            call()
        return "warns" if any(issubclass(w.category, category) for w in raised) else "is silent"

    def ott() -> str:
        from ott.geometry.geometry import Geometry
        from ott.problems.linear.linear_problem import LinearProblem
        from ott.solvers.linear.sinkhorn import Sinkhorn

        solved = Sinkhorn(max_iterations=3)(LinearProblem(Geometry(cost_matrix=M, epsilon=0.01)))
        return "the result says so" if not bool(solved.converged) else "says it converged"

    def geomloss() -> str:
        return "is silent" if lacks("GeomLoss", "converged", "status") == "none" else "?"

    return {
        "otkit": warned(lambda: empirical.solve(x, y, reg=0.01, max_iter=3), ConvergenceWarning)
        + f", converged={converged(lambda: empirical.solve(x, y, reg=0.01, max_iter=3))}",
        "POT": f"sinkhorn {warned(lambda: ot.sinkhorn(a, a, M, 0.5, numItermax=3))}, "
        f"sinkhorn2 {warned(lambda: ot.sinkhorn2(a, a, M, 0.5, numItermax=3))}, "
        f"solve {warned(lambda: ot.solve(M, a, a, reg=0.5, max_iter=3))}",
        "OTT-JAX": tried(ott),
        "GeomLoss": tried(geomloss),
    }


def converged(call: Callable[[], Any]) -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return bool(call().converged)


def weight_gradients() -> dict[str, str]:
    """Of the entropic value in non-uniform weights, along a change that keeps their sum, against finite differences."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 12, 2))
    a, b = rng.random((2, 12)) + 0.2
    a, b, change = a / a.sum(), b / b.sum(), rng.normal(size=12)
    change -= change.mean()
    M, reg = ot.dist(x, y), 0.5

    def central(value: Callable[[Any], Any], step: float = 1e-5) -> list[float]:
        return [float((value(a + step * change) - value(a - step * change)) / (2 * step))]

    def by_torch(value: Callable[[Any], Any]) -> str:
        leaf = torch.tensor(a, requires_grad=True)
        gradient = torch.autograd.grad(value(leaf), leaf)[0].numpy()
        return off([gradient @ change], central(lambda w: value(torch.as_tensor(w)).item()))

    x_, y_, b_, M_ = (torch.as_tensor(t) for t in (x, y, b, M))

    def pot(grad: str) -> str:
        return by_torch(
            lambda w: ot.solve(M_, w, b_, reg=reg, reg_type="KL", max_iter=20_000, tol=1e-12, grad=grad).value
        )

    def geomloss() -> str:
        from geomloss import SamplesLoss

        loss = SamplesLoss(
            "sinkhorn", p=2, blur=0.5**0.5, scaling=0.99, debias=False, diameter=8.0, backend="tensorized"
        )
        return by_torch(lambda w: loss(w, x_, b_, y_))

    def ott() -> str:
        import jax
        import jax.numpy as jnp
        from ott.geometry.geometry import Geometry
        from ott.problems.linear.linear_problem import LinearProblem
        from ott.solvers.linear.sinkhorn import Sinkhorn

        jax.config.update("jax_enable_x64", True)

        def value(w: Any) -> Any:
            problem = LinearProblem(Geometry(cost_matrix=jnp.asarray(M), epsilon=reg), a=w, b=jnp.asarray(b))
            return Sinkhorn(threshold=1e-10, max_iterations=20_000)(problem).reg_ot_cost

        return off([np.asarray(jax.grad(value)(jnp.asarray(a))) @ change], central(lambda w: value(jnp.asarray(w))))

    return {
        "otkit": by_torch(lambda w: empirical.sinkhorn_cost(x_, y_, reg=reg, a=w, b=b_, tol=1e-12)),
        "POT": f"{tried(lambda: pot('envelope'))} (grad='envelope')",
        "OTT-JAX": tried(ott),
        "GeomLoss": tried(geomloss),
    }


def far_from_the_origin() -> dict[str, str]:
    """float32 points around (1000, ..., 1000): the cost against that of the same points around 0."""
    x, y = np.random.default_rng(0).normal(size=(2, 64, 3)).astype(np.float32)
    x, y = (np.round(t * 1024) / 1024 for t in (x, y))  # so that the translation rounds nothing
    far = tuple((t + 1000).astype(np.float32) for t in (x, y))
    a = np.full(64, 1 / 64)

    def geomloss() -> str:
        from geomloss import SamplesLoss

        loss = SamplesLoss("sinkhorn", p=2, blur=0.05, backend="tensorized")
        one, other = (loss(*(torch.as_tensor(np.float32(t)) for t in pair_)) for pair_ in (far, (x, y)))
        return off([one.item()], [other.item()])

    def ott() -> str:
        import jax.numpy as jnp
        from ott.geometry.pointcloud import PointCloud

        one, other = (PointCloud(*(jnp.asarray(t, "float32") for t in pair_)).cost_matrix for pair_ in (far, (x, y)))
        return f"costs {off(one, other)}"

    near = np.float32(x), np.float32(y)
    return {
        "otkit": off([empirical.transport_cost(*far)], [empirical.transport_cost(*near)]),
        "POT": off([ot.emd2(a, a, ot.dist(*far))], [ot.emd2(a, a, ot.dist(*near))]),
        "OTT-JAX": tried(ott),
        "GeomLoss": tried(geomloss),
    }


def nan_points() -> dict[str, str]:
    """One coordinate of one point is NaN."""
    x, y = np.random.default_rng(0).normal(size=(2, 8, 2))
    x[0, 0] = np.nan
    a = np.full(8, 1 / 8)

    def geomloss() -> str:
        from geomloss import SamplesLoss

        return (
            f"{SamplesLoss('sinkhorn', p=2, diameter=8.0, backend='tensorized')(torch.tensor(x), torch.tensor(y)):.3g}"
        )

    def ott() -> str:
        import jax.numpy as jnp
        from ott.tools.sinkhorn_divergence import sinkdiv

        return f"{sinkdiv(jnp.asarray(x), jnp.asarray(y), epsilon=0.1)[0]:.3g}"

    return {
        "otkit": tried(lambda: f"{empirical.transport_cost(x, y):.3g}"),
        "POT": tried(lambda: f"{ot.emd2(a, a, ot.dist(x, y)):.3g}"),
        "OTT-JAX": tried(ott),
        "GeomLoss": tried(geomloss),
    }


def one_code() -> dict[str, str]:
    """The MMD of a batch of one code, as the last batch of an epoch can be."""

    def pythae() -> str:
        from pythae.models import WAE_MMD, WAE_MMD_Config

        model = WAE_MMD(WAE_MMD_Config(input_dim=(4,), latent_dim=2))
        x, z = torch.rand(1, 4), torch.zeros(1, 2)
        return f"{float(model.loss_function(x, x, z, torch.ones(1, 2))[2]):.3g}"

    def own() -> str:
        from otkit_vae import VAE, Objective, penalties

        return f"{Objective(penalties.get('mmd'))(VAE.sized((2, 2), 2), torch.rand(1, 2, 2)).penalty:.3g}"

    return {"otkit": tried(own), "pythae": tried(pythae)}


def in_processes(rank: int, own: bool, world: int) -> torch.Tensor:
    """The gradient of an MMD in a shift of all codes, averaged over processes as data-parallel training does."""
    torch.manual_seed(0)
    z, y = torch.randn(2, 64, 2)
    part = slice(64 // world * rank, 64 // world * (rank + 1))
    shift = torch.full((2,), 0.5, requires_grad=True)
    z = z[part] + shift
    if own:
        from torch.distributions import Independent, Normal

        from otkit_vae import penalties

        prior = Independent(Normal(torch.zeros(2), torch.ones(2)), 1)
        penalty = penalties.get("mmd", kernel="gaussian")(Independent(Normal(z, 1.0), 1), z, prior)
    else:
        from pythae.models import WAE_MMD, WAE_MMD_Config

        x, model = torch.zeros(len(z), 4), WAE_MMD(WAE_MMD_Config(input_dim=(4,), latent_dim=2))
        penalty = model.loss_function(x, x, z, y[part])[2]
    (gradient,) = torch.autograd.grad(penalty, shift)
    torch.distributed.all_reduce(gradient)
    return gradient / world


def whole_batch() -> dict[str, str]:
    """The gradient of a penalty on two processes, against that of one process with the whole batch."""
    from tests.distributed import two

    def compared(own: bool) -> str:
        found = []
        for world in (1, 2):
            with tempfile.TemporaryDirectory() as folder:
                found.append(two.run(in_processes, Path(folder), own, world, world=world)[0])
        return off(found[1], found[0])

    return {"otkit": tried(lambda: compared(True)), "pythae": tried(lambda: compared(False))}


QUESTIONS: dict[str, Callable[[], dict[str, str]]] = {
    "Gaussian W2² at W2²/Tr 1e-10, condition 1e2": value_near_coincidence,
    "its gradient in Σ at Σ1 = Σ2 = I (which is 0)": gradient_at_equal_covariances,
    "its second derivative": second_derivatives,
    "under vmap / compiled as one graph with its gradient": vmap_and_compile,
    "exact W2² of 16 problems in one call": exact_batch,
    "exact cost of float32 points around 1000": far_from_the_origin,
    "a Sinkhorn that has not converged": stopped_early,
    "gradient of the entropic value in weights": weight_gradients,
    "a point is NaN": nan_points,
    "MMD penalty of a batch of one": one_code,
    "its gradient on two processes, against one": whole_batch,
}


def rows() -> Iterator[Answers]:
    warnings.simplefilter("ignore")
    for case, ask in QUESTIONS.items():
        yield Answers(case, ask())
