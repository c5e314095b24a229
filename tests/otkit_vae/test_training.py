"""Training as a user starts it: short, on real digits, for every penalty."""

import copy
import csv
import re
import subprocess
import sys
from dataclasses import asdict, replace
from datetime import timedelta

import matplotlib.image
import numpy as np
import pytest
import torch
import yaml

import otkit_vae
from otkit_vae import VAE, Objective, cli, penalties, training
from otkit_vae.checkpoint import load
from otkit_vae.config import TrainConfig
from otkit_vae.engine import Training
from otkit_vae.evaluation import evaluate
from tests.otkit_vae.shell import train

PICTURES = {"latent.png", "reconstructions.png", "samples.png"}
FILES = {"checkpoint.ckpt", "config.yaml", "metrics.csv", "report.html", *PICTURES}


def metrics(folder):
    with open(folder / "metrics.csv") as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch, undrawn):
    monkeypatch.chdir(tmp_path)


# The engine and its dependencies warn of their own deprecations in a first import.
pytestmark = pytest.mark.filterwarnings("default")


@pytest.mark.parametrize("penalty", penalties.names())
def test_a_short_training_lowers_the_loss(tmp_path, capsys, request, penalty):
    out, expected = tmp_path / "run", FILES
    if penalty not in ("none", "wae_gan", "wasserstein"):
        request.getfixturevalue("unreported")
        expected = FILES - {"report.html"}
    assert train("--penalty", penalty, "--epochs", "12", "--out", str(out)) == 0
    assert {file.name for file in out.iterdir()} == expected
    rows = metrics(out)
    assert [row["epoch"] for row in rows] == list(range(12))
    # Epoch means, each with its own noise: the fall is several times that.
    assert rows[-1]["train_loss"] < 0.8 * rows[0]["train_loss"]
    assert rows[-1]["held_out_loss"] < 0.9 * rows[0]["held_out_loss"]
    assert all(row["train_posterior_scale"] > 0 for row in rows)
    weight = yaml.safe_load((out / "config.yaml").read_text())["weight"]
    for row in rows:
        assert row["train_loss"] == pytest.approx(row["train_reconstruction"] + weight * row["train_penalty"], rel=1e-4)
    printed = capsys.readouterr().out
    for word in ("squared reconstruction error", "penalty", "W2 of q(z) to p(z)", "at q = p", str(out)):
        assert word in printed


@pytest.mark.usefixtures("unreported")
def test_same_seed_same_weights_and_the_config_repeats_the_run(tmp_path):
    first, second, third, other = (tmp_path / name for name in ("first", "second", "third", "other"))
    options = ("--epochs", "3", "--penalty", "wasserstein", "--latent_dim", "3")
    train(*options, "--seed", "7", "--out", str(first))
    torch.rand(11)  # the state of the process does not matter
    train(*options, "--seed", "7", "--out", str(second))
    train("--config", str(first / "config.yaml"), "--out", str(third))
    train(*options, "--seed", "8", "--out", str(other))
    weights = [load(folder).state_dict() for folder in (first, second, third, other)]
    for name, tensor in weights[0].items():
        assert torch.equal(tensor, weights[1][name]), name
        assert torch.equal(tensor, weights[2][name]), name
    assert not torch.equal(weights[0]["decoder.network.0.weight"], weights[3]["decoder.network.0.weight"])
    assert (first / "metrics.csv").read_text() == (second / "metrics.csv").read_text()


def test_a_users_data_and_the_pictures(tmp_path, capsys):
    x = np.random.default_rng(0).normal(size=(60, 6, 5))
    np.savez(tmp_path / "mine.npz", x=x, y=np.arange(60) % 4)
    assert train("--data", "mine.npz", "--likelihood", "gaussian", "--epochs", "2", "--latent_dim", "1") == 0
    (out,) = (tmp_path / "runs").iterdir()
    assert out.name == "mine-wasserstein-1"
    for picture in ("reconstructions.png", "samples.png", "latent.png"):
        pixels = matplotlib.image.imread(out / picture)
        assert min(pixels.shape[:2]) > 200
        assert pixels[..., :3].std() > 0.02  # something is drawn
    np.save(tmp_path / "curves.npy", x[:, 0])
    assert train("--data", "curves.npy", "--likelihood", "gaussian", "--epochs", "1") == 0


