"""A matrix in a file, its record, and what is made of both when a computation goes on."""

import functools
import itertools
import json
import warnings

import joblib
import numpy as np
import pytest

from otkit import ConvergenceWarning, gaussian, pairwise_distances
from otkit.pairwise import _tiles

rng = np.random.default_rng(0)
sets = [rng.normal(size=(n, 2)) + n for n in (3, 5, 4, 6, 3, 7, 5)]


def distance_of_means(u, v, power=1.0):
    return float(np.linalg.norm(u.mean(0) - v.mean(0)) ** power)


def interrupted(u, v, after):
    """Distances that stop as by Ctrl-C, while the file of that name counts down."""
    left = int(after.read_text())
    if left == 0:
        raise KeyboardInterrupt
    after.write_text(str(left - 1))
    return distance_of_means(u, v)


def test_interrupted_and_resumed_nothing_is_done_twice(tmp_path):
    out, countdown = tmp_path / "distances.npy", tmp_path / "countdown"
    countdown.write_text("20")
    options = {"distance": interrupted, "after": countdown, "tile": 2, "out": out}
    with pytest.raises(KeyboardInterrupt):
        pairwise_distances(sets, **options)
    partly = np.load(out)
    assert 0 < np.isnan(partly).sum() < partly.size
    finished = len((tmp_path / "distances.npy.tiles").read_text().splitlines()) - 1
    countdown.write_text("100")
    matrix = pairwise_distances(sets, **options)
    np.testing.assert_array_equal(matrix, [[distance_of_means(u, v) for v in sets] for u in sets])
    again = 100 - int(countdown.read_text())
    assert again < 28
    assert finished >= 5
    countdown.write_text("0")
    assert (pairwise_distances(sets, **options) == matrix).all()


@pytest.mark.parametrize("cut", [1, 3, 4, 5])
def test_killed_in_the_middle_of_a_line_of_the_record(tmp_path, cut):
    out = tmp_path / "distances.npy"
    expected = pairwise_distances(sets, tile=2, out=out)
    record = tmp_path / "distances.npy.tiles"
    lines = record.read_text().splitlines()
    record.write_text("\n".join(lines[:4]) + "\n" + lines[4][:cut])
    matrix = np.load(out)
    np.save(out, np.full_like(matrix, np.nan))
    kept = np.load(out)
    for line in lines[1:4]:
        i, j, converged = map(int, line.split())
        assert converged
        for rows, columns in ((i, j), (j, i)):
            kept[rows : rows + 2, columns : columns + 2] = matrix[rows : rows + 2, columns : columns + 2]
    np.save(out, kept)
    for _ in range(2):
        np.testing.assert_array_equal(pairwise_distances(sets, tile=2, out=out), expected)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"measures": [*sets[:-1], sets[-1] + 1e-12]}, "holds distances of other measures"),
        ({"p": 1}, "or of another distance or its options"),
        ({"distance": "sliced_wasserstein"}, "holds distances of other measures, or of another distance"),
        ({"measures": sets[:-1]}, r"with shape \[7, 7\] where this has \[6, 6\]"),
        ({"tile": 3}, "with tile 2 where this has 3"),
        ({"bounds": True}, "with dtype float64 where this has"),
        ({"measures": [s.astype(np.float32) for s in sets]}, "with dtype float64 where this has float32"),
    ],
)
def test_an_out_of_something_else_is_refused(tmp_path, changed, message):
    out = tmp_path / "distances.npy"
    before = pairwise_distances(sets, tile=2, out=out).copy()
    arguments = {"measures": sets, "tile": 2} | changed
    with pytest.raises(ValueError, match=message):
        pairwise_distances(**arguments, out=out)
    assert (np.load(out) == before).all()


