"""Whatever is wrong is said in one line that names the argument or the file, with status 2."""

import os
import signal
import subprocess
import sys
import time
import zipfile

import numpy as np
import pytest

import otkit as package
from otkit import cli, pairwise_distances
from otkit._files import require_one_order
from otkit.cli import main


@pytest.mark.parametrize("command", ["distance", "pairwise"])
def test_control_c_is_status_130(files, monkeypatch, capsys, command):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(package.empirical, "wasserstein", interrupt)
    monkeypatch.setattr(cli, "pairwise_distances", interrupt)
    assert main([command, "x.npy", "y.npy"]) == 130
    assert capsys.readouterr() == ("", "otkit: interrupted\n")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("u,v\n1,2\n3,four\n", "line 3, column 2 is 'four'; expected a number"),
        ("1,2\n\n3,\n", "line 3, column 2 is ''; expected a number"),
        ("u,2\n1,2\n", "line 1, column 1 is 'u'; expected a number"),
        ("1,2\n3\n", "line 2 has 1 cells; expected 2"),
        ("u,v\n", "holds no line of numbers"),
        ("1;2\n3;4\n5;6\n", "line 2, column 1 is '3;4'"),
        ("1,2\n3,nan\n", "y must be finite"),
    ],
)
def test_bad_csv_names_line_and_column(files, capsys, text, message):
    (files / "bad.csv").write_text(text)
    assert main(["distance", "x.npy", "bad.csv"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert "bad.csv" in err or "finite" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("command", ["distance", "pairwise"])
def test_columns_of_the_same_names_in_another_order_are_refused(files, capsys, command):
    for name, header in (("one.csv", "u,v"), ("same.csv", " u, v"), ("swapped.csv", "v,u"), ("other.csv", "v,w")):
        (files / name).write_text(f"{header}\n1,2\n3,4\n")
    assert main([command, "one.csv", "swapped.csv"]) == 2
    assert "swapped.csv has the columns v, u, and one.csv has u, v; expected one order" in capsys.readouterr().err
    for other in ("same.csv", "other.csv", "x.npy"):
        assert main([command, "one.csv", other]) == 0


@pytest.mark.parametrize("swapped", [" v , u\n1,2\n", "\nv,u\n1,2\n", "\ufeffv,u\n1,2\n"])
def test_columns_have_their_names_whatever_is_around_them_and_numbers_are_none(files, swapped):
    for name, text in (
        ("one.csv", "u,v\n1,2\n"),
        ("swapped.csv", swapped),
        ("bare.csv", "1,2\n"),
        ("turned.csv", "2,1\n"),
    ):
        (files / name).write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"^swapped\.csv has the columns v, u, and one\.csv has u, v"):
        require_one_order(["bare.csv", "one.csv", "x.npy", "turned.csv", "swapped.csv"])
    require_one_order(["bare.csv", "one.csv", "x.npy", "turned.csv"])


PROGRAM = (sys.executable, "-m", "otkit.cli")
sliced = ("x.npy", "y.npy", "--method", "sliced")
relative = ("x.npy", "y.npy", "--method", "sinkhorn", "--reg-relative")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("x.npy", "none.npy"), "y: no file none.npy"),
        (("x.npy", "none.csv"), "y: no file none.csv"),
        (("x.npy", "empty.npy"), r"y has shape (0, 2); expected n >= 1 points"),
        (("x.npy", "nothing.npy"), "y: nothing.npy is not a .npy file of numbers"),
        (("x.npy", "words.npy"), "y: words.npy has dtype <U3; expected numbers"),
        (("x.npy", "complex.npy"), "y: complex.npy has dtype complex128; expected numbers"),
        (("x.npy", "nan.npy"), "y must be finite"),
        (("x.npy", "three.npy"), "points in 3 dimensions; expected 2"),
        (("x.npy", "x.txt"), "y: x.txt ends in .txt; expected a .npy, .npz or .csv file"),
        (("x.npy", "data.npz"), "y: data.npz holds 2 arrays (codes, mass); expected data.npz:NAME"),
        (("x.npy", "data.npz:code"), "y: data.npz holds no array code; expected one of codes, mass"),
        (("x.npy", "labels.npz:labels"), "y: labels.npz:labels has dtype <U3; expected numbers"),
        (("x.npy", "labels.npz:things"), "y: labels.npz:things cannot be read as an array of numbers (Object arrays"),
        (("x.npy", "labels.npz:note.txt"), "y: labels.npz:note.txt is not an array"),
        (("x.npy", "broken.npz"), "y: broken.npz is not a .npz file of numbers"),
        (("x.npy", "locked.npz"), "y: locked.npz:x cannot be read as an array of numbers (File 'x.npy' is encrypted"),
        (
            ("x.npy", "latin.csv"),
            "y: latin.csv is not text in UTF-8 ('utf-8' codec can't decode byte 0xe9 in position 0",
        ),
        (("x.npy", "y.npy", "--p", "0.5"), "p is 0.5"),
        (("x.npy", "y.npy", "--p", "two"), "argument --p: invalid float value: 'two'"),
        (("x.npy", "y.npy", "--method", "best"), "argument --method: invalid choice: 'best'"),
        (("x.npy", "y.npy", "--method", "sinkhorn"), "--method sinkhorn needs --reg or --reg-relative"),
        (("x.npy", "y.npy", "--method", "sinkhorn", "--reg", "0"), "reg is 0.0"),
        (("x.npy", "y.npy", "--method", "sinkhorn", "--reg", "1", "--reg-relative", "1"), "exclude each other"),
        ((*relative, "1", "--a", "zeros.npy"), "a has weights that are all zero"),
        ((*relative, "1", "--a", "data.npz:mass"), "a has shape (9,); expected (..., 12), a weight for each"),
        (("three.npy", *relative[1:], "1"), "y has shape (9, 2), points in 2 dimensions; expected 3"),
        ((*relative, "-1"), "--reg-relative is -1.0; expected a finite number > 0"),
        (("single.npy", "single.npy", *relative[2:], "1"), "--reg-relative times the mean of |x-y|^p is 0.0; expected"),
        (("x.npy", "y.npy", "--reg", "1"), "--reg is an option of --method sinkhorn, not of exact"),
        (("x.npy", "y.npy", "--seed", "1"), "--seed is an option of --method sliced, not of exact"),
        (("x.npy", "y.npy", "--method", "sliced", "--n-projections", "0"), "n_projections is 0"),
        ((*sliced, "--n-projections", "1.5"), "argument --n-projections: '1.5'; expected a whole number below 2^31"),
        ((*sliced, "--n-projections", "9999999999"), "argument --n-projections: '9999999999'; expected a whole number"),
        (
            (*sliced, "--seed", "99999999999999999999"),
            "argument --seed: '99999999999999999999'; expected a whole number",
        ),
        ((*sliced, "--seed", str(-(2**63))), f"argument --seed: '{-(2**63)}'; expected a whole number below 2^63"),
        (("x.npy", "y.npy", "--a", "x.npy"), "a (x.npy) has shape (12, 2)"),
        (("x.npy", "y.npy", "--a", "mass"), "a: no file mass"),
        (("x.npy", "huge.npy", "--method", "sinkhorn", "--reg", "1"), "otkit: error: "),
        (("x.npy", "y.npy", "--method", "gaussian", "--a", "a.npy"), "expected no --a or --b"),
        (("x.npy", "y.npy", "--method", "gaussian", "--p", "1"), "--method gaussian is W_2"),
        (("x.npy", "nan.npy", "--method", "gaussian"), "y must be finite"),
        (("x.npy", "huge.npy", "--method", "gaussian"), "the covariance of y must be finite"),
        (("x.npy", "three.npy", "--method", "gaussian"), "y has shape (4, 3), points in 3 dimensions; expected 2"),
        (("far.npy", "far.npy", "--json"), "x and y are farther apart than the largest float64"),
        (
            ("tiny.npy", "tiny.npy", "--method", "sinkhorn", "--reg", "1", "--json"),
            "reg is 1 beside a largest cost of 0",
        ),
        (("x.npy", "single.npy", "--method", "gaussian"), "y has 1 points; expected at least 2"),
        (("east.npy", "west.npy", *sliced[2:]), "the result is inf; expected data that float64 can hold"),
        (("x.npy",), "the following arguments are required: y"),
    ],
)
def test_bad_input_is_one_line_and_status_2(files, capsys, arguments, message):
    np.save("empty.npy", np.zeros((0, 2)))
    (files / "nothing.npy").write_bytes(b"")
    (files / "x.txt").write_text("1 2")
    np.save("words.npy", np.array(["one", "two"]))
    np.save("complex.npy", np.full((3, 2), 1j))
    np.save("nan.npy", np.full((3, 2), np.nan))
    np.save("zeros.npy", np.zeros(12))
    np.savez("labels.npz", labels=np.array(["one"]), things=np.array([{}], dtype=object))
    with zipfile.ZipFile("labels.npz", "a") as archive:
        archive.writestr("note.txt", "1, 2")
    (files / "broken.npz").write_bytes(b"PK\x03\x04broken")
    np.save("huge.npy", np.arange(6.0).reshape(3, 2) * 1e200)
    np.save("far.npy", np.array([[1.7e308], [-1.7e308]]) * np.ones(2))
    for name, at in (("east", 1.7e308), ("west", -1.7e308)):
        np.save(f"{name}.npy", np.full((2, 1), at))
    np.save("tiny.npy", 1e-300 * np.eye(2))
    (files / "latin.csv").write_text("é,v\n1,2\n", encoding="latin-1")
    with zipfile.ZipFile("locked.npz", "w") as archive:
        archive.write("x.npy")
    locked = bytearray((files / "locked.npz").read_bytes())
    for at in (6, locked.index(b"PK\x01\x02") + 8):
        locked[at] |= 1  # the flag of encryption
    (files / "locked.npz").write_bytes(locked)
    np.save("three.npy", np.zeros((4, 3)))
    np.save("single.npy", np.zeros((1, 2)))
    try:
        status = main(["distance", *arguments])
    except SystemExit as stop:
        status = stop.code
    out, err = capsys.readouterr()
    assert (status, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("x.npy", "three.npy"), "three.npy has dimension 3 but x.npy has 2; expected the same"),
        (
            ("x.npy", "three.npy", "--method", "gaussian"),
            "three.npy has parts of shapes (3,), (3, 3), and x.npy of (2,)",
        ),
        (("x.npy", "nan.npy"), "nan.npy must be finite"),
        (("x.npy", "nan.npy", "--method", "gaussian"), "error: nan.npy must be finite"),
        (("none.npy",), "x: no file none.npy"),
        (("none.npz",), "x: no file none.npz"),
        (("batch.npy",), "batch.npy[1] must be finite"),
        (("none of it.npy",), "none of it.npy has shape (0, 3, 2); expected at least one set of points"),
        (("x.npy", "--p", "0.5", "--out", "d.npy"), "p is 0.5"),
        (("x.npy", "--jobs", "99999999999"), "argument --jobs: '99999999999'; expected a whole number below 2^31"),
        (("x.npy", "--weights", "none.npy"), "--weights: no file none.npy"),
        (("x.npy", "y.npy", "--weights", "a.npy", "ones.npy"), "y.npy has mass 9 but x.npy has 1; expected the same"),
        (("y.npy", "--weights", "minus.npy"), "the weights of y.npy must not be negative"),
        (("x.npy", "--out", "x.npy", "--resume"), "out: x.npy exists without a record x.npy.tiles"),
        (("x.npy", "--resume"), "--resume goes on with a file; expected --out as well"),
        (("x.npy", "--out", "d.csv"), "--out is d.csv; expected a .npy file"),
        (("x.npy", "--out", "no/d.npy"), "expected an existing folder"),
        (("x.npy", "y.npy", "--jobs", "0"), "n_jobs is 0"),
        (
            ("x.npy", "y.npy", "--weights", "a.npy"),
            "--weights holds 1 sets for 2 sets of points; expected one for each",
        ),
        (
            ("x.npy", "y.npy", "--weights", "a.npy", "a.npy"),
            "weights a.npy have shape (12, 1); expected (9,), as y.npy",
        ),
        (("x.npy", "--weights", "a.npy", "--method", "gaussian"), "expected no --weights"),
        (("far.npy", "--method", "sliced", "--json"), "the result is inf; expected data that float64 can hold"),
    ],
)
def test_bad_input_of_pairwise(files, capsys, arguments, message):
    np.save("three.npy", np.arange(12.0).reshape(4, 3))
    np.save("nan.npy", np.full((3, 2), np.nan))
    np.save("batch.npy", np.stack([np.zeros((3, 2)), np.full((3, 2), np.nan)]))
    np.save("none of it.npy", np.zeros((0, 3, 2)))
    np.save("far.npy", np.array([1.7e308, -1.7e308]).reshape(2, 1, 1))
    np.save("ones.npy", np.ones(9))
    np.save("minus.npy", -np.ones(9))
    try:
        status = main(["pairwise", *arguments])
    except SystemExit as stop:
        status = stop.code
    out, err = capsys.readouterr()
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert message in err
    assert not (files / "d.npy").exists()


