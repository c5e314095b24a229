"""What a user may not read or write is named, with the argument that it is for, and nothing is left out for it."""

import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from otkit_vae.data import load_data
from tests.otkit_vae.shell import command, train

pytestmark = [
    pytest.mark.filterwarnings("default"),  # the engine and its dependencies warn of their own deprecations
    pytest.mark.skipif(os.geteuid() != 0, reason="changes the user"),
]


@contextmanager
def as_another():
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def folder(monkeypatch):
    """A folder that another user may look into, as they may not into those of the tests."""
    made = Path(tempfile.mkdtemp())
    made.chmod(0o755)
    monkeypatch.chdir(made)
    yield made
    monkeypatch.undo()
    shutil.rmtree(made)


def test_a_class_whose_folder_cannot_be_read_is_not_left_out(folder):
    for name in ("a", "b"):
        (folder / name).mkdir()
        for k in range(5):
            Image.fromarray(np.full((4, 4), 40 * k, dtype=np.uint8)).save(folder / name / f"{k}.png")
    (folder / "b").chmod(0)
    said = rf"^data: {folder / 'b'} cannot be read \(Permission denied\)"
    with as_another(), pytest.raises(OSError, match=said):
        load_data(str(folder))


def test_a_table_is_named(folder):
    (folder / "table.csv").write_text("1,2\n3,4\n")
    (folder / "table.csv").chmod(0)
    with as_another(), pytest.raises(OSError, match=r"^data: table.csv cannot be read \(Permission denied\)"):
        load_data("table.csv")


@pytest.mark.parametrize(("file", "argument"), [("config.yaml", "run"), ("checkpoint.ckpt", "path")])
def test_a_file_of_a_run_is_named(folder, run, capsys, file, argument):
    kept = shutil.copytree(run, folder / "kept")
    (kept / file).chmod(0)
    with as_another():
        assert command("sample", "kept") == 2
    assert f"error: {argument}: kept/{file} cannot be read (Permission denied)" in capsys.readouterr().err


def test_the_folder_of_runs_is_named(folder, capsys, monkeypatch):
    data = load_data("digits")  # the other user need not be able to read where they are
    monkeypatch.setattr("otkit_vae.training.data_of", lambda *args, **kwargs: data)
    with as_another():
        assert train("--epochs", 1) == 2
    said = "error: out: runs cannot be made (Permission denied); expected a folder that can be written"
    assert said in capsys.readouterr().err