def test_a_table_whose_columns_have_scales_far_apart_is_warned_of(tmp_path, monkeypatch):
    def begun(*_, **__):
        raise ValueError("begun")

    monkeypatch.setattr("otkit_vae.engine.fit", begun)
    x = np.random.default_rng(0).normal(size=(20, 2)).round(3) * [1, 1000]
    np.savetxt(tmp_path / "table.csv", x, delimiter=",")
    options = "--data", tmp_path / "table.csv", "--latent_dim", 1, "--out", tmp_path / "run"
    with pytest.warns(UserWarning, match="the gaussian likelihood has one scale for all"):
        assert train("--likelihood", "gaussian", *options) == 2


@pytest.mark.usefixtures("unreported")
def test_reconstructions_are_closer_than_any_average(tmp_path):
    train("--epochs", "60", "--penalty", "gaussian_w2", "--weight", "0.03", "--out", str(tmp_path / "run"))
    data, model = otkit_vae.data.load_data("digits"), otkit_vae.load(tmp_path / "run")
    error = (model.reconstruct(data.held_out) - data.held_out).square().sum((1, 2)).mean()
    spread = (data.train.mean(0) - data.held_out).square().sum((1, 2)).mean()
    assert error < 0.3 * spread


@pytest.mark.parametrize(
    "options",
    [
        ("--penalty", "kl", "--posterior", "full", "--prior", "mixture", "--components", "3"),
        ("--penalty", "mmd", "--penalty_options", "{kernel: gaussian}", "--posterior", "deterministic"),
        ("--penalty", "wasserstein", "--network", "conv", "--warmup", "20", "--balance", "gradient"),
        ("--penalty", "sliced", "--likelihood", "gaussian", "--scale", "0.2", "--network", "conv", "--widths", "[8,8]"),
    ],
)
def test_every_choice_trains_loads_and_repeats(tmp_path, request, options):
    first, second = tmp_path / "first", tmp_path / "second"
    assert train(*options, "--epochs", "2", "--out", str(first)) == 0
    request.getfixturevalue("unreported")
    assert train("--config", str(first / "config.yaml"), "--out", str(second)) == 0
    models = [load(folder) for folder in (first, second)]
    for name, tensor in models[0].state_dict().items():
        assert torch.equal(tensor, models[1].state_dict()[name]), name
    x = torch.rand(3, 8, 8)
    assert torch.equal(models[0].reconstruct(x), models[1].reconstruct(x))


@pytest.mark.usefixtures("unreported")
@pytest.mark.parametrize("penalty", ["wasserstein", "mmd", "wae_gan"])
def test_a_training_in_mixed_precision(tmp_path, penalty):
    options = ("--penalty", penalty, "--epochs", "2", "--trainer.precision", "bf16-mixed")
    assert train(*options, "--posterior", "full", "--out", str(tmp_path / "run")) == 0
    rows = metrics(tmp_path / "run")
    assert rows[1]["train_loss"] < rows[0]["train_loss"]


def test_an_adversary_is_trained_by_an_optimiser_of_its_own():
    model, objective, x = VAE.sized((4,), 2), Objective(penalties.get("wae_gan", learning_rate=0.5)), torch.rand(8, 4)
    objective.check(model, x)
    training = Training(model, objective, 1e-3)
    ours, theirs = training.configure_optimizers()
    assert theirs.param_groups[0]["lr"] == 0.5
    counts = [len(optimizer.param_groups[0]["params"]) for optimizer in (ours, theirs)]
    assert counts == [len(list(model.parameters())), len(list(objective.penalty.parameters()))]
    assert not training.automatic_optimization


