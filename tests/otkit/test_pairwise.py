import itertools
import subprocess
import sys
from types import SimpleNamespace

import joblib
import numpy as np
import pytest
import torch

from otkit import ConvergenceWarning, gaussian, pairwise_distances, pairwise_tiles
from otkit.empirical import max_sliced_wasserstein, sinkhorn_cost, sliced_wasserstein, wasserstein
from otkit.pairwise import _room, _tiles

rng = np.random.default_rng(0)
sets = [rng.normal(size=(n, 2)) + n for n in (3, 5, 4, 6, 3, 7, 5)]


def calls(function):
    """The function, counting its calls."""

    def counted(u, v, **options):
        counted.count += 1
        return function(u, v, **options)

    counted.count = 0
    return counted


def distance_of_means(u, v, power=1.0):
    return float(np.linalg.norm(u.mean(0) - v.mean(0)) ** power)


# Known answers


@pytest.mark.parametrize("tile", [1, 2, 3, 7, 100, None])
def test_every_entry_is_the_distance_of_its_pair(tile):
    matrix = pairwise_distances(sets, p=1, tile=tile)
    assert matrix.shape == (7, 7)
    assert (matrix == matrix.T).all()
    assert (matrix.diagonal() == 0).all()
    expected = [[wasserstein(u, v, 1) for v in sets] for u in sets]
    np.testing.assert_allclose(matrix, expected, rtol=1e-12)
    rectangle = pairwise_distances(sets[:3], sets, p=1, tile=tile)
    np.testing.assert_allclose(rectangle, expected[:3], rtol=1e-12)


def test_weights_stand_beside_their_points():
    weights = [w / w.sum() for w in (rng.random(len(s)) for s in sets)]
    matrix = pairwise_distances([*zip(sets[:2], weights[:2], strict=True), sets[2]])
    assert matrix[0, 1] == pytest.approx(wasserstein(sets[0], sets[1], a=weights[0], b=weights[1]), rel=1e-12)
    assert matrix[2, 1] == pytest.approx(wasserstein(sets[2], sets[1], b=weights[1]), rel=1e-12)


@pytest.mark.parametrize("tile", [2, 5])
def test_gaussians_as_a_batch_or_as_pairs(tile):
    fitted = [gaussian.fit(s) for s in sets]
    loc, cov = (np.stack(part) for part in zip(*fitted, strict=True))
    expected = [[gaussian.w2(*u, *v) for v in fitted] for u in fitted]
    for measures in (fitted, (loc, cov)):
        np.testing.assert_allclose(
            pairwise_distances(measures, distance="gaussian_w2", tile=tile), expected, rtol=1e-12, atol=1e-12
        )
    numbers = [(m.tolist(), C.tolist()) for m, C in fitted]
    np.testing.assert_array_equal(
        pairwise_distances(numbers, distance="gaussian_w2"), pairwise_distances(fitted, distance="gaussian_w2")
    )
    halves = [tuple(torch.tensor(part).half() for part in pair) for pair in fitted]
    assert pairwise_distances(halves, distance="gaussian_w2").dtype == torch.float16
    rectangle = pairwise_distances((loc, cov), (loc[:2], cov[:2]), distance="gaussian_w2", tile=tile)
    np.testing.assert_allclose(rectangle, np.array(expected)[:, :2], rtol=1e-12, atol=1e-12)


def test_sliced_uses_the_same_directions_for_all_pairs_and_jobs():
    matrix = pairwise_distances(sets, distance="sliced_wasserstein", n_projections=20, generator=3, tile=2)
    assert matrix[1, 5] == sliced_wasserstein(sets[1], sets[5], n_projections=20, generator=3)
    again = torch.Generator().manual_seed(3)
    same = pairwise_distances(sets, distance="sliced_wasserstein", n_projections=20, generator=again, tile=7)
    assert (matrix == same).all()
    default = pairwise_distances(sets[:2], distance="sliced_wasserstein")
    assert default[0, 1] == sliced_wasserstein(*sets[:2], generator=0)
    most = pairwise_distances(sets[:2], distance="max_sliced_wasserstein")
    assert default[0, 1] <= most[0, 1] <= wasserstein(*sets[:2])


