"""Faults of this field, put into a copy of the source one at a time: each must be killed by the tests.

    python -m tests.mutation.field_faults [NAME ...]

A fault is a file, a text that occurs there once, what replaces it, and the tests that are run. A text that does not
occur once is an error, so that the list stays true as the source changes.

One classic is not a fault here: without symmetrisation before the root in the trace form nothing changes but roundings,
since ``eigh`` reads one triangle only and the derivative of the root symmetrises what comes in. That it does is tested;
it makes up for an adjoint of Lyapunov's equation that is not symmetric, too.
"""

# ruff: noqa: E501 (one fault a line)

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]


class Fault(NamedTuple):
    """A fault: what is replaced by what, where, and which tests must notice."""

    file: str
    text: str
    instead: str
    tests: tuple[str, ...]


EXACT = ("tests/otkit/empirical/test_exact.py",)
GAUSSIAN = ("tests/otkit/gaussian/test_distance.py",)
MOMENTS = ("tests/otkit/gaussian/test_moments.py",)
DISTANCE, MOMENTS_FILE = "otkit/gaussian/_distance.py", "otkit/gaussian/_moments.py"
SINKHORN = ("tests/otkit/empirical/test_sinkhorn.py", "tests/otkit/empirical/test_solve.py")
DEBIASED, SOLVE = ("tests/otkit/empirical/test_sinkhorn_divergence.py",), ("tests/otkit/empirical/test_solve.py",)
SINKHORN_FILE, SOLVED = "otkit/empirical/_sinkhorn/_cost.py", "otkit/empirical/_solved.py"
TRANSFORM, DIVERGENCE = (f"otkit/empirical/_sinkhorn/{file}.py" for file in ("_transform", "_divergence"))
ROOTS, POLAR = ("tests/otkit/linalg/test_square_root.py",), ("tests/otkit/linalg/test_polar.py",)
ROOTS_FILE, POLAR_FILE, LYAPUNOV = (f"otkit/linalg/{file}.py" for file in ("_square_root", "_polar", "_lyapunov"))
BURES = "otkit/gaussian/_bures/__init__.py"
LANES = ("tests/otkit/gaussian/test_lanes.py",)
LANES_FILE, TILES, COMPILED = (f"otkit/gaussian/_bures/{file}.py" for file in ("lanes", "tiles", "compiled"))
SINKHORN_STOPS = tuple(f"tests/otkit/empirical/test_sinkhorn_{part}.py" for part in ("potentials", "points"))
WATCH = "otkit/empirical/_sinkhorn/_watch.py"
ROUTES = ("tests/otkit/gaussian/test_routes.py",)
HALLEY, THREADS = (f"otkit/gaussian/_bures/{file}.py" for file in ("halley", "threads"))
PROCESSES, SPLIT_FILE, KL, LIKELIHOODS = (
    f"otkit_vae/{file}.py" for file in ("processes", "penalties/_split", "penalties/kl", "likelihoods")
)
GLOBAL, SPLIT = ("tests/distributed/test_global_batch.py",), ("tests/otkit_vae/penalties/test_split.py",)
FORMULAS, MODEL = ("tests/otkit_vae/penalties/test_formulas.py",), ("tests/otkit_vae/test_model.py",)
SOLVER, ROOT_FILE = "otkit/empirical/_exact.py", "otkit/_root.py"