def test_a_folder_that_is_read_only_is_named(files, capsys, monkeypatch):
    monkeypatch.setattr(cli.os, "access", lambda path, mode: (str(path), mode) != (".", os.W_OK))
    assert main(["pairwise", "x.npy", "--out", "d.npy"]) == 2
    assert capsys.readouterr() == ("", "otkit: error: --out is d.npy; expected a folder that can be written to\n")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a device of Linux")
def test_an_answer_that_cannot_be_written_is_said_so(files):
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*PROGRAM, "pairwise", "x.npy"], cwd=files, stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert done.returncode == 2
    assert done.stderr == "otkit: error: the answer cannot be written (No space left on device)\n"


@pytest.fixture(scope="module")
def answered():
    """Sets of points and the distances between them."""
    sets = np.random.default_rng(0).normal(size=(40, 120, 2))
    return sets, pairwise_distances(sets)


def heed_interrupts():
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_interrupted_or_killed_it_goes_on(tmp_path, monkeypatch, capsys, answered, how):
    sets, expected = answered
    np.save(tmp_path / "sets.npy", sets)
    command = [*PROGRAM, "pairwise", "sets.npy", "--out", "with space.npy"]
    record = tmp_path / "with space.npy.tiles"
    # What a shell runs in the background ignores an interrupt, and so does what that starts.
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "preexec_fn": heed_interrupts}
    with subprocess.Popen(command, cwd=tmp_path, **options) as running:
        while running.poll() is None and not (record.exists() and record.read_text().count("\n") > 2):
            time.sleep(0.005)
        running.send_signal(how)
        out, err = running.communicate()
    if how == signal.SIGINT:
        assert (running.returncode, out, err) == (130, "", "otkit: interrupted\n")
    before = record.read_text().splitlines()
    assert 2 < len(before) < 37
    monkeypatch.chdir(tmp_path)
    assert main([*command[len(PROGRAM) :], "--resume"]) == 0
    assert capsys.readouterr() == ("with space.npy: 40 x 40 distances\n", "")
    assert record.read_text().splitlines()[: len(before)] == before
    np.testing.assert_array_equal(np.load(tmp_path / "with space.npy"), expected)


def test_bad_input_leaves_no_traceback_in_a_process(files):
    done = subprocess.run([*PROGRAM, "distance", "x.npy", "none.npy"], cwd=files, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "otkit: error: y: no file none.npy; expected a .npy, .npz or .csv file\n"
