import json
import subprocess
import sys

import numpy as np
import pytest

from otkit.cli import main
from otkit.empirical import sinkhorn_cost, wasserstein


@pytest.fixture
def files(tmp_path):
    rng = np.random.default_rng(0)
    np.save(tmp_path / "x.npy", rng.normal(size=(12, 2)))
    np.save(tmp_path / "y.npy", rng.normal(size=(9, 2)).astype(np.float32))
    return tmp_path


def otkit(folder, *arguments):
    return subprocess.run(
        [sys.executable, "-m", "otkit.cli", *arguments], cwd=folder, capture_output=True, text=True, check=False
    )


def test_prints_one_number(files):
    x, y = np.load(files / "x.npy"), np.load(files / "y.npy").astype(float)
    done = otkit(files, "distance", "x.npy", "y.npy", "--p", "1")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1
    assert float(done.stdout) == wasserstein(x, y, 1)


def test_json_says_more(files):
    x, y = np.load(files / "x.npy"), np.load(files / "y.npy").astype(float)
    done = otkit(files, "distance", "x.npy", "y.npy", "--reg", "0.5", "--json")
    report = json.loads(done.stdout)
    assert report == {
        "what": "sinkhorn_cost", "value": sinkhorn_cost(x, y, reg=0.5), "reg": 0.5, "p": 2.0, "n": 12, "m": 9, "d": 2,
    }  # fmt: skip


def test_help_stands_alone(files):
    done = otkit(files, "distance", "--help")
    assert done.returncode == 0
    for word in ("(n, d)", "--p", "--reg", "examples:"):
        assert word in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("x.npy", "none.npy"), "y: no file none.npy"),
        (("x.npy", "empty.npy"), r"y has shape (0, 2); expected n >= 1 points"),
        (("x.npy", "nothing.npy"), "y: nothing.npy is not a .npy file of numbers"),
        (("x.npy", "words.npy"), "y: words.npy has dtype <U3; expected numbers"),
        (("x.npy", "nan.npy"), "y must be finite"),
        (("x.npy", "three.npy"), "points in 3 dimensions; expected 2"),
        (("x.npy", "y.npy", "--p", "0.5"), "p is 0.5"),
        (("x.npy", "y.npy", "--p", "two"), "argument --p: invalid float value: 'two'"),
        (("x.npy", "y.npy", "--reg", "0"), "reg is 0.0"),
        (("x.npy", "y.npy", "--a", "x.npy"), "a (x.npy) has shape (12, 2)"),
        (("x.npy", "broken.npz"), "y: broken.npz is not a .npy file of numbers"),
        (("x.npy", "huge.npy", "--reg", "1"), "otkit: error: "),
        (("x.npy", "y.npy", "--gaussian", "--a", "w.npy"), "--gaussian is W_2"),
        (("x.npy",), "the following arguments are required: y"),
        (("x.npy", "y.npy", "--gaussian", "--p", "1"), "--gaussian is W_2"),
    ],
)
def test_bad_input_is_one_line_and_status_2(files, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(files)
    np.save(files / "empty.npy", np.zeros((0, 2)))
    (files / "nothing.npy").write_bytes(b"")
    np.save(files / "words.npy", np.array(["one", "two"]))
    np.save(files / "nan.npy", np.full((3, 2), np.nan))
    (files / "broken.npz").write_bytes(b"PK\x03\x04broken")
    np.save(files / "huge.npy", np.full((3, 2), 1e200))
    np.save(files / "w.npy", np.full(12, 1 / 12))
    np.save(files / "three.npy", np.zeros((4, 3)))
    try:
        status = main(["distance", *arguments])
    except SystemExit as stop:
        status = stop.code
    out, err = capsys.readouterr()
    assert (status, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1


def test_bad_input_leaves_no_traceback_in_a_process(files):
    done = otkit(files, "distance", "x.npy", "none.npy")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "otkit: error: y: no file none.npy; expected a .npy file\n"
