import csv
import json
import subprocess
import sys
import warnings

import numpy as np
import pytest

import otkit as package
from otkit import ConvergenceWarning, cli, gaussian, pairwise_distances
from otkit.cli import main
from otkit.empirical import sinkhorn_cost, sliced_wasserstein, wasserstein
from otkit.empirical._directions import random_directions


def output(capsys, *arguments):
    status = main(list(arguments))
    out, err = capsys.readouterr()
    assert (status, err) == (0, "")
    return out


def process(folder, *arguments):
    return subprocess.run(
        [sys.executable, "-m", "otkit.cli", *arguments], cwd=folder, capture_output=True, text=True, check=False
    )


# otkit distance


def test_prints_one_number_in_a_process(files, arrays):
    x, y, *_ = arrays
    done = process(files, "distance", "x.npy", "y.npy", "--p", "1")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1
    assert float(done.stdout) == wasserstein(x, y, 1)


@pytest.mark.parametrize("file", ["y.npy", "y.csv", "named.csv", "excel.csv", "one.npz", "data.npz:codes"])
def test_every_kind_of_file(arrays, capsys, file):
    assert float(output(capsys, "distance", "x.npy", file)) == wasserstein(*arrays[:2])


def test_weights_are_files_or_names(arrays, capsys):
    x, y, a, b = arrays
    np.savetxt("a.csv", a, fmt="%.18g")
    expected = wasserstein(x, y, a=a, b=b)
    for one in ("a.npy", "a.csv"):
        for other in ("mass", "data.npz:mass"):
            assert float(output(capsys, "distance", "x.npy", "data.npz:codes", "--a", one, "--b", other)) == expected


def test_of_a_file_and_an_array_of_one_name_the_file_is_taken(arrays, capsys):
    x, y, _, b = arrays
    np.save("b.npy", b)
    np.savez("both.npz", **{"codes": y, "b.npy": np.full(9, 1 / 9)})
    assert float(output(capsys, "distance", "x.npy", "both.npz:codes", "--b", "b.npy")) == wasserstein(x, y, b=b)


def test_methods(arrays, capsys):
    x, y, a, b = arrays
    weights = ("--a", "a.npy", "--b", "data.npz:mass")

    def report(*arguments):
        said = json.loads(output(capsys, "distance", "x.npy", "y.npy", *arguments, "--json"))
        assert 0 < said.pop("seconds") < 60
        assert [said.pop(key) for key in ("n", "m", "d")] == [12, 9, 2]
        return said

    said = report()
    assert (said["converged"], said["n_iter"]) == (True, 1)
    assert said["marginal_error"] < 1e-14
    assert said["lower_bound"] == pytest.approx(said["upper_bound"], rel=1e-12)
    named = {key: said[key] for key in ("method", "value", "units", "p")}
    assert named == {"method": "exact", "value": pytest.approx(wasserstein(x, y), rel=1e-14), "units": "data", "p": 2.0}
    assert said["lower_bound"] == pytest.approx(said["value"], rel=1e-12)
    said = report("--method", "sinkhorn", "--reg", "0.5", "--p", "3", *weights)
    assert said["converged"]
    assert said["n_iter"] > 1
    assert said["marginal_error"] < 1e-6
    assert said["exact_lower_bound"] <= wasserstein(x, y, 3, a=a, b=b) ** 3 <= said["exact_upper_bound"]
    named = {key: said[key] for key in ("method", "value", "units", "reg", "p")}
    value = pytest.approx(sinkhorn_cost(x, y, 3, reg=0.5, a=a, b=b), rel=1e-12)
    assert named == {"method": "sinkhorn", "value": value, "units": "data^3", "reg": 0.5, "p": 3.0}
    mean = (a[:, None] * b * np.linalg.norm(x[:, None] - y, axis=-1)).sum()
    relative = report("--method", "sinkhorn", "--reg-relative", "0.1", "--p", "1", *weights)
    assert relative["reg"] == pytest.approx(0.1 * mean, rel=1e-12)
    assert relative["value"] == pytest.approx(sinkhorn_cost(x, y, 1, reg=0.1 * mean, a=a, b=b), rel=1e-6)
    value, error = sliced_wasserstein(x, y, n_projections=40, generator=3, return_error=True)
    expected = {"value": value, "standard_error": error, "n_projections": 40, "seed": 3}
    expected |= {"method": "sliced", "units": "data", "p": 2.0}
    assert report("--method", "sliced", "--n-projections", "40", "--seed", "3") == expected
    assert report("--method", "sliced")["value"] == sliced_wasserstein(x, y, generator=0)
    value, error = sliced_wasserstein(x, y, n_projections=6, generator=3, return_error=True)
    said = report("--method", "sliced", "--n-projections", "6", "--seed", "3")
    assert (said["n_projections"], said["standard_error"]) == (len(drawn(2, 6)), error)  # of whole blocks
    assert report("--method", "gaussian")["value"] == gaussian.w2(*gaussian.fit(x), *gaussian.fit(y))