def test_max_sliced_starts_from_the_directions_of_the_seed():
    # Three starts are of the moments, and one is drawn.
    x, y = np.random.default_rng(2).normal(size=(2, 12, 6))
    for seed in (None, 0, 3):
        matrix = pairwise_distances([x], [y], distance="max_sliced_wasserstein", generator=seed, n_starts=4)
        assert matrix[0, 0] == max_sliced_wasserstein(x, y, generator=seed or 0, n_starts=4), seed


def test_sinkhorn_is_not_zero_on_the_diagonal():
    matrix = pairwise_distances(sets[:3], distance="sinkhorn_cost", reg=1.0)
    np.testing.assert_allclose(matrix.diagonal(), [sinkhorn_cost(s, s, reg=1.0) for s in sets[:3]])


def test_a_function_of_ones_own_is_called_once_a_pair():
    counted = calls(distance_of_means)
    matrix = pairwise_distances(sets, distance=counted, power=2.0, tile=3)
    assert counted.count == 7 * 8 / 2
    assert matrix[2, 6] == distance_of_means(sets[2], sets[6]) ** 2
    assert matrix[6, 2] == matrix[2, 6]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16])
def test_directions_may_be_given_as_the_measures_are(dtype):
    tensors = [torch.tensor(s, dtype=dtype) for s in sets[:3]]
    angles = torch.linspace(0, 3, 5, dtype=torch.float64)
    projections = torch.stack([angles.cos(), angles.sin()], -1).to(dtype)
    options = {"distance": "sliced_wasserstein", "p": 1}
    matrix = pairwise_distances(tensors, projections=projections, **options)
    assert isinstance(matrix, torch.Tensor)
    assert matrix[0, 2] == sliced_wasserstein(tensors[0], tensors[2], 1, projections=projections)
    arrays = [t.numpy() for t in tensors]
    for given in (projections.numpy(), projections.double().tolist()):
        again = pairwise_distances(arrays, projections=given, **options)
        np.testing.assert_array_equal(again, matrix.numpy())
    for other in (projections.numpy(), projections.to(torch.bfloat16)):
        with pytest.raises(TypeError, match="projections"):
            pairwise_distances(tensors, projections=other, **options)


def test_weights_in_half_precision_have_its_rounding():
    x = [np.linspace(0, 1, 300, dtype=np.float16)[:, None], np.ones((1, 1), np.float16)]
    a = np.full(300, 1 / 300, np.float16)
    assert a.sum(dtype=float) != 1
    assert pairwise_distances([(x[0], a), x[1]])[0, 1] == wasserstein(x[0], x[1], a=a)


def test_kinds_and_dtypes_come_back():
    tensors = [torch.tensor(s, dtype=torch.float32) for s in sets]
    matrix = pairwise_distances(tensors)
    assert matrix.dtype == torch.float32
    np.testing.assert_allclose(matrix.numpy(), pairwise_distances(sets), rtol=1e-5)
    half = pairwise_distances([t.half() for t in tensors])
    assert half.dtype == torch.float16


@pytest.mark.parametrize(
    ("distance", "options"),
    [("wasserstein", {"p": 1}), ("sinkhorn_cost", {"reg": 0.5}), ("sinkhorn_cost", {"reg": 50.0})],
)
def test_bounds_certify_each_entry(distance, options, tmp_path):
    found = pairwise_distances(sets, distance=distance, bounds=True, tile=3, **options)
    np.testing.assert_allclose(found["distance"], pairwise_distances(sets, distance=distance, **options), rtol=1e-6)
    exact = pairwise_distances(sets, **options) if distance == "wasserstein" else pairwise_distances(sets) ** 2
    assert (found["lower_bound"] >= 0).all()
    assert (found["lower_bound"] <= exact + 1e-12).all()
    assert (exact <= found["upper_bound"] + 1e-12).all()
    assert found["converged"].all()
    for _ in range(2):
        kept = pairwise_distances(sets, distance=distance, bounds=True, tile=3, out=tmp_path / "d.npy", **options)
        np.testing.assert_array_equal(kept, found)