def test_the_weight_warms_up_by_steps(tmp_path):
    train("--penalty", "kl", "--warmup", "44", "--epochs", "5", "--out", str(tmp_path / "run"))
    rows, weight = metrics(tmp_path / "run"), 1.0
    for row, mean in zip(rows, (5 / 44, 16 / 44, 27 / 44, 38 / 44, 1.0), strict=True):
        added = row["train_loss"] - row["train_reconstruction"]
        # The penalty varies in an epoch, and in the first one most.
        assert added == pytest.approx(weight * mean * row["train_penalty"], rel=0.15 if row["epoch"] else 0.8)


def test_checkpoints_hold_no_code(tmp_path):
    (tmp_path / "bad.ckpt").write_bytes(b"not a checkpoint")
    with pytest.raises(ValueError, match=r"bad\.ckpt is not a checkpoint of otkit-vae train"):
        load(tmp_path / "bad.ckpt")
    torch.save(torch.zeros(3), tmp_path / "tensor.ckpt")
    with pytest.raises(ValueError, match=r"tensor\.ckpt is not a checkpoint of otkit-vae train: it has no 'otkit_vae'"):
        load(tmp_path / "tensor.ckpt")
    torch.save({"otkit_vae": print}, tmp_path / "code.ckpt")
    with pytest.raises(ValueError, match=r"code\.ckpt is not a checkpoint"):
        load(tmp_path / "code.ckpt")
    with pytest.raises(FileNotFoundError, match="no checkpoint"):
        load(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("--penalty", "wassserstein"),
            "penalty is 'wassserstein'; expected one of aggregated_gaussian_w2, cramer_wold, gaussian_w2, kl, ",
        ),
        (("--data", "nowhere.npz"), "data: no file nowhere.npz"),
        (("--data", "empty.npy"), "empty.npy has shape (0, 4)"),
        (("--data", "nan.npy"), "nan.npy has 8 values that are NaN"),
        (("--data", "wide.npy"), "the bernoulli likelihood expects [0, 1]"),
        (("--epochs", "0"), "epochs is 0"),
        (("--epochs", "many"), 'Parser key "epochs": Expected a'),
        (("--weight", "-1"), "weight is -1.0"),
        (("--likelihood", "poisson"), "likelihood is 'poisson'"),
        (("--batch_size", "1"), "batch_size is 1; the penalty 'wasserstein' needs at least 2"),
        (("--seed", "-1"), "seed is -1"),
        (("--penalty", "kl", "--posterior", "deterministic"), "posterior is deterministic; the penalty kl"),
        (("--penalty", "gaussian_w2", "--prior", "mixture"), "prior is EqualMixture; the penalty gaussian_w2"),
        (("--penalty", "mmd", "--penalty_options", "{kernel: linear}"), "kernel is 'linear'"),
        (("--penalty", "mmd", "--penalty_options", "{colour: red}"), "does not take the options colour"),
        (("--penalty", "none", "--balance", "gradient"), "balance: the gradients have norms"),
        (("--balance", "weight"), "balance is 'weight'; expected one of none, gradient"),
        (("--network", "rnn"), "network is 'rnn'"),
        (("--prior", "cauchy"), "prior is 'cauchy'"),
        (("--posterior", "half"), "posterior is 'half'"),
        (("--warmup", "-3"), "warmup is -3"),
        (("--scale", "0.1"), "expected a scale with gaussian only"),
        (("--components", "3"), "expected a number of components with mixture only"),
        (("--network", "conv", "--data", "curves.npy"), "network is 'conv', and observations have shape (4,)"),
        (("--data", "mnist", "--data_root", "nowhere"), "data_root: no file"),
        (("--out", "full"), "out: full exists and is not empty"),
        (("--out", "nan.npy"), "out: nan.npy exists"),
        (("--config", "nowhere.yaml"), "nowhere.yaml"),
        (("--colour", "red"), "--colour"),
        (("--out", ""), "out is empty"),
        (("--out", "nan.npy/sub"), "out: nan.npy/sub cannot be made"),
        (("--latent_dim", "100000000000"), "latent_dim 100000000000"),
    ],
)
def test_bad_input_is_one_line_and_status_2(tmp_path, capsys, arguments, message):
    np.save("empty.npy", np.zeros((0, 4)))
    np.save("nan.npy", np.full((2, 4), np.nan))
    np.save("curves.npy", np.random.default_rng(0).random(size=(40, 4)))
    np.save("wide.npy", np.random.default_rng(0).normal(size=(40, 4)))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("precious")
    assert train(*arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert err.count("\n") == 1
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--trainer.callbacks", "[{class_path: LearningRateMonitor}]"), "no logger"),
        (("--trainer.val_check_interval", "100000"), "error: `val_check_interval` (100000) must be"),
        (("--trainer.max_time", "00:00:00:00"), "expected a longer max_time"),
    ],
)
def test_what_the_engine_refuses_leaves_no_folder(tmp_path, capsys, arguments, message):
    assert train(*arguments) == 2
    shown, refusal = capsys.readouterr().err.splitlines()
    assert "observations to train on" in shown
    assert message in refusal
    assert not list(tmp_path.glob("runs/*"))


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("epochs", 1.5),
        ("epochs", True),
        ("seed", 0.5),
        ("weight", "3"),
        ("widths", 8),
        ("widths", [8.5]),
        ("learning_rate", "a"),
        ("progress", 3),
        ("out", 3),
        ("data", None),
    ],
)
def test_options_from_python_are_of_their_types(option, value):
    with pytest.raises(TypeError, match=f"{option} is "):
        TrainConfig(**{option: value})