@pytest.mark.parametrize("json_", [(), ("--json",)])
def test_weights_reach_every_method(arrays, capsys, json_):
    x, y, a, b = arrays
    for expected, arguments in (
        (wasserstein(x, y, 3, a=a, b=b), ("--p", "3")),
        (sinkhorn_cost(x, y, 3, a=a, b=b, reg=0.5), ("--p", "3", "--method", "sinkhorn", "--reg", "0.5")),
        (sliced_wasserstein(x, y, 3, a=a, b=b, generator=0), ("--p", "3", "--method", "sliced")),
    ):
        said = output(capsys, "distance", "x.npy", "y.npy", "--a", "a.npy", "--b", "data.npz:mass", *arguments, *json_)
        assert (json.loads(said)["value"] if json_ else float(said)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("command", ["distance", "pairwise"])
@pytest.mark.parametrize("p", ["1", "1.5", "3"])
def test_the_units_of_a_cost_are_those_of_its_exponent(files, capsys, command, p):
    options = ("--p", p, "--json")
    said = output(capsys, command, "x.npy", "y.npy", "--method", "sinkhorn", "--reg", "9", *options)
    assert json.loads(said)["units"] == f"data^{p}"
    assert json.loads(output(capsys, command, "x.npy", "y.npy", *options))["units"] == "data"


@pytest.mark.parametrize("dtype", [np.int32, np.uint8, bool, np.float16])
def test_numbers_of_any_kind_are_read(arrays, capsys, dtype):
    x, *_ = arrays
    z = (np.abs(x[:5]) > 1).astype(dtype)
    np.save("z.npy", z)
    assert float(output(capsys, "distance", "x.npy", "z.npy")) == wasserstein(x, z.astype(float))


def drawn(d, count):
    directions, _ = random_directions(d, count, 0)
    return directions


def test_one_direction_has_no_error_and_needs_none(arrays, capsys):
    x, y, *_ = arrays
    one = ("distance", "x.npy", "y.npy", "--method", "sliced", "--n-projections", "1")
    assert float(output(capsys, *one)) == sliced_wasserstein(x, y, n_projections=1, generator=0)
    assert main([*one, "--json"]) == 2
    assert "expected at least 2 (raise n_projections)" in capsys.readouterr().err


def test_what_is_not_asked_for_is_not_read(arrays, capsys):
    x, y, _, b = arrays
    np.savez("data.npz", codes=y, mass=b, labels=np.array(["one"] * 9), things=np.array([{}], dtype=object))
    found = output(capsys, "distance", "x.npy", "data.npz:codes", "--b", "mass")
    assert float(found) == wasserstein(x, y, b=b)


def test_help_stands_alone(capsys):
    for command, words in {"distance": ("(n, d)", "--reg-relative", "examples:"), "pairwise": ("--resume",)}.items():
        with pytest.raises(SystemExit) as stop:
            main([command, "--help"])
        out = " ".join(capsys.readouterr().out.split())  # the lines wrap
        assert stop.value.code == 0
        assert all(word in out for word in ("--p", "--method", *words))


# otkit pairwise


def table(text):
    lines = [line.split(",") for line in text.splitlines()]
    return lines[0][1:], [line[0] for line in lines[1:]], np.array([line[1:] for line in lines[1:]], float)


def test_pairwise_of_files(arrays, capsys):
    columns, rows, matrix = table(output(capsys, "pairwise", "x.npy", "y.csv", "data.npz:codes", "--p", "1"))
    assert columns == rows == ["x.npy", "y.csv", "data.npz:codes"]
    assert matrix[0, 1] == wasserstein(*arrays[:2], 1)
    assert matrix[1, 2] == 0
    assert (matrix == matrix.T).all()


def test_pairwise_of_the_arrays_of_a_file(arrays, capsys):
    x, y, *_ = arrays
    names, _, matrix = table(output(capsys, "pairwise", "sets.npz"))
    assert names == ["sets.npz:first", "sets.npz:second", "sets.npz:third"]
    assert (matrix == pairwise_distances([x, y, x[:5] + 1])).all()
    np.save("batch.npy", np.stack([x, x + 1]))
    names, _, matrix = table(output(capsys, "pairwise", "batch.npy"))
    assert names == ["batch.npy[0]", "batch.npy[1]"]
    assert matrix[0, 1] == pytest.approx(2**0.5, rel=1e-12)


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        (("--method", "sinkhorn", "--reg", "1"), {"distance": "sinkhorn_cost", "reg": 1.0}),
        (
            ("--method", "sliced", "--n-projections", "9", "--seed", "2", "--p", "1"),
            {"distance": "sliced_wasserstein", "n_projections": 9, "generator": 2, "p": 1},
        ),
        (("--method", "gaussian", "--jobs", "1"), {"distance": "gaussian_w2"}),
    ],
)
def test_pairwise_methods(arrays, capsys, arguments, options):
    x, y, *_ = arrays
    said = json.loads(output(capsys, "pairwise", "x.npy", "y.npy", *arguments, "--json"))
    measures = [x, y] if options["distance"] != "gaussian_w2" else [gaussian.fit(x), gaussian.fit(y)]
    # With --json what is solved is also certified, by another route to the same tolerance.
    np.testing.assert_allclose(said["distances"], pairwise_distances(measures, **options), rtol=1e-6)
    assert said["names"] == ["x.npy", "y.npy"]
    assert said["units"] == ("data^2" if "--reg" in arguments else "data")