@pytest.mark.parametrize(("dtype", "far", "near"), [(np.float32, 1e30, 1e-10), (np.float64, 1e300, 1e-200)])
def test_bounds_beside_a_coordinate_that_is_one_number(dtype, far, near):
    """However far it is beyond the others: they are divided by their own extent, and it is not."""
    measures = [np.stack([np.full(len(s), far), near * s[:, 0]], 1).astype(dtype) for s in sets[:3]]
    found = pairwise_distances(measures, bounds=True)
    np.testing.assert_allclose(found["distance"], pairwise_distances([m[:, 1:] for m in measures]), rtol=1e-6)
    np.testing.assert_allclose(found["lower_bound"], found["distance"], rtol=1e-6)
    np.testing.assert_allclose(found["upper_bound"], found["distance"], rtol=1e-6)
    assert found["converged"].all()


def test_bounds_hold_between_masses_that_differ_by_their_rounding():
    x = [np.random.default_rng(k).normal(size=(k, 2)).astype(np.float16) for k in (30, 40, 50)]
    a = [np.random.default_rng(k).dirichlet(np.ones(k)).astype(np.float16) for k in (30, 40, 50)]
    assert len({w.sum(dtype=float) for w in a}) == 3
    found = pairwise_distances(list(zip(x, a, strict=True)), bounds=True)
    np.testing.assert_allclose(found["lower_bound"], found["distance"], rtol=1e-6)
    np.testing.assert_allclose(found["upper_bound"], found["distance"], rtol=1e-6)


@pytest.mark.parametrize(("distance", "options"), [("wasserstein", {"p": 1}), ("sinkhorn_cost", {"reg": 0.5})])
def test_bounds_are_of_the_weights(distance, options):
    measures = [(s, rng.dirichlet(np.ones(len(s)))) for s in sets[:3]]
    found = pairwise_distances(measures, distance=distance, bounds=True, **options)
    np.testing.assert_allclose(found["distance"], pairwise_distances(measures, distance=distance, **options), rtol=1e-6)


@pytest.mark.parametrize("elsewhere", [False, True])
def test_what_does_not_converge_is_heard_of(monkeypatch, elsewhere):
    """In this process or in another one, whose warnings come with its tiles."""
    if elsewhere:
        monkeypatch.setattr(_tiles.os, "getpid", itertools.count().__next__)
    with pytest.warns(ConvergenceWarning, match="raise max_iter or tol"):
        pairwise_distances(sets[:4], distance="sinkhorn_cost", reg=1e-3, max_iter=1, tile=2)


# Tiles


def test_tiles_cover_the_upper_half_once():
    seen = np.zeros((7, 7), int)
    matrix = pairwise_distances(sets)
    for rows, columns, block in pairwise_tiles(sets, tile=3):
        assert rows.start <= columns.start
        assert rows.stop <= 7
        np.testing.assert_allclose(block, matrix[rows, columns])
        seen[rows, columns] += 1
    assert (seen[np.triu_indices(7)] == 1).all()
    assert seen.sum() == 9 + 9 + 3 + 9 + 3 + 1


def test_bad_input_is_found_before_the_first_tile():
    with pytest.raises(ValueError, match="measures is empty"):
        pairwise_tiles([])


def test_progress_counts_tiles(capsys, tmp_path):
    pairwise_distances(sets, tile=4, progress=True)
    assert "3/3" in capsys.readouterr().err
    for _ in range(2):  # those that are in the file already count too
        pairwise_distances(sets, tile=4, progress=True, out=tmp_path / "d.npy")
        assert "3/3" in capsys.readouterr().err


# Jobs


def test_jobs_change_nothing():
    alone = pairwise_distances(sets, tile=3)
    with joblib.parallel_config(backend="threading"):
        assert (pairwise_distances(sets, tile=3, n_jobs=2) == alone).all()
        assert (pairwise_distances(sets, tile=3, n_jobs=np.int64(2)) == alone).all()
        assert (pairwise_distances(sets, tile=3, n_jobs=-1) == alone).all()
    with joblib.parallel_config(backend="threading", n_jobs=2):
        assert (pairwise_distances(sets, tile=3) == alone).all()