FAULTS = {
    # otkit.linalg
    "no root": Fault(ROOTS_FILE, "eigenvalues.clamp(min=0).sqrt()", "eigenvalues.clamp(min=0)", ROOTS),
    "float32 cast in the root": Fault(ROOTS_FILE, "torch.linalg.eigh(A)", "(t.to(A) for t in torch.linalg.eigh(A.float()))", ROOTS),
    "a missing symmetrisation of the root": Fault(ROOTS_FILE, "return symmetric(S), s, V", "return S, s, V", ROOTS),
    "a missing symmetrisation of its gradient": Fault(ROOTS_FILE, "symmetric(grad_outputs[0])", "grad_outputs[0]", ROOTS),
    "dropped factor two in Lyapunov's equation": Fault(LYAPUNOV, "s.unsqueeze(-1) + s.unsqueeze(-2)", "s.unsqueeze(-1)", ROOTS),
    "divisions by gaps of eigenvalues": Fault(LYAPUNOV, "s.unsqueeze(-1) + s.unsqueeze(-2)", "s.unsqueeze(-1) - s.unsqueeze(-2)", ROOTS),
    "detached third derivative of the root": Fault(LYAPUNOV, "Y = _Lyapunov.at(S, s, V,", "Y = _Lyapunov.at(S.detach(), s, V,", ROOTS),
    "the sign of the derivative of the inverse": Fault(LYAPUNOV, "@ X @ X - X @ grad @ X", "@ X @ X + X @ grad @ X", ROOTS),
    "a range that does not turn": Fault(LYAPUNOV, "return X @ X @ grad @ N + N.mT @ grad @ X @ X - X @ grad @ X", "return -(X @ grad @ X)", ROOTS),
    "small eigenvalues of few digits inverted": Fault(ROOTS_FILE, "zero=rounding(s, restore.eps) ** 0.5", "zero=rounding(s) ** 0.5", ROOTS),
    "half of the skew part": Fault(POLAR_FILE, "inner - inner.mT", "inner", POLAR),
    "a polar factor that is not completed": Fault(POLAR_FILE, "return U @ Vh, h", "return (U * (h > 1e-9 * h[..., :1]).unsqueeze(-2)) @ Vh, h", POLAR),
    "tall matrices as square ones": Fault(POLAR_FILE, "if M.shape[-2] > M.shape[-1]:", "if False:", POLAR),
    # otkit.gaussian
    "factors by luck of rounding": Fault("otkit/gaussian/_bures/cholesky.py", "return 1 / (16 * d * eps)", "return 1e300", ROUTES),
    "wide factors as they are": Fault("otkit/gaussian/_factors.py", "if min(F.shape[-1], G.shape[-1]) > F.shape[-2]:", "if False:", ("tests/otkit/gaussian/test_transforms.py",)),
    "uniform weights for none": Fault("otkit/empirical/_max_sliced.py", "inputs = (x_, y_, *unless_uniform(a_, b_))", "inputs = (x_, y_, *unless_uniform(a_.detach(), b_.detach()))", ("tests/otkit/empirical/test_max_sliced.py",)),
    "points of weight zero priced one by one": Fault("otkit/empirical/_simplex.py", "costs.within(np.ones(n, dtype=bool), ~columns), f)", "costs.within(rows, ~columns), found.f)", EXACT),
    "dropped factor two in the trace form": Fault(DISTANCE, "- 2 * trace(cross)", "- trace(cross)", GAUSSIAN),
    "a missing root": Fault(DISTANCE, "half @ (C2 / u2 / u2) @ half", "C1 @ (C2 / u2 / u2) @ C1", GAUSSIAN),
    "W2 is W2 squared": Fault(DISTANCE, "restore(root(squared, 2))", "restore(squared)", GAUSSIAN),
    "scales as variances": Fault(DISTANCE, "(s1 - s2).square().sum(-1))", "(s1**2 - s2**2).abs().sum(-1))", GAUSSIAN),
    "the means are forgotten": Fault(DISTANCE, "return m1 - m2, dispersion", "return 0 * (m1 - m2), dispersion", GAUSSIAN),
    "float32 cast": Fault(DISTANCE, "(working_precision(t) for t in (m1, C1, m2, C2))", "(t.float().double() for t in (m1, C1, m2, C2))", GAUSSIAN),
    "detached mean": Fault(DISTANCE, "return m1 - m2,", "return m1 - m2.detach(),", GAUSSIAN),
    "root with an infinite gradient": Fault(ROOT_FILE, "torch.where(zero, torch.ones_like(power), power)", "power", (*GAUSSIAN, *EXACT)),
    "detached covariance": Fault(BURES, "return -(T @ Y @ T), Y, None, None", "return -(T @ Y @ T), torch.zeros_like(Y), None, None", GAUSSIAN),
    "the first half of the map": Fault(BURES, "return -(T @ Y @ T), Y, None, None", "return -Y, Y, None, None", GAUSSIAN),
    "a missing symmetrisation of the second derivative": Fault(BURES, "symmetric(H) @ A_inverse", "H.tril() @ A_inverse", GAUSSIAN),
    "a triangle that starts a tile late": Fault(LANES_FILE, "False, max(i, j), p,", "False, max(i, j) + TILE, p,", LANES),
    "half of a symmetric product": Fault(TILES, "0, p, alpha, beta, out, True)", "0, p, alpha, beta, out, False)", LANES),
    "half of a gradient": Fault(TILES, "j, p, 1.0, 0.0, out, True)", "j, p, 1.0, 0.0, out, False)", LANES),
    "padding that counts": Fault(LANES_FILE, "store(room, L + k * q + k, zero)", "store(room, V + k * q + k, zero)", LANES),
    "the steps of the easiest pair": Fault(LANES_FILE, "lowest[lane] < least", "lowest[lane] > least", LANES),
    "no certificate": Fault(LANES_FILE, "return abs(norm - d) < 1e-13 * d", "return True", LANES),
    "pairs are put off for good": Fault(COMPILED, "runs(rest, threads))", "runs(rest[:0], threads))", LANES),
    "values where others stand": Fault(LANES_FILE, "value[pair] = squares[lane]", "value[start + lane] = squares[lane]", LANES),
    "a pair that missed is added": Fault(LANES_FILE, "wanted[lane] = is_orthogonal(norms[lane], d)\n            value", "value", LANES),
    "a room that remembers the pair before": Fault(HALLEY, "A.array.fill(0)", "pass", ROUTES),
    "a rational step of half the range": Fault(HALLEY, "A.diagonal[...] += 1", "A.diagonal[...] += 2", ROUTES),
    "BLAS that is left on one thread": Fault(THREADS, "_limit.restore_original_limits()", "pass", ROUTES),
    # otkit.empirical
    "detached points": Fault(SOLVER, "- y.reshape(-1, y.shape[-1])[columns]", "- y.detach().reshape(-1, y.shape[-1])[columns]", EXACT),
    "detached weights": Fault(SOLVER, "attach(value, (a, b), (f, g)", "attach(value, (a, b), (f, 0 * g)", EXACT),
    "swapped potentials": Fault(SOLVER, "attach(value, (a, b), (f, g)", "attach(value, (b, a), (f, g)", EXACT),
    "float32 cast of the costs": Fault(SOLVER, "mass * costs).reshape", "mass * costs.float().to(costs)).reshape", EXACT),
    "W is W to the p": Fault(SOLVER, "restore(root(power, p) * length)", "restore(in_units(power, length, p))", EXACT),
    "the length is not raised": Fault(SOLVER, "restore(in_units(power, length, p))", "restore(power * length)", EXACT),
    "swapped weights": Fault("otkit/empirical/_simplex.py", "a, b = a[rows] / total,", "a, b = a[rows][::-1] / total,", EXACT),
    "moments by n - 1": Fault(MOMENTS_FILE, "** 0.5\n", "** 0.5 * 1.01\n", MOMENTS),
    "covariance not centred": Fault(MOMENTS_FILE, "(samples - loc.unsqueeze(-2)).mT", "samples.mT", MOMENTS),
    "the gradient of Sinkhorn's cost without p": Fault(SINKHORN_FILE, "return p * (weight.sum", "return (weight.sum", SINKHORN),
    "a plan without a ⊗ b": Fault(SINKHORN_FILE, ".mul_(a.unsqueeze(-1) * b.unsqueeze(-2))", "", SINKHORN),
    "half of the dual": Fault(SINKHORN_FILE, "return (f * a).sum(-1) + (g * b).sum(-1)", "return (f * a).sum(-1)", SINKHORN),
    "the soft c-transform without weights": Fault(TRANSFORM, "np.log(np.exp(exponents, out=exponents) @ weights)", "np.log(np.exp(exponents, out=exponents).sum(1))", SINKHORN),
    "a halved cost": Fault(SINKHORN_FILE, "M = cost_matrix(x, y, p).numpy(force=True)", "M = 0.5 * cost_matrix(x, y, p).numpy(force=True)", SINKHORN),
    "the mass of Sinkhorn's cost is one": Fault(SINKHORN_FILE, "restore(mass * value)", "restore(value)", SINKHORN),
    "an interruption that is taken for a result": Fault(WATCH, "raise\n", "pass\n", SINKHORN_STOPS),
    "a divergence that is not debiased in y": Fault(DIVERGENCE, "(between - half_x) - half_y", "between - half_x", DEBIASED),
    "a divergence debiased twice": Fault(DIVERGENCE, "value - 0.5 * value.detach()", "value", DEBIASED),
    "the entropy is dropped": Fault(SOLVED, "value=mass * (scale * dual + low)", "value=mass * (scale * rounded.cost + low * rounded.mass)", SOLVE),
    # otkit_vae
    "means over parts of different sizes": Fault(PROCESSES, "len(what.sizes) / sum(what.sizes) * x.sum(0)", "x.mean(0)", GLOBAL),
    "derivatives of one process alone": Fault(PROCESSES, "mine = len(ctx.sizes) * grad_outputs[0]", "mine = grad_outputs[0]", GLOBAL),
    "derivatives of shares that are added up": Fault(PROCESSES, "_total(grad_outputs[0]) / dist.get_world_size()", "_total(grad_outputs[0])", SPLIT),
    "shares that are not scaled": Fault(PROCESSES, "[ranks if k % ranks", "[1 if k % ranks", SPLIT),
    "a process without codes that does not wait": Fault(SPLIT_FILE, "return value if here != [5] else value + 0 * z1.sum()", "return value", SPLIT),
    "self terms of the energy that are halved": Fault(SPLIT_FILE, "2 * [-0.5]", "2 * [-0.25]", FORMULAS),
    "the sign of the entropy": Fault(KL, "- ratios.log()", "+ ratios.log()", FORMULAS),
    "a Bernoulli likelihood that is not normalised": Fault(LIKELIHOODS, "value=-1) + rest", "value=-1)", MODEL),
    "a Gaussian likelihood that is not normalised": Fault(LIKELIHOODS, "log(2 * pi) / 2", "log(2 * pi)", MODEL),
}  # fmt: skip