@pytest.mark.parametrize(("option", "value"), [("trainer", None), ("trainer", [("devices", 1)]), ("epochs", "3")])
def test_options_to_go_on_with_are_of_their_types(tmp_path, option, value):
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(asdict(TrainConfig())))
    with pytest.raises(TypeError, match=f"^{option} is {re.escape(repr(value))}; expected "):
        training.resume(tmp_path, **{option: value})


@pytest.mark.parametrize(
    ("option", "least", "refused"),
    [
        ("weight", 0, -1e-9),
        ("weight", 1e300, float("inf")),
        ("warmup", 0, -1),
        ("checkpoint_steps", 1, 0),
        ("latent_dim", 1, 0),
        ("components", 1, 0),
        ("epochs", 1, 0),
        ("batch_size", 2, 1),  # that of the penalty
        ("widths", [1], [0]),
        ("learning_rate", 1e-300, 0),
        ("scale", 1e300, float("inf")),
        ("max_gradient_norm", 1e-300, 0.0),
        ("seed", 2**32 - 1, 2**32),
    ],
)
def test_options_have_their_limits(option, least, refused):
    assert getattr(TrainConfig(penalty="wasserstein", **{option: least}), option) == least
    with pytest.raises(ValueError, match=f"^{option} is "):
        TrainConfig(penalty="wasserstein", **{option: refused})


def test_a_weight_is_the_penaltys_own_unless_it_is_given_or_to_be_balanced():
    config = TrainConfig(penalty="sliced")
    assert config.with_weight((8, 8)).weight == penalties.get("sliced").weight_for((8, 8)) != 1
    assert replace(config, weight=0.0).with_weight((8, 8)).weight == 0
    assert replace(config, balance="gradient").with_weight((8, 8)).weight is None


def test_options_of_numpy_and_paths_are_those_that_a_file_has(tmp_path):
    config = TrainConfig(
        penalty="mmd",
        penalty_options={"scales": np.array([0.5, 2.0])},
        weight=np.float64(0.5),
        data=tmp_path / "x.npy",
        epochs=np.int64(3),
        widths=(np.int32(8),),
        out=tmp_path / "run",
        trainer={"log_every_n_steps": np.int64(5), "strategy": {"init_args": {"timeout": timedelta(minutes=10)}}},
    )
    assert TrainConfig(**yaml.safe_load(yaml.safe_dump(asdict(replace(config, widths=[8]))))) == replace(
        config, widths=[8]
    )
    assert (config.weight, config.epochs, config.data) == (0.5, 3, str(tmp_path / "x.npy"))
    assert config.trainer["strategy"]["init_args"]["timeout"] == "0:10:00"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"trainer": {"callbacks": [object]}}, "trainer.callbacks is <class 'object'>; expected numbers, texts, lists"),
        ({"penalty": "mmd", "penalty_options": {"kernel": torch.ones(2)}}, "penalty_options.kernel is tensor"),
    ],
)
def test_an_option_that_no_file_can_hold_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        TrainConfig(**options)