def test_pairwise_json_bounds_each_distance(arrays, capsys):
    x, y, *_ = arrays
    report = json.loads(output(capsys, "pairwise", "x.npy", "y.npy", "--p", "1", "--json"))
    assert report["converged"]
    assert 0 < report["seconds"] < 60
    lower, value, upper = (np.array(report[key]) for key in ("lower_bounds", "distances", "upper_bounds"))
    assert value[0, 1] == pytest.approx(wasserstein(x, y, 1), rel=1e-12)
    np.testing.assert_allclose(lower, upper, atol=1e-12)
    report = json.loads(output(capsys, "pairwise", "x.npy", "y.npy", "--method", "sinkhorn", "--reg", "1", "--json"))
    exact = wasserstein(x, y) ** 2
    assert report["exact_lower_bounds"][0][1] < exact < report["exact_upper_bounds"][0][1]
    assert report["distances"][0][1] == pytest.approx(sinkhorn_cost(x, y, reg=1.0), rel=1e-6)


def test_exact_distances_on_the_line_have_no_bounds(arrays, capsys):
    x, y, *_ = arrays
    np.save("u.npy", x[:, 0])
    np.save("v.npy", y[:, 0])
    one, all_of_them = (
        json.loads(output(capsys, command, "u.npy", "v.npy", "--json")) for command in ("distance", "pairwise")
    )
    expected = wasserstein(x[:, :1], y[:, :1])
    assert (one["value"], all_of_them["distances"][0][1]) == (expected, expected)
    assert not [key for key in (*one, *all_of_them) if "bound" in key]


def test_pairwise_weights(arrays, capsys):
    x, y, a, b = arrays
    np.save("b.npy", b)
    _, _, matrix = table(output(capsys, "pairwise", "x.npy", "y.npy", "--weights", "a.npy", "b.npy"))
    assert matrix[0, 1] == pytest.approx(wasserstein(x, y, a=a, b=b), rel=1e-12)
    _, _, matrix = table(output(capsys, "pairwise", "x.npy", "data.npz:codes", "--weights", "a.npy", "data.npz:mass"))
    assert matrix[0, 1] == pytest.approx(wasserstein(x, y, a=a, b=b), rel=1e-12)


def test_pairwise_into_a_file_and_again(files, capsys):
    said = output(capsys, "pairwise", "sets.npz", "--out", "d.npy")
    assert said == "d.npy: 3 x 3 distances\n"
    matrix = np.load("d.npy")
    assert main(["pairwise", "sets.npz", "--out", "d.npy"]) == 2
    assert "--out d.npy exists; expected --resume" in capsys.readouterr().err
    said = json.loads(output(capsys, "pairwise", "sets.npz", "--out", "d.npy", "--resume", "--json"))
    assert said["out"] == "d.npy"
    assert main(["pairwise", "sets.npz", "--out", "d.npy", "--resume", "--p", "1"]) == 2
    assert "d.npy holds distances of other measures, or of another distance" in capsys.readouterr().err
    assert (np.load("d.npy") == matrix).all()


def test_what_did_not_converge_is_told_after_a_resume_too(files, capsys, monkeypatch):
    def stopped(x, y, **_):
        if len(x) > 1:
            warnings.warn("raise max_iter", ConvergenceWarning, stacklevel=2)
        return 1.0

    monkeypatch.setitem(package.pairwise.DISTANCES, "wasserstein", stopped)
    command = ["pairwise", "sets.npz", "--out", "d.npy", "--json"]
    for more, message in ([], "raise max_iter"), (["--resume"], "d.npy holds distances that did not converge"):
        assert main([*command, *more]) == 0
        out, err = capsys.readouterr()
        assert json.loads(out)["converged"] is False
        assert message in err


def test_the_table_holds_any_name(files, capsys):
    name = 'a "b", c.npy'
    np.save(name, np.zeros((2, 2)))
    rows = list(csv.reader(output(capsys, "pairwise", name, "x.npy").splitlines()))
    assert rows[0] == ["", name, "x.npy"]
    assert rows[1][0] == name


def test_progress_goes_to_stderr(files, capsys):
    assert main(["pairwise", "sets.npz", "--progress"]) == 0
    assert "6/6" in capsys.readouterr().err


def test_every_method_of_pairwise_has_a_distance():
    assert set(cli.METHODS.values()) <= set(package.pairwise.DISTANCES)