def passes(tests: tuple[str, ...], fault: Fault | None = None) -> bool:
    """Whether the tests pass on a copy, with the fault if there is one."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        for part in ("otkit", "otkit_vae", "tests", "pyproject.toml", "README.md"):
            source = ROOT / part
            (shutil.copytree if source.is_dir() else shutil.copy)(source, copy / part)
        if fault is not None:
            file = copy / fault.file
            source = file.read_text()
            if source.count(fault.text) != 1:
                raise ValueError(
                    f"{fault.text!r} occurs {source.count(fault.text)} times in {fault.file}; expected once"
                )
            file.write_text(source.replace(fault.text, fault.instead))
        command = [sys.executable, "-m", "pytest", "-n0", "-x", "-q", "-p", "no:cacheprovider", *tests]
        done = subprocess.run(command, cwd=copy, env=os.environ | {"PYTHONPATH": str(copy)}, capture_output=True)
        if done.returncode not in (0, 1):
            raise RuntimeError(f"pytest ended with {done.returncode}:\n{done.stdout.decode()[-2000:]}")
        return done.returncode == 0


def main() -> int:
    """Try the faults that are named, or all; the exit code is the number of survivors."""
    names, survivors = sys.argv[1:] or list(FAULTS), 0
    for tests in dict.fromkeys(FAULTS[name].tests for name in names):
        if not passes(tests):
            raise RuntimeError(f"{', '.join(tests)} fail without a fault")
    for name in names:
        alive = passes(FAULTS[name].tests, FAULTS[name])
        survivors += alive
        print(f"{'SURVIVED' if alive else 'killed  '}  {name} ({FAULTS[name].file})", flush=True)
    print(f"{len(names) - survivors} of {len(names)} killed")
    return survivors


if __name__ == "__main__":
    sys.exit(main())