def test_the_columns_and_the_covariances_are_part_of_what_is_known(tmp_path):
    loc, cov = np.zeros((3, 1)), np.ones((3, 1, 1))
    for k, (measures, options, others) in enumerate(
        [
            (sets, {"others": sets[:2]}, {"others": sets[1:3]}),
            ((loc, cov), {"distance": "gaussian_w2"}, {"measures": (loc, 4 * cov)}),
        ]
    ):
        arguments = {"measures": measures, "out": tmp_path / f"{k}.npy", **options}
        pairwise_distances(**arguments)
        with pytest.raises(ValueError, match="holds distances of other measures"):
            pairwise_distances(**arguments | others)


def difference_of_sums(u, v):
    return abs(float(np.sum(u)) - float(np.sum(v)))


@pytest.mark.parametrize(
    ("measures", "others", "distance"),
    [
        (
            [np.arange(4.0).reshape(2, 2), np.eye(2)],
            [np.arange(4.0).reshape(4, 1), np.eye(2).reshape(4, 1)],
            "wasserstein",
        ),
        ([[1, 2], [3]], [[1], [2, 3]], difference_of_sums),
    ],
)
def test_the_same_numbers_in_another_shape_are_other_measures(tmp_path, measures, others, distance):
    pairwise_distances(measures, distance=distance, out=tmp_path / "d.npy")
    with pytest.raises(ValueError, match="holds distances of other measures"):
        pairwise_distances(others, distance=distance, out=tmp_path / "d.npy")


def test_an_out_without_a_record_is_not_overwritten(tmp_path):
    np.save(tmp_path / "x.npy", np.ones(3))
    with pytest.raises(ValueError, match=r"x.npy exists without a record x.npy.tiles"):
        pairwise_distances(sets, out=tmp_path / "x.npy")
    assert (np.load(tmp_path / "x.npy") == 1).all()


def test_the_record_does_not_depend_on_the_process(tmp_path):
    """The same measures read again, Gaussians, options in another order, and a function of one's own."""
    x = np.stack([s[:3] for s in sets])
    for k, (measures, options) in enumerate(
        [
            (x, {"p": 1}),
            ([gaussian.fit(s) for s in sets], {"distance": "gaussian_w2"}),
            (x, {"distance": functools.partial(distance_of_means, power=2.0)}),
        ]
    ):
        out = tmp_path / f"{k}.npy"
        first = pairwise_distances(measures, out=out, **options)
        copied = [tuple(p.copy() for p in m) if isinstance(m, tuple) else m.copy() for m in measures]
        assert (pairwise_distances(copied, out=out, **options) == first).all()
        assert json.loads((tmp_path / f"{k}.npy.tiles").read_text().splitlines()[0])["tile"] == 1


@pytest.mark.parametrize(
    "other", ["return 2 * abs(x - y)", "return (lambda: y)()", "return abs(x - y) if x in {1, 2} else 0", "return x"]
)
@pytest.mark.parametrize("kept", [False, True])
def test_a_function_of_the_same_name_with_another_code_is_another(tmp_path, monkeypatch, other, kept):
    def defined(body, power):
        names = {"__name__": __name__}
        exec(f"def changing(x, y, power={power}): {body}", names)
        monkeypatch.setitem(globals(), "changing", names["changing"])  # where it is found by its name
        return functools.partial(names["changing"]) if kept else names["changing"]

    numbers = [float(k) for k in range(3)]
    body = "return abs(x - y) if x in {1, 2, 3} else 1"
    first = pairwise_distances(numbers, distance=defined(body, 1), out=tmp_path / "d.npy")
    again = pairwise_distances(numbers, distance=defined(body + "  # as before", 1), out=tmp_path / "d.npy")
    assert (first == again).all()
    for changed in ((other, 1), (body, 2)):
        with pytest.raises(ValueError, match="of another distance or its options"):
            pairwise_distances(numbers, distance=defined(*changed), out=tmp_path / "d.npy")


def test_a_function_without_a_name_cannot_be_resumed(tmp_path):
    with pytest.raises(ValueError, match="cannot be pickled"):
        pairwise_distances(sets, distance=lambda u, v: 0.0, out=tmp_path / "d.npy")


