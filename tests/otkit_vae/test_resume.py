"""Trainings that were killed, interrupted or broken, as a user goes on with them."""

import os
import random
import re
import resource
import shutil
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from otkit.empirical._sinkhorn._watch import Watch
from otkit_vae import checkpoint, cli
from otkit_vae._files import only_writer
from otkit_vae.checkpoint import load
from otkit_vae.data import load_data
from otkit_vae.report._run import facts
from otkit_vae.runs import open_run

# The engine and its dependencies warn of their own deprecations in a first import.
pytestmark = pytest.mark.filterwarnings("default")

ROOT = Path(__file__).parents[2]


def train(*arguments):
    return cli.main(["train", "--progress", "false", *map(str, arguments)])


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def bare(monkeypatch):
    """No pictures and no reports, seconds in all."""
    for picture in ("reconstructions", "samples", "latent_map"):
        monkeypatch.setattr(f"otkit_vae.pictures.{picture}", lambda *_, **__: None)
    monkeypatch.setattr("otkit_vae.training.write_report", lambda *_: None)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained") / "run"
    assert train("--epochs", 2, "--penalty", "kl", "--widths", "[8]", "--out", folder) == 0
    return folder


@pytest.fixture
def run(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "run")


def test_killed_at_any_moment_it_ends_with_the_same_bits(tmp_path):
    seed = random.SystemRandom().randrange(10**6)
    done = subprocess.run(
        [sys.executable, "-m", "tests.otkit_vae.killing", tmp_path, str(seed)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    log = (tmp_path / "stderr.txt").read_text()
    said = f"seed {seed}\n{done.stdout}\n{done.stderr}\n{log}"
    assert done.returncode == 0, said
    assert int(re.search(r"kills (\d+)", done.stdout)[1]) >= 10, said
    whole, killed = (checkpoint.read(tmp_path / name / "checkpoint.ckpt") for name in ("whole", "killed"))
    for name, tensor in whole["state_dict"].items():
        assert torch.equal(tensor, killed["state_dict"][name]), (name, said)
    for key, state in whole["optimizer_states"][0]["state"].items():
        for name, tensor in state.items():
            assert torch.equal(tensor, killed["optimizer_states"][0]["state"][key][name]), said
    for file in ("metrics.csv", "samples.png", "config.yaml"):
        mine, theirs = ((tmp_path / name / file).read_bytes() for name in ("killed", "whole"))
        assert mine.replace(b"killed", b"whole") == theirs, (file, said)
    assert {file.name for file in (tmp_path / "killed").iterdir()} == {
        file.name for file in (tmp_path / "whole").iterdir()
    }
    # Ctrl-C, once on the way.
    assert "interrupted 130" in done.stdout, said
    assert re.search(
        r"otkit-vae: interrupted; the last checkpoint is killed/checkpoint.ckpt, of step \d+: "
        "otkit-vae train --resume killed goes on there",
        log,
    ), said


def test_a_finished_training_is_finished_and_more_epochs_go_on(run, trained, tmp_path, capsys):
    before = (run / "checkpoint.ckpt").read_bytes()
    (run / "samples.png").unlink()
    assert train("--resume", run) == 0
    assert "squared reconstruction error" in capsys.readouterr().out
    assert (run / "samples.png").is_file()
    assert (run / "checkpoint.ckpt").read_bytes() == before
    assert train("--resume", run, "--epochs", 3) == 0
    assert yaml.safe_load((run / "config.yaml").read_text())["epochs"] == 3
    assert train("--config", trained / "config.yaml", "--epochs", 3, "--out", tmp_path / "whole") == 0
    for name, tensor in load(tmp_path / "whole").state_dict().items():
        assert torch.equal(tensor, load(run).state_dict()[name])
    assert (run / "metrics.csv").read_text() == (tmp_path / "whole" / "metrics.csv").read_text()


STOPPING = "[{class_path: EarlyStopping, init_args: {monitor: held_out_loss, min_delta: 1000000000.0, patience: %d}}]"


@pytest.mark.parametrize(
    ("options", "greater", "said"),
    [
        (
            *(("--trainer.max_steps", 13, "--warmup", 99), ("--trainer.max_steps", 24)),
            "has 1 of 3 epochs behind it, as trainer.max_steps is 13: to go on, resume with a greater one",
        ),
        (
            *(("--trainer.callbacks", STOPPING % 1, "--penalty", "wae_gan"), ("--trainer.callbacks", STOPPING % 9)),
            "has 2 of 3 epochs behind it, as its EarlyStopping, of patience 1, ended it: to go on, resume with "
            "trainer.callbacks that have a greater one",
        ),
        (
            *(("--trainer.max_time", "00:00:00:01", "--epochs", 9999), ("--trainer.max_time", "00:00:00:02")),
            " of 9999 epochs behind it, as trainer.max_time is 00:00:00:01: to go on, resume with a longer one",
        ),
    ],
    ids=("steps", "stopping", "time"),
)
def test_a_training_that_a_limit_ended_says_which_and_what_to_raise(bare, capsys, options, greater, said):
    assert train("--epochs", 3, "--penalty", "kl", "--widths", "[8]", "--out", "run", *options) == 0
    before = open_run("run")
    capsys.readouterr()
    assert train("--resume", "run") == 0
    err = capsys.readouterr().err
    assert err.count("\n") == 2 + ("--warmup" in options)
    assert f"{said}\n" in err
    warming = "run: warmup is 99, and the training made 13 steps: the weight got to 0.1313, and not to 1\n"
    assert (warming in err) == (", weight 1 from step 99 on\n" in err) == ("--warmup" in options)
    assert open_run("run").step == before.step
    assert train("--resume", "run", *greater) == 0
    assert open_run("run").step > before.step


def test_interrupted_within_a_solver_of_the_penalty(monkeypatch, capsys):
    """A solver that gives what it has at Ctrl-C would have a training go on with it."""
    options = ("--penalty", "sinkhorn", "--epochs", 2, "--widths", "[8]", "--checkpoint_steps", 2)
    assert train(*options, "--out", "whole") == 0
    counted, count = 0, Watch.count

    def interrupted(watch, iterations, error):
        nonlocal counted
        counted += 1
        if counted == 300:
            raise KeyboardInterrupt
        count(watch, iterations, error)

    monkeypatch.setattr(Watch, "count", interrupted)
    capsys.readouterr()
    assert train(*options, "--out", "stopped") == 130
    assert "interrupted; the last checkpoint is stopped/checkpoint.ckpt, of step" in capsys.readouterr().err
    assert train("--resume", "stopped") == 0
    for name, tensor in load("whole").state_dict().items():
        assert torch.equal(tensor, load("stopped").state_dict()[name])


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
        for command in (("train", "--resume", "run", "--epochs", "2"), ("evaluate", "run"), ("report", "run")):
            capsys.readouterr()
            assert cli.main([*command]) == 2
            err = capsys.readouterr().err
            assert re.search(f"data: x.npy has changed since run was trained on it .{said}", err)
            assert "put them back, or train in a new folder" in err
            assert err.count("\n") == 1
            assert {file.name: file.read_bytes() for file in Path("run").iterdir()} == before
    # The same observations are the same, wherever they are from and in whatever layout.
    np.save("x.npy", np.asfortranarray(x.astype(">f8")))
    assert train("--resume", "run", "--epochs", 2) == 0


def test_data_that_moved_are_found_again(bare, capsys):
    np.save("x.npy", np.random.default_rng(0).random((60, 6), dtype=np.float32))
    assert train("--data", "x.npy", "--epochs", 1, "--widths", "[8]", "--penalty", "kl", "--out", "run") == 0
    Path("x.npy").rename("there.npy")
    for command in (("train", "--resume", "run"), ("report", "run")):
        assert cli.main([*command]) == 2
        assert "have moved, give it their new place: otkit-vae train --resume run --data" in capsys.readouterr().err
    np.save("other.npy", np.random.default_rng(1).random((60, 6), dtype=np.float32))
    assert train("--resume", "run", "--epochs", 2, "--data", "other.npy") == 2
    assert "data: other.npy has" in capsys.readouterr().err
    assert train("--resume", "run", "--epochs", 2, "--data", "there.npy") == 0
    assert (open_run("run").config.data, open_run("run").epochs) == ("there.npy", 2)


def test_without_a_checkpoint_it_cannot_be_known_whether_data_only_moved(run, capsys):
    (run / "checkpoint.ckpt").unlink()
    assert train("--resume", "run", "--data", "there.npy") == 2
    assert "data is 'there.npy', and run has no checkpoint" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("edit", "said"),
    [(("penalty: kl", "penalty: wae_gan"), "penalty"), (("latent_dim: 8", "latent_dim: 3"), "latent_dim")],
)
def test_a_checkpoint_that_is_not_of_the_options_is_not_opened(run, capsys, edit, said):
    (run / "config.yaml").write_text((run / "config.yaml").read_text().replace(*edit))
    for command in ("evaluate", "report"):
        assert cli.main([command, "run"]) == 2
        err = capsys.readouterr().err
        assert f"run/checkpoint.ckpt is of a training with other {said} than run/config.yaml has" in err


def test_a_part_of_the_penalty_that_does_not_fit_is_named(run, capsys):
    content = checkpoint.read(run / "checkpoint.ckpt")
    content["state_dict"]["objective.penalty.discriminator"] = torch.zeros(1)
    checkpoint.write(content, run / "checkpoint.ckpt")
    assert cli.main(["report", "run"]) == 2
    assert "run/checkpoint.ckpt does not hold what was trained: " in capsys.readouterr().err


def test_a_balanced_weight_is_that_of_the_training(bare, capsys):
    options = ("--penalty", "kl", "--balance", "gradient", "--weight", 100, "--epochs", 1, "--widths", "[8]")
    assert train(*options, "--out", "run") == 0
    printed = re.search(r"penalty kl, weight (\S+)", capsys.readouterr().err)[1]
    run = open_run("run")
    assert f"{run.objective.weight:g}" == printed != "100"
    assert f"penalty kl, weight {run.objective.weight:.4g}" in facts(run)
    # It is not balanced again where the training goes on, on another machine say.
    content = checkpoint.read(Path("run/checkpoint.ckpt"))
    content[checkpoint.KEY]["weight"] = 0.25
    checkpoint.write(content, Path("run/checkpoint.ckpt"))
    assert train("--resume", "run", "--epochs", 2) == 0
    assert open_run("run").objective.weight == 0.25


def test_options_of_the_engine_stay_unless_they_are_given_again(bare):
    options = ("--trainer.gradient_clip_val", 0.001, "--trainer.accumulate_grad_batches", 2)
    assert train(*options, "--penalty", "kl", "--epochs", 1, "--widths", "[8]", "--out", "run") == 0

    def resumed(*options):
        assert train("--resume", "run", *options) == 0
        return yaml.safe_load(Path("run/config.yaml").read_text())["trainer"]

    before = {"gradient_clip_val": 0.001, "accumulate_grad_batches": 2}
    assert resumed("--trainer.detect_anomaly", "true") == {**before, "detect_anomaly": True}
    assert resumed() == {**before, "detect_anomaly": True}
    # Also those that are set back to their defaults.
    after = resumed("--trainer.gradient_clip_val", "null")
    assert after == {**before, "detect_anomaly": True, "gradient_clip_val": None}


def test_a_training_goes_on_in_its_own_folder(run, bare, capsys):
    message = refused(capsys, "--resume", "run", "--out", "elsewhere")
    assert "out is 'elsewhere', and resume goes on in run; expected no out" in message
    assert not Path("elsewhere").exists()
    assert train("--resume", "run", "--out", f"../{run.parent.name}/run") == 0


def test_numbers_of_old_weights_go_with_them(run, bare):
    (run / "evaluation.json").write_text("{}")
    assert train("--resume", run) == 0  # it had ended
    assert (run / "evaluation.json").exists()
    assert train("--resume", run, "--epochs", 3) == 0
    assert not (run / "evaluation.json").exists()


def test_a_run_without_a_checkpoint_begins_anew(run, trained):
    for file in ("checkpoint.ckpt", "metrics.csv"):
        (run / file).unlink()
    assert train("--resume", run) == 0
    for name, tensor in load(trained).state_dict().items():
        assert torch.equal(tensor, load(run).state_dict()[name])


def test_states_of_the_process_are_left_as_they_were(run):
    torch.manual_seed(5)
    states = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()  # noqa: NPY002
    environment = dict(os.environ)
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        assert train("--epochs", 1, "--out", "one", "--widths", "[8]") == 0
        assert torch.is_deterministic_algorithms_warn_only_enabled()
    finally:
        torch.use_deterministic_algorithms(False)
    assert train("--epochs", 1, "--out", "two", "--widths", "[8]") == 0
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.random.get_state()[1].tolist() == states[1]  # noqa: NPY002
    assert random.getstate() == states[2]
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.utils.deterministic.fill_uninitialized_memory
    assert dict(os.environ) == environment


def test_options_of_the_engine_from_a_shell_are_in_the_config(tmp_path, capsys):
    options = (
        "--trainer.accumulate_grad_batches",
        2,
        "--trainer.precision",
        "64-true",
        "--trainer.max_time",
        "00:01:00:00",
    )
    assert train(*options, "--epochs", 1, "--widths", "[8]", "--out", "run") == 0
    written = yaml.safe_load(Path("run/config.yaml").read_text())
    assert written["trainer"] == {"accumulate_grad_batches": 2, "precision": "64-true", "max_time": "00:01:00:00"}
    assert checkpoint.read(Path("run/checkpoint.ckpt"))["global_step"] == 6
    assert train("--config", "run/config.yaml", "--out", "again") == 0
    for name, tensor in load("again").state_dict().items():
        assert torch.equal(tensor, load("run").state_dict()[name])
    capsys.readouterr()
    with pytest.raises(SystemExit):
        train("--trainer.devices", 1, "--latent-dim", 3, "--print_config")
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed["latent_dim"] == 3
    assert {"devices", "num_nodes", "precision", "strategy", "logger", "callbacks"} <= printed["trainer"].keys()


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


def test_the_adversary_refuses_accumulation_and_clipping_before_anything_is_written(capsys, tmp_path):
    for option in ("accumulate_grad_batches=2", "gradient_clip_val=1.0"):
        message = refused(capsys, "--penalty", "wae_gan", f"--trainer.{option}", "--out", "new")
        assert option.split("=")[0] in message
    assert not (tmp_path / "new").exists()
