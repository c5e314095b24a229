"""Two processes train as one, and go on as two that never stopped."""

import contextlib
import csv
import os
import signal
import subprocess
import sys

import pytest
import torch

from otkit_vae import checkpoint, processes
from tests.distributed import two
from tests.distributed.trainings import CASES, process, train

# The engine and its dependencies warn of their own deprecations in a first import.
pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    return folder, two.run(process, folder, str(folder))


def weights(folder):
    return checkpoint.read(folder / "checkpoint.ckpt")["state_dict"]


def rows(folder):
    with open(folder / "metrics.csv") as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


KNOWN = []
"""The generator of shared seeds, within `processes.known`."""


@contextlib.contextmanager
def known_in_one(n, seed):
    """What `processes.known` is for several processes, in one."""
    KNOWN.append(torch.Generator().manual_seed(seed))
    try:
        yield
    finally:
        KNOWN.pop()


def as_several(generator, like):
    """What several processes share, in one."""
    if processes._ALONE.get():
        return generator
    if KNOWN:
        return torch.Generator().manual_seed(int(torch.randint(2**62, (), generator=KNOWN[-1])))
    return torch.Generator().manual_seed(int(torch.randint(2**62, (1,), generator=generator)))


@pytest.mark.parametrize("case", CASES)
def test_two_processes_train_as_one(found, tmp_path, monkeypatch, case):
    monkeypatch.setattr(processes, "shared", as_several)
    monkeypatch.setattr(processes, "known", known_in_one)
    train(tmp_path, case, 1)
    mine, expected = weights(found[0] / case), weights(tmp_path / case)
    for name, tensor in expected.items():
        assert torch.allclose(mine[name], tensor, rtol=1e-7, atol=1e-9), name
    for row, other in zip(rows(found[0] / case), rows(tmp_path / case), strict=True):
        assert row == pytest.approx(other, rel=1e-7)


def test_two_processes_go_on_bit_by_bit(found):
    expected = weights(found[0] / "sliced")
    for name, tensor in weights(found[0] / "parts").items():
        assert torch.equal(tensor, expected[name]), name
    assert (found[0] / "parts" / "metrics.csv").read_text() == (found[0] / "sliced" / "metrics.csv").read_text()


def test_the_noise_of_each_process_is_its_own(found):
    first, second = (noise for noise, *_ in found[1])
    assert not torch.isclose(first, second).any()


def test_a_loss_of_one_process_that_is_not_finite_stops_all_with_its_step(found):
    for _, faults, _ in found[1]:
        for batch_size, said in faults:
            assert "the loss is nan at step 3 (epoch 0, batch 3, of the training observations [" in said
            # Of the whole batch.
            assert said.partition("[")[2].partition("]")[0].count(",") == batch_size - 1


def test_a_process_that_ends_ends_the_other_with_the_last_checkpoint(found):
    first, second = (said for *_, said in found[1])
    assert second == "left"
    assert first.startswith("another process of the training has ended (")
    assert first.endswith(f"of step 4: otkit-vae train --resume {found[0] / 'gone'} goes on there")


TORCHRUN = ("torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1", "--nproc-per-node", "2", "-m")


@pytest.mark.parametrize("launcher", [(), TORCHRUN], ids=["the engine itself", "torchrun"])
def test_the_command_trains_in_two_processes_that_are_started_by(launcher, tmp_path):
    command = [sys.executable, "-m", *launcher, "otkit_vae.cli", "train", "--epochs", "1", "--widths", "[8]"]
    done = subprocess.run(
        [*command, "--trainer.devices", "2", "--trainer.accelerator", "cpu"],
        cwd=tmp_path,
        env=os.environ | {"MASTER_ADDR": "127.0.0.1", "GLOO_SOCKET_IFNAME": "lo"},
        capture_output=True,
        text=True,
        timeout=2 * two.PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    # One process tells and writes.
    assert done.stdout.count("squared reconstruction error") == 1
    assert done.stderr.count("observations to train on") == 1
    assert [folder.name for folder in (tmp_path / "runs").iterdir()] == ["digits-wasserstein-1"]


SCRIPT = """
import os
from otkit_vae import Objective, evaluate, penalties, processes
from otkit_vae.config import TrainConfig
from otkit_vae.data import load_data
from otkit_vae import training

training.write_report = lambda *_: None  # which takes most of a short training
several = {"devices": 2, "accelerator": "cpu"}
for out in ("first", "second"):
    run = training.train(TrainConfig(penalty="sliced", epochs=1, widths=[8], out=out, trainer=several, progress=False))
    if run is not None:
        x = load_data("digits").held_out
        assert evaluate(run.model, Objective(penalties.get("sliced")), x).penalty == run.evaluation.penalty
        # The other process has what the first had during the training.
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":16:8"
        print("evaluated", out, flush=True)
try:
    training.train(TrainConfig(out="third", progress=False))
except ValueError as error:
    print(error, flush=True)
assert not processes.spread()
print("ended", flush=True)
"""


def test_a_script_trains_twice_in_the_same_two_processes_and_evaluates_in_one(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    fixed = {"MASTER_ADDR": "127.0.0.1", "GLOO_SOCKET_IFNAME": "lo", "CUBLAS_WORKSPACE_CONFIG": ":16:8"}
    started = subprocess.Popen(
        [sys.executable, "script.py"],
        cwd=tmp_path,
        env=os.environ | fixed,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        # Until no process is left that could write.
        out, err = started.communicate(timeout=two.PATIENCE)
        assert started.returncode == 0, err
        assert out.count("ended") == 2
        # In one process after two, both would train it, each with half of the other's batch.
        assert out.count("trainer: devices 1 and num_nodes 1 make 1; expected 2 processes") == 2
        assert not (tmp_path / "third").exists()
        assert [line for line in out.splitlines() if "evaluated" in line] == ["evaluated first", "evaluated second"]
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(started.pid, signal.SIGKILL)