def test_processes_in_a_program_of_their_own():
    program = (
        "import numpy as np, otkit\n"
        "if __name__ == '__main__':\n"
        "    x = np.random.default_rng(0).normal(size=(6, 9, 2))\n"
        "    assert (otkit.pairwise_distances(x, n_jobs=2, tile=2) == otkit.pairwise_distances(x)).all()\n"
    )
    done = subprocess.run([sys.executable, "-W", "error::UserWarning", "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_without_joblib_one_process_works_and_two_say_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "joblib", None)
    assert pairwise_distances(sets).shape == (7, 7)
    with pytest.raises(ImportError, match=r'n_jobs=2 needs joblib; install it with: pip install "otkit\[parallel\]"'):
        pairwise_distances(sets, n_jobs=2)
    monkeypatch.setitem(sys.modules, "tqdm", None)
    with pytest.raises(ImportError, match="progress=True needs tqdm"):
        pairwise_distances(sets, progress=True)


def on_a_worker(u, v):
    from distributed import get_worker

    get_worker()  # raises where this is not one
    return distance_of_means(u, v)


def test_a_dask_cluster_takes_over():
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(n_workers=1, threads_per_worker=2, processes=False, dashboard_address=None) as cluster,
        distributed.Client(cluster),
        joblib.parallel_config("dask"),
    ):
        matrix = pairwise_distances(sets, distance=on_a_worker, tile=2)
    assert (matrix == pairwise_distances(sets, distance=distance_of_means)).all()


# Bad input


def test_what_does_not_fit_is_refused_before_the_first_distance(monkeypatch, tmp_path):
    counted = calls(distance_of_means)
    with monkeypatch.context() as patch:
        patch.setattr(_room, "memory", lambda: 8 * 7 * 7 - 1)
        few = [s[:1] for s in sets]
        with pytest.raises(MemoryError, match=r"measures: 7 x 7 distances take .* GiB.* out=, or take pairwise_tiles"):
            pairwise_distances(few, distance=counted)
        assert counted.count == 0
        assert len(list(pairwise_tiles(few, tile=4))) == 3
        for free in (2**30, 0):  # a file that is there already needs no more
            patch.setattr(_room.shutil, "disk_usage", lambda path, free=free: SimpleNamespace(free=free))
            assert pairwise_distances(few, out=tmp_path / "fits.npy").shape == (7, 7)
        patch.setattr(_room, "memory", lambda: sets[3].nbytes - 1)
        with pytest.raises(MemoryError, match=r"others take .* GiB of memory; compute the matrix part by part"):
            pairwise_tiles(few[:1], sets[3:4])
    assert _room.memory() > 2**20
    # A view of one number repeated: three million Gaussians of which the matrix would have 65 TB.
    locs, covs = np.broadcast_to(0.0, (3_000_000, 1)), np.broadcast_to(1.0, (3_000_000, 1, 1))
    with pytest.raises(OSError, match=r"3000000 x 3000000 distances take .* the disk of out = .* has .* left"):
        pairwise_distances((locs, covs), distance="gaussian_w2", out=tmp_path / "large.npy")
    assert not (tmp_path / "large.npy").exists()


half, halves = np.ones((2, 1), np.float16), np.full(2, 0.5, np.float16)
tensors, one = [torch.tensor(s) for s in sets], torch.eye(2, dtype=torch.float64)
sliced = {"distance": "sliced_wasserstein"}


def gaussians(*dimensions):
    return [(np.zeros(d), np.eye(d)) for d in dimensions]


single = tuple(part.astype(np.float32) for part in gaussians(2)[0])
tensor = tuple(map(torch.tensor, gaussians(2)[0]))


@pytest.mark.parametrize(
    ("measures", "options", "error", "message"),
    [
        ([], {}, ValueError, "measures is empty"),
        (3, {}, TypeError, "measures is a int"),
        (sets, {"others": []}, ValueError, "others is empty"),
        (sets, {"distance": "euclidean"}, ValueError, "distance is 'euclidean'; expected a function, or one of wass"),
        (sets, {"distance": 3}, TypeError, "distance is 3"),
        (sets, {"n_jobs": 0}, ValueError, "n_jobs is 0"),
        (sets, {"tile": 0}, ValueError, "tile is 0"),
        (sets, {"p": 0.5}, ValueError, "p is 0.5"),
        ([*sets, np.zeros((3, 3))], {}, ValueError, r"measures\[7\] has dimension 3 but measures\[0\] has 2"),
        ([*sets, np.zeros(3)], {}, ValueError, r"measures\[7\] has shape \(3,\); expected points"),
        (sets, {"others": [np.full((3, 2), np.nan)]}, ValueError, r"others\[0\] must be finite"),
        ([sets[0], (sets[1], np.ones(2))], {}, ValueError, r"the weights of measures\[1\] have shape \(2,\)"),
        ([sets[0], (sets[1], np.ones(5))], {}, ValueError, r"measures\[1\] has mass 5 but measures\[0\] has 1"),
        ([sets[0], (sets[1], 0.1 * np.ones(5))], {}, ValueError, r"measures\[1\] has mass 0.5 but measures\[0\] has 1"),
        (
            [sets[0], (sets[1], np.full(5, 0.2 + 4e-13))],
            {},
            ValueError,
            r"measures\[1\] has mass 1.* but measures\[0\]",
        ),
        ([(half, halves), (half, halves * 1.9)], {}, ValueError, r"measures\[1\] has mass 1.9\d* but measures\[0\]"),
        ([(sets[0], -np.ones(3))], {}, ValueError, r"the weights of measures\[0\] must not be negative"),
        (
            [(sets[0], np.array([2.0, -0.5, -0.5]))],
            {},
            ValueError,
            r"the weights of measures\[0\] must not be negative",
        ),
        ([sets[0], sets[1].astype(np.float32)], {}, TypeError, "measures of one kind and dtype"),
        ([torch.zeros(2, 2, requires_grad=True)], {}, ValueError, r"measures\[0\] requires a gradient"),
        ([(np.zeros(2), -np.eye(2))], {"distance": "gaussian_w2"}, ValueError, "the covariances of measures must be"),
        (np.zeros((3, 2)), {"distance": "gaussian_w2"}, ValueError, "measures has 3 parts"),
        (gaussians(2, 2), {"distance": "gaussian_w2", "others": gaussians(3)}, ValueError, "others has dimension 3"),
        ((np.zeros((3, 2)), np.stack([np.eye(2)] * 2)), {"distance": "gaussian_w2"}, ValueError, "the means of"),
        (sets, {"distance": lambda u, v: "far"}, TypeError, "distance returned 'far' of type str"),
        (sets, {"distance": lambda u, v: np.nan}, ValueError, "distance returned NaN"),
        (sets, {"distance": "sliced_wasserstein", "bounds": True}, ValueError, "bounds are those of wasserstein and"),
        (sets, sliced | {"projections": 2 * np.eye(2)}, ValueError, "projections must have rows of length 1"),
        (sets, sliced | {"projections": np.eye(3)}, ValueError, r"projections has shape \(3, 3\); expected directions"),
        (sets, sliced | {"projections": np.eye(2, dtype=int)}, TypeError, "projections has dtype int64"),
        (tensors, sliced | {"projections": one.requires_grad_()}, ValueError, "projections requires a gradient"),
        (gaussians(2, 3), {"distance": "gaussian_w2"}, ValueError, r"measures\[1\] has parts of shapes \(3,\)"),
        ([*gaussians(2), np.zeros(2)], {"distance": "gaussian_w2"}, ValueError, r"measures\[1\] has parts of shapes"),
        ([*gaussians(2), single], {"distance": "gaussian_w2"}, TypeError, "one kind and dtype expected; got numpy"),
        ([*gaussians(2), tensor], {"distance": "gaussian_w2"}, TypeError, "one kind and dtype expected; got"),
        ([tensor, *gaussians(2)], {"distance": "gaussian_w2"}, TypeError, "one kind and dtype expected; got"),
        ([([0.0], [["far"]])], {"distance": "gaussian_w2"}, TypeError, r"the covariance of measures\[0\] is a list"),
        ([(np.zeros(2),)], {"distance": "gaussian_w2"}, ValueError, r"measures\[0\] has parts of shapes \(2,\)"),
        ([(sets[0], np.full(3, 1e308))], {}, ValueError, r"the weights of measures\[0\] must .* positive, finite"),
        ([(sets[0], np.full(3, 1e-310))], {}, ValueError, r"the weights of measures\[0\] must .* positive, finite"),
        ([np.array([[1.7e308] * 2, [-1.7e308] * 2])], {"bounds": True}, ValueError, "x and y are farther"),
        (sets[:1], {"p": 0.5}, ValueError, "p is 0.5"),
        (sets[:1], {"power": 1}, TypeError, "power"),
        (sets, {"distance": "gaussian_w2", "p": 1}, TypeError, "p: not an option of gaussian_w2"),
    ],
)
def test_bad_input_names_the_measure(measures, options, error, message):
    with pytest.raises(error, match=message):
        pairwise_distances(measures, **options)