# What did not converge


def doubtful(u, v):
    """Distances of which those between sets of 5 points do not converge."""
    if len(u) == len(v) == 5:
        warnings.warn("raise max_iter", ConvergenceWarning, stacklevel=2)
    return distance_of_means(u, v)


@pytest.mark.parametrize("where", ["here", "threads", "elsewhere"])
def test_what_did_not_converge_is_recorded_and_heard_of_again(tmp_path, monkeypatch, where):
    out = tmp_path / "d.npy"
    if where == "elsewhere":
        monkeypatch.setattr(_tiles.os, "getpid", itertools.count().__next__)
    options = {"distance": doubtful, "tile": 1, "out": out, "n_jobs": 2 if where == "threads" else None}
    with joblib.parallel_config(backend="threading"):
        with pytest.warns(ConvergenceWarning, match="raise max_iter"):
            pairwise_distances(sets, **options)
        lines = (tmp_path / "d.npy.tiles").read_text().splitlines()[1:]
        assert sorted(line for line in lines if not line.endswith(" 1")) == ["1 1 0", "1 6 0", "6 6 0"]
        assert len(lines) == 28
        with pytest.warns(ConvergenceWarning, match=r"d.npy holds distances that did not converge .*, in 3 of its 28 "):
            pairwise_distances(sets, **options)


def test_another_process_is_heard_of_once_a_tile(monkeypatch):
    monkeypatch.setattr(_tiles.os, "getpid", itertools.count().__next__)
    with pytest.warns(ConvergenceWarning, match="raise max_iter") as heard:
        pairwise_distances(sets, distance=doubtful, tile=7)
    assert len(heard) == 1


def test_what_is_not_shown_is_recorded_all_the_same(tmp_path):
    out = tmp_path / "d.npy"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pairwise_distances(sets[1:2], distance=doubtful, out=out)
    assert (tmp_path / "d.npy.tiles").read_text().endswith("\n0 0 0\n")


# What is not as it was left


@pytest.mark.parametrize("options", [{"p": 0.5}, {"power": 2}, {"distance": "sliced_wasserstein", "n_projections": 0}])
def test_illegal_options_leave_no_file(tmp_path, options):
    with pytest.raises((ValueError, TypeError)):
        pairwise_distances(sets, out=tmp_path / "d.npy", **options)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("first", ["", "{", "[1, 2]", "3", "\0\x81"])
def test_a_damaged_record_is_named(tmp_path, first):
    out, record = tmp_path / "d.npy", tmp_path / "d.npy.tiles"
    pairwise_distances(sets, out=out)
    record.write_text("\n".join([first, *record.read_text().splitlines()[1:]]), encoding="latin-1")
    with pytest.raises(ValueError, match=r"out: .*d.npy.tiles is damaged.*; delete .*d.npy and d.npy.tiles, or choose"):
        pairwise_distances(sets, out=out)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is damaged"),
        (b"\x93NUMPY\x01\0", "is damaged"),
        ("cut", "is damaged"),
        ("other", "is not what d.npy.tiles"),
    ],
)
def test_a_damaged_matrix_is_named(tmp_path, content, message):
    out = tmp_path / "d.npy"
    pairwise_distances(sets, out=out)
    if content == "other":
        np.save(out, np.zeros((8, 8)))
    else:
        out.write_bytes(out.read_bytes()[:-8] if content == "cut" else content)
    with pytest.raises(ValueError, match=rf"out: .*d.npy {message}.*; delete .*d.npy and d.npy.tiles, or choose"):
        pairwise_distances(sets, out=out)


def test_an_option_is_the_same_whatever_its_type(tmp_path):
    before = pairwise_distances(sets, p=2, out=tmp_path / "d.npy").copy()
    for p in (2.0, np.float32(2), np.int64(2)):
        assert (pairwise_distances(sets, p=p, out=tmp_path / "d.npy") == before).all()