@pytest.mark.usefixtures("unreported")
def test_numbers_and_samples_of_a_training_are_of_its_seed_and_batches(monkeypatch):
    drawn = []
    for picture in ("reconstructions", "samples", "latent_map"):
        monkeypatch.setattr(f"otkit_vae.pictures.{picture}", lambda *_, **options: drawn.append(options))
    np.save("x.npy", np.random.default_rng(0).random((60, 6)))
    run = training.train(
        TrainConfig(penalty="kl", data="x.npy", epochs=1, widths=[8], progress=False, out="run", seed=4, batch_size=5)
    )
    held_out = otkit_vae.data.load_data("x.npy").held_out
    assert run.evaluation == evaluate(run.model, Objective(penalties.get("kl")), held_out, batch_size=5, seed=4)
    assert drawn == [{}, {"seed": 4}, {}]
    assert not run.model.training


@pytest.mark.usefixtures("unreported")
def test_callbacks_and_loggers_of_the_engine_are_lists(tmp_path):
    """From Python, and from the config that the run leaves."""
    callback = {"class_path": "pytorch_lightning.callbacks.Timer", "init_args": {"duration": "00:01:00:00"}}
    logger = {"class_path": "pytorch_lightning.loggers.CSVLogger", "init_args": {"save_dir": "logs"}}
    options = {"callbacks": [callback], "logger": [logger]}
    config = TrainConfig(penalty="kl", epochs=1, widths=[8], progress=False, out="run", trainer=copy.deepcopy(options))
    training.train(config)
    assert yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["trainer"] == options
    assert train("--config", "run/config.yaml", "--out", "again") == 0
    assert train("--resume", "again", "--epochs", "2", "--trainer.callbacks", yaml.safe_dump([callback])) == 0
    assert len(list((tmp_path / "logs").rglob("metrics.csv"))) == 3


@pytest.mark.usefixtures("bare")
def test_the_engines_own_logger_writes_into_the_run(tmp_path):
    assert train("--trainer.logger", "true", "--epochs", "1", "--penalty", "kl", "--widths", "[8]", "--out", "run") == 0
    assert list((tmp_path / "run" / "lightning_logs" / "version_0").iterdir())
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_loss_that_is_not_finite_stops(capsys):
    assert train("--epochs", "3", "--learning_rate", "1e12", "--penalty", "kl", "--likelihood", "gaussian") == 2
    assert re.search(r"(the loss is|was not) .* at step \d+ \(epoch 0, batch \d+, of the", capsys.readouterr().err)


def test_too_little_memory_of_a_gpu_is_one_line(monkeypatch, capsys):
    def exhausted(_):
        raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 20 GiB.")

    monkeypatch.setattr("otkit_vae.commands.train", exhausted)
    assert train() == 2
    assert capsys.readouterr().err == "otkit-vae: error: CUDA out of memory. Tried to allocate 20 GiB.\n"


def test_the_command_as_a_process(tmp_path):
    run = [sys.executable, "-m", "otkit_vae.cli"]
    done = subprocess.run([*run, "train", "--epochs", "2"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "training: 100%" in done.stderr
    assert "Warning" not in done.stderr
    assert "runs/digits-wasserstein-1" in done.stdout


def test_help_tells_the_options(capsys):
    with pytest.raises(SystemExit, match="0"):
        cli.main(["train", "--help"])
    printed = capsys.readouterr().out
    for word in ("--penalty", "gaussian_w2", "--data", "--epochs", "--seed", "--out", "example:"):
        assert word in printed
