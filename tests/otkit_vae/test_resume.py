"""Trainings that were killed, interrupted or ended, as a user goes on with them; what cannot is in test_refused."""

import os
import random
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from otkit.empirical._sinkhorn._watch import Watch
from otkit_vae import checkpoint
from otkit_vae.checkpoint import load
from otkit_vae.report._run import facts
from otkit_vae.runs import open_run
from tests.otkit_vae.shell import command, train

# The engine and its dependencies warn of their own deprecations in a first import.
pytestmark = pytest.mark.filterwarnings("default")

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


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


def test_data_that_moved_are_found_again(bare, capsys):
    np.save("x.npy", np.random.default_rng(0).random((60, 6), dtype=np.float32))
    assert train("--data", "x.npy", "--epochs", 1, "--widths", "[8]", "--penalty", "kl", "--out", "run") == 0
    Path("x.npy").rename("there.npy")
    for arguments in (("train", "--resume", "run"), ("report", "run")):
        assert command(*arguments) == 2
        assert "have moved, give it their new place: otkit-vae train --resume run --data" in capsys.readouterr().err
    np.save("other.npy", np.random.default_rng(1).random((60, 6), dtype=np.float32))
    assert train("--resume", "run", "--epochs", 2, "--data", "other.npy") == 2
    assert "data: other.npy has" in capsys.readouterr().err
    assert train("--resume", "run", "--epochs", 2, "--data", "there.npy") == 0
    assert (open_run("run").config.data, open_run("run").epochs) == ("there.npy", 2)


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
