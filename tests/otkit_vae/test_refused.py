"""Trainings that cannot go on, or cannot be written: a line that says why, and nothing that was there is lost."""

import os
import re
import resource
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from otkit_vae import checkpoint, cli, penalties
from otkit_vae._files import only_writer
from otkit_vae.callbacks import Folder
from otkit_vae.config import TrainConfig
from otkit_vae.data import load_data
from otkit_vae.runs import data_of
from otkit_vae.trainer import make_trainer
from tests.otkit_vae.shell import command, train

# The engine and its dependencies warn of their own deprecations in a first import.
pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def refused(capsys, *arguments):
    assert train(*arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    *before, last = err.splitlines()
    assert all("observations to train on" in line for line in before)
    return last


def cut(run):
    file = run / "checkpoint.ckpt"
    file.write_bytes(file.read_bytes()[:-5000])


def code(run):
    torch.save({checkpoint.KEY: print}, run / "checkpoint.ckpt")


def older(run):
    torch.save({checkpoint.KEY: {"format": 2, "version": "0.0.9"}}, run / "checkpoint.ckpt")


def other(run):
    content = checkpoint.read(run / "checkpoint.ckpt")
    content[checkpoint.KEY]["config"]["latent_dim"] = 3
    checkpoint.write(content, run / "checkpoint.ckpt")


def another_version(run):
    text = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(re.sub(r"otkit \S+\.", "otkit 0.0.9.", text, count=1) + "colour: red\n")


@pytest.mark.parametrize(
    ("damage", "options", "said"),
    [
        (cut, (), "checkpoint.ckpt is not a checkpoint of otkit-vae train, or is cut off or damaged"),
        (code, (), "checkpoint.ckpt is not a checkpoint of otkit-vae train: it has code in it, which is not run"),
        (older, (), "checkpoint.ckpt has format 2, of otkit 0.0.9; expected format 5"),
        (other, (), "checkpoint.ckpt is of a training with other latent_dim than"),
        (another_version, (), "of a training by otkit-vae train, otkit 0.0.9."),
        (shutil.rmtree, (), "run: no file run/config.yaml; expected a run folder of otkit-vae train"),
        (None, ("--latent_dim", "5"), "run was begun with latent_dim 8, not 5; expected the same"),
        (None, ("--epochs", "1"), "epochs is 1, and run/checkpoint.ckpt has 2 behind it; expected at least as many"),
        (None, ("--trainer.gradient_clip_val", "much"), "gradient_clip_val"),
        (
            *(None, ("--trainer.limit_train_batches", "5", "--epochs", "3")),
            "trainer: limit_train_batches is 5, and was 1.0 when the checkpoint was written; expected the same",
        ),
        (
            *(None, ("--trainer.val_check_interval", "100000", "--epochs", "3")),
            "error: `val_check_interval` (100000) must be less than or equal to the number of the training batches",
        ),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_what_cannot_go_on_is_one_line_and_nothing_is_lost(run, capsys, damage, options, said):
    if damage is not None:
        damage(run)
    else:
        (run / "evaluation.json").write_text("{}")
    before = {file.name: file.read_bytes() for file in run.iterdir()} if run.exists() else {}
    message = refused(capsys, "--resume", "run", *options)
    assert said in message
    after = {file.name: file.read_bytes() for file in run.iterdir()} if run.exists() else {}
    assert after == before


@pytest.mark.parametrize(
    ("edit", "said"),
    [(("penalty: kl", "penalty: wae_gan"), "penalty"), (("latent_dim: 8", "latent_dim: 3"), "latent_dim")],
)
def test_a_checkpoint_that_is_not_of_the_options_is_not_opened(run, capsys, edit, said):
    (run / "config.yaml").write_text((run / "config.yaml").read_text().replace(*edit))
    for name in ("evaluate", "report"):
        assert command(name, "run") == 2
        err = capsys.readouterr().err
        assert f"run/checkpoint.ckpt is of a training with other {said} than run/config.yaml has" in err


def test_a_part_of_the_penalty_that_does_not_fit_is_named(run, capsys):
    content = checkpoint.read(run / "checkpoint.ckpt")
    content["state_dict"]["objective.penalty.discriminator"] = torch.zeros(1)
    checkpoint.write(content, run / "checkpoint.ckpt")
    assert command("report", "run") == 2
    assert "run/checkpoint.ckpt does not hold what was trained: " in capsys.readouterr().err


def test_data_that_changed_are_noticed_and_nothing_is_lost(bare, capsys):
    """One row more gives another split, of which most held-out rows were trained on."""
    x = np.random.default_rng(0).random((60, 6), dtype=np.float32)
    np.save("x.npy", x)
    assert train("--data", "x.npy", "--epochs", 1, "--widths", "[8]", "--penalty", "kl", "--out", "run") == 0
    before = {file.name: file.read_bytes() for file in Path("run").iterdir()}
    for changed, said in (
        (np.concatenate([x, x[:1] / 2]), r"train was 48 x 6, \w+, and is 49 x 6, \w+; held_out was 12 x 6"),
        (np.concatenate([x, x[:, :1]], 1), r"train was 48 x 6, \w+, and is 48 x 7"),
        (x**2, r"train was 48 x 6, \w+, and is 48 x 6"),
    ):
        np.save("x.npy", changed)
        for arguments in (("train", "--resume", "run", "--epochs", "2"), ("evaluate", "run"), ("report", "run")):
            capsys.readouterr()
            assert command(*arguments) == 2
            err = capsys.readouterr().err
            assert re.search(f"data: x.npy has changed since run was trained on it .{said}", err)
            assert "put them back, or train in a new folder" in err
            assert err.count("\n") == 1
            assert {file.name: file.read_bytes() for file in Path("run").iterdir()} == before
    # The same observations are the same, wherever they are from and in whatever layout.
    np.save("x.npy", np.asfortranarray(x.astype(">f8")))
    assert train("--resume", "run", "--epochs", 2) == 0


def test_without_a_checkpoint_it_cannot_be_known_whether_data_only_moved(run, capsys):
    (run / "checkpoint.ckpt").unlink()
    assert train("--resume", "run", "--data", "there.npy") == 2
    assert "data is 'there.npy', and run has no checkpoint" in capsys.readouterr().err


def test_without_a_checkpoint_no_new_place_of_the_data_is_asked_for(bare, capsys):
    Path("run").mkdir()
    Path("run/config.yaml").write_text("data: x.npy\n")
    message = refused(capsys, "--resume", "run")
    assert "no file x.npy" in message
    assert "--data PLACE" not in message


def test_a_training_goes_on_in_its_own_folder(run, bare, capsys):
    message = refused(capsys, "--resume", "run", "--out", "elsewhere")
    assert "out is 'elsewhere', and resume goes on in run; expected no out" in message
    assert not Path("elsewhere").exists()
    assert train("--resume", "run", "--out", f"../{run.parent.name}/run") == 0


def test_two_trainings_do_not_write_to_a_folder_at_once(run, capsys):
    before = {file.name: file.read_bytes() for file in run.iterdir()}
    with only_writer(run):
        assert "another training writes to run; expected one" in refused(capsys, "--resume", "run", "--epochs", 3)
    assert {file.name: file.read_bytes() for file in run.iterdir()} == before


@contextmanager
def largest_file(size):
    """No file can grow beyond a size, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_keeps_the_last_checkpoint(run, capsys):
    before = (run / "checkpoint.ckpt").read_bytes()
    with largest_file(len(before) // 2):
        message = refused(capsys, "--resume", run, "--epochs", 3)
    assert f"{run / 'checkpoint.ckpt'} cannot be written (File too large); the one that was there is kept" in message
    assert (run / "checkpoint.ckpt").read_bytes() == before
    assert not list(run.glob(".*"))
    assert train("--resume", run) == 0
    assert checkpoint.read(run / "checkpoint.ckpt")["epoch"] == 2


@pytest.mark.skipif(os.geteuid() != 0, reason="changes the user")
def test_a_folder_that_cannot_be_written_to_says_so(capsys, monkeypatch):
    folder, data = Path(tempfile.mkdtemp()), load_data("digits")
    # The other user need not be able to read the installed packages, where the digits are.
    monkeypatch.setattr("otkit_vae.training.data_of", lambda *args, **kwargs: data)
    monkeypatch.chdir(folder)
    try:
        folder.chmod(0o555)
        (folder / "run").mkdir()
        os.seteuid(65534)
        try:
            new = refused(capsys, "--epochs", 1, "--out", folder / "new")
            there = refused(capsys, "--epochs", 1, "--out", folder / "run")
        finally:
            os.seteuid(0)
    finally:
        monkeypatch.undo()
        shutil.rmtree(folder)
    assert "new cannot be made (Permission denied); expected a folder that can be written" in new
    assert "run/config.yaml cannot be written (Permission denied)" in there


def test_commands_that_a_message_gives_can_be_pasted(tmp_path):
    """Also where a folder has blanks in its name."""
    folder = tmp_path / "my run"
    told = Folder(folder, None, -1)
    told.saved = 3
    assert told.last().endswith(f"otkit-vae train --resume '{folder}' goes on there")
    with pytest.raises(FileNotFoundError, match=rf"otkit-vae train --resume '{folder}' --data PLACE"):
        data_of(TrainConfig(data="gone.npz"), folder)


def test_a_penalty_of_one_process_is_refused_before_a_training_of_several_begins():
    class OfOne(penalties.LatentPenalty):
        estimand = "aggregated"

        def forward(self, posterior, z, prior, *, generator=None):
            return z.square().mean()

    with pytest.raises(ValueError, match="there are 2 processes, and the penalty OfOne would be computed of the part"):
        make_trainer({"devices": 2, "accelerator": "cpu"}, OfOne(), epochs=1)


def test_the_adversary_refuses_accumulation_and_clipping_before_anything_is_written(capsys, tmp_path):
    for option in ("accumulate_grad_batches=2", "gradient_clip_val=1.0"):
        message = refused(capsys, "--penalty", "wae_gan", f"--trainer.{option}", "--out", "new")
        assert option.split("=")[0] in message
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("weight", 'Parser key "weight": Expected a float or null. Got value: x'),
        ("widths", 'Parser key "widths": Expected a list or null. Got value: x'),
        ("trainer.gradient_clip_val", "Expected a int or a float or null. Got value: x"),
    ],
)
def test_a_value_of_none_of_several_types_is_told_them_in_short(capsys, option, said):
    assert refused(capsys, f"--{option}", "x").endswith(said)


@pytest.mark.parametrize(
    "order", [("int", "float", "NoneType"), ("float", "int", "NoneType"), ("NoneType", "float", "int")]
)
def test_types_of_a_union_are_told_in_one_order(order):
    """Which order they come in depends on who used that union first in the process."""
    each = "\n".join(f"  - Expected a <class '{name}'>" for name in order)
    message = f"Does not validate against any of the Union subtypes\nSubtypes: {order}\nErrors:\n{each}\n"
    message += "Given value type: <class 'str'>\nGiven value: x"
    assert cli._one_line(message) == "Expected a int or a float or null. Got value: x"
