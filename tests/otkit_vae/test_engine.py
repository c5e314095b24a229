"""The engine on a tiny model: accumulated gradients, its own options, and what callbacks and rows of metrics see."""

import copy
import csv
import logging
import os
import signal
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.profilers import SimpleProfiler

from otkit_vae import callbacks, checkpoint, engine, penalties, training
from otkit_vae.batches import Batches
from otkit_vae.config import TrainConfig
from otkit_vae.engine import Training
from otkit_vae.sampling import undisturbed
from otkit_vae.trainer import Checkpoints, Refused, Unprofiled, make_trainer, restored
from tests.otkit_vae.tiny import SIZE, X, assert_alike, objective_and_model, train

# The engine and its dependencies warn of their own deprecations in a first import.
pytestmark = pytest.mark.filterwarnings("default")


@pytest.mark.parametrize("penalty", ["cramer_wold", "gaussian_w2"])
def test_accumulated_gradients_are_those_of_the_mean_of_the_batches_penalties(tmp_path, penalty):
    class First(Callback):
        gradient = None

        def on_before_optimizer_step(self, trainer, pl_module, optimizer):
            if self.gradient is None:
                self.gradient = pl_module.model.encoder.network[0].weight.grad.clone()

    seen, options = First(), {"posterior": "deterministic", "warmup": 0}
    train(tmp_path, penalty, options={"accumulate_grad_batches": 2}, callback=seen, epochs=1, **options)
    order = Batches(X, SIZE, seed=3)
    parts = [X[order.indices(0, k)] for k in range(2)]

    def gradient(*batches):
        model, objective = objective_and_model(penalty, **options)
        sum(objective(model, batch).loss for batch in batches).div(len(batches)).backward()
        return model.encoder.network[0].weight.grad

    assert torch.allclose(seen.gradient, gradient(*parts), rtol=1e-5, atol=1e-6)
    as_one = torch.allclose(seen.gradient, gradient(torch.cat(parts)), rtol=1e-5, atol=1e-6)
    assert as_one == (penalty == "gaussian_w2")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"accumulate_grad_batches": 2}, "accumulate_grad_batches is 2; the penalty wae_gan expects 1"),
        ({"gradient_clip_val": 0.5}, "gradient_clip_val is 0.5; the penalty wae_gan expects None"),
        ({"colour": "red"}, "colour"),
        ({"devices": "many"}, "`devices` selected with"),
        ({"max_epochs": 3}, "max_epochs is set by otkit-vae"),
        ({"precision": "17"}, "precision"),
        ({"precision": "transformer-engine"}, "transformer_engine.* not met"),
        ({"precision": "16-true"}, "precision is 16-true, in which .*; expected 16-mixed"),
        ({"callbacks": [{"class_path": "pytorch_lightning.callbacks.Nothing"}]}, "Nothing"),
        (
            {"callbacks": {"class_path": "GradientAccumulationScheduler", "init_args": {"scheduling": {0: 2}}}},
            "callbacks has a GradientAccumulationScheduler; expected accumulate_grad_batches",
        ),
        (
            {"callbacks": [{"class_path": "StochasticWeightAveraging", "init_args": {"swa_lrs": 1e-3}}]},
            "callbacks has a StochasticWeightAveraging; expected EMAWeightAveraging",
        ),
        (
            {"callbacks": [{"class_path": "LearningRateFinder"}]},
            "callbacks has a LearningRateFinder; expected learning_rate",
        ),
        (
            {"callbacks": [{"class_path": "BackboneFinetuning"}]},
            "callbacks has a BackboneFinetuning; expected one that knows encoder and decoder",
        ),
        (
            {"callbacks": [{"class_path": "ModelCheckpoint"}]},
            "callbacks has a ModelCheckpoint; expected checkpoint_steps",
        ),
        (
            {"callbacks": [{"class_path": "EarlyStopping", "init_args": {"monitor": "loss"}}]},
            "callbacks has an EarlyStopping that monitors 'loss'; expected one of train_loss, ",
        ),
        (
            {
                "callbacks": [{"class_path": "EarlyStopping", "init_args": {"monitor": "held_out_loss"}}],
                "limit_val_batches": 0,
            },
            "an EarlyStopping that monitors 'held_out_loss'; expected one of train_loss, [^,]*, [^,]*, "
            "train_posterior_scale, or strict: false$",
        ),
        ({"limit_train_batches": 0}, "limit_train_batches is 0; expected steps"),
        ({"max_steps": 0}, "max_steps is 0; expected steps"),
        ({"accumulate_grad_batches": -1}, "accumulate_grad_batches is -1; expected a whole number >= 1$"),
        ({"accumulate_grad_batches": 0}, "accumulate_grad_batches is 0; expected a whole number >= 1$"),
        ({"val_check_interval": 0}, "val_check_interval is 0; expected a whole number >= 1$"),
        ({"val_check_interval": -2}, "val_check_interval is -2; expected a whole number >= 1$"),
        ({"check_val_every_n_epoch": 0}, "check_val_every_n_epoch is 0; expected a whole number >= 1$"),
        ({"check_val_every_n_epoch": -1}, "check_val_every_n_epoch is -1; expected a whole number >= 1$"),
        ({"log_every_n_steps": -1}, "log_every_n_steps is -1; expected a whole number >= 0$"),
        ({"min_epochs": -1}, "min_epochs is -1; expected a whole number >= 0$"),
        ({"min_steps": -1}, "min_steps is -1; expected a whole number >= 0$"),
        ({"gradient_clip_val": -1}, "gradient_clip_val is -1; expected a number >= 0, or null$"),
        ({"gradient_clip_val": -0.5}, "gradient_clip_val is -0.5; expected a number >= 0, or null$"),
    ],
)
def test_options_that_do_not_go_are_refused_before_training(options, message):
    with pytest.raises(ValueError, match=f"(?s)^trainer: .*{message}"):
        make_trainer(options, penalties.get("wae_gan"), epochs=1)


def test_numbers_that_switch_something_off_are_not_refused():
    off = {"gradient_clip_val": 0, "log_every_n_steps": 0, "min_epochs": 0, "min_steps": 0, "val_check_interval": 0.5}
    trainer = make_trainer(off, penalties.get("kl"), epochs=1)
    assert {name: getattr(trainer, name) for name in off} == off


def test_a_callback_that_is_not_strict_may_monitor_anything():
    callback = {"class_path": "EarlyStopping", "init_args": {"monitor": "loss", "strict": False}}
    assert (
        make_trainer({"callbacks": [callback]}, penalties.get("kl"), epochs=1).early_stopping_callback.monitor == "loss"
    )


def test_what_the_engine_has_of_its_own_is_there_if_it_is_asked_for():
    plain = make_trainer({}, penalties.get("kl"), epochs=1)
    assert (plain.loggers, type(plain.profiler)) == ([], Unprofiled)
    double = {"class_path": "pytorch_lightning.plugins.precision.DoublePrecision"}
    options = {"profiler": "simple", "plugins": [double], "gradient_clip_val": 0.0}
    asked = make_trainer(options, penalties.get("wae_gan"), epochs=1)
    assert type(asked.profiler) is SimpleProfiler
    assert type(asked.strategy.checkpoint_io) is Checkpoints
    assert (plain.precision, asked.precision) == ("32-true", "64-true")


def test_callbacks_and_loggers_are_options(tmp_path):
    options = {
        "callbacks": [{"class_path": "LearningRateMonitor", "init_args": {"logging_interval": "epoch"}}],
        "logger": [
            {"class_path": "CSVLogger", "init_args": {"save_dir": str(tmp_path / "csv")}},
            {"class_path": "TensorBoardLogger", "init_args": {"save_dir": str(tmp_path / "tensorboard")}},
        ],
    }
    train(tmp_path / "run", options=options, epochs=2)
    (file,) = (tmp_path / "csv").rglob("metrics.csv")
    assert "train_loss" in file.read_text()
    assert "lr-Adam" in file.read_text()
    assert list((tmp_path / "tensorboard").rglob("events.out*"))


@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed"])
def test_gradients_in_mixed_precision_are_clipped(tmp_path, precision):
    class Largest(Callback):
        norm = 0.0

        def on_train_batch_end(self, trainer, pl_module, *_):
            norm = torch.nn.utils.get_total_norm([p.grad for p in pl_module.parameters()]).item()
            self.norm = max(self.norm, norm)

    seen = Largest()
    train(tmp_path, options={"precision": precision, "gradient_clip_val": 1e-3}, callback=seen)
    assert 0 < seen.norm < 1.01e-3


def test_the_checkpoint_need_not_be_where_a_process_of_another_machine_sees_it(tmp_path):
    class Elsewhere(Callback):
        def on_fit_end(self, trainer, pl_module):
            (tmp_path / "checkpoint.ckpt").unlink()

    train(tmp_path, epochs=1, callback=Elsewhere())
    assert not (tmp_path / "checkpoint.ckpt").exists()


def test_a_row_has_the_last_evaluation_of_its_epoch(tmp_path):
    class Last(Callback):
        model = None

        def on_validation_end(self, trainer, pl_module):
            self.model = copy.deepcopy(pl_module.model)

    last = Last()
    options = {"posterior": "deterministic", "warmup": 0}
    train(tmp_path, "gaussian_w2", options={"val_check_interval": 2}, callback=last, epochs=1, **options)
    (row,) = checkpoint.read(tmp_path / "checkpoint.ckpt")[checkpoint.KEY]["history"]
    _, objective = objective_and_model("gaussian_w2", **options)
    expected = objective(last.model.eval(), X[:21]).reconstruction.item()
    assert row["held_out_reconstruction"] == pytest.approx(expected, rel=1e-5)


def test_what_a_training_sets_is_as_it_was_afterwards():
    logger, benchmark = logging.getLogger("pytorch_lightning"), torch.backends.cudnn.benchmark
    level = logger.level
    with restored():
        os.environ["SET_IN_A_TRAINING"] = "1"
        torch.backends.cudnn.benchmark = not benchmark
    assert "SET_IN_A_TRAINING" not in os.environ
    assert (logger.level, torch.backends.cudnn.benchmark) == (level, benchmark)


@pytest.mark.parametrize(
    ("options", "unused"),
    [
        ({"devices": 2}, True),
        ({"devices": "2"}, True),
        ({"num_nodes": 2}, True),
        ({"devices": 2, "strategy": "ddp"}, None),
        ({"devices": "1"}, None),
    ],
    ids=str,
)
def test_several_processes_look_for_parameters_that_a_penalty_does_not_reach(options, unused):
    for name, expected in (("none", unused), ("wae_gan", unused), ("kl", None)):
        strategy = make_trainer({"accelerator": "cpu", **options}, penalties.get(name), epochs=1).strategy
        assert getattr(strategy, "_ddp_kwargs", {}).get("find_unused_parameters") is expected


@pytest.mark.parametrize("asked", [{}, {"deterministic": False}], ids=str)
def test_a_training_is_deterministic_unless_it_is_asked_not_to_be(asked):
    with restored():
        make_trainer(asked, penalties.get("kl"), epochs=1)
        assert torch.are_deterministic_algorithms_enabled() is not bool(asked)


def test_variables_and_the_answer_to_ctrl_c_are_after_a_training_as_they_were(monkeypatch):
    monkeypatch.setenv("CHANGED_IN_A_TRAINING", "before")
    answer = signal.getsignal(signal.SIGINT)
    try:
        with restored():
            os.environ["CHANGED_IN_A_TRAINING"] = "within"
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        assert os.environ["CHANGED_IN_A_TRAINING"] == "before"
        assert signal.getsignal(signal.SIGINT) is answer
    finally:
        signal.signal(signal.SIGINT, answer)


def test_a_training_need_not_be_in_the_main_thread(tmp_path):
    """Which alone may set what answers a signal."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(train, tmp_path, epochs=1).result()
    assert checkpoint.read(tmp_path / "checkpoint.ckpt")["global_step"] == 5


def test_the_bar_tells_the_epoch_and_its_means_so_far(tmp_path, monkeypatch):
    told, closed = [], []

    class Bar:
        def __init__(self, **shown):
            told.append((shown["total"], shown["initial"], shown["disable"]))

        def update(self, steps):
            return steps == 1

        def set_postfix(self, shown, refresh):
            told.append(shown)

        def close(self):
            closed.append(self)

    monkeypatch.setattr(callbacks, "tqdm", Bar)
    train(tmp_path, progress=True)
    (total, initial, disable), *steps = told
    assert (total, initial, disable, len(steps), len(closed)) == (15, 0, False, 15, 1)
    rows = checkpoint.read(tmp_path / "checkpoint.ckpt")[checkpoint.KEY]["history"]
    for row, shown in zip(rows, steps[4::5], strict=True):
        means = {name: f"{row[f'train_{name}']:.4g}" for name in ("loss", "penalty")}
        assert shown == {"epoch": row["epoch"], **means}


def test_metrics_have_columns_that_come_in_later_epochs(tmp_path):
    train(tmp_path, options={"check_val_every_n_epoch": 2}, epochs=2)
    with (tmp_path / "metrics.csv").open() as file:
        first, second = csv.DictReader(file)
    assert first["held_out_loss"] == ""
    assert float(second["held_out_loss"]) > 0


def test_a_training_that_ends_within_its_first_epoch_has_a_row_of_what_there_is_of_it(tmp_path):
    for options in ({"max_steps": 2}, {"max_steps": 3}):
        train(tmp_path / "parts", options=options, resume=True)
        with (tmp_path / "parts" / "metrics.csv").open() as file:
            (row,) = csv.DictReader(file)
        assert (row["epoch"], row["step"]) == ("0", str(options["max_steps"]))
        assert float(row["train_loss"]) > 0
    train(tmp_path / "parts", resume=True)
    train(tmp_path / "whole")
    assert_alike(tmp_path / "parts", tmp_path / "whole")


@pytest.mark.parametrize("within", [1.0, 0.5])
def test_callbacks_can_monitor_what_a_row_of_metrics_has(tmp_path, within):
    arguments = {"monitor": "held_out_loss", "patience": 1, "min_delta": 1e9, "check_on_train_epoch_end": True}
    options = {"val_check_interval": within, "callbacks": [{"class_path": "EarlyStopping", "init_args": arguments}]}
    ended = train(tmp_path / "parts", options=options)
    assert ended.current_epoch == 2
    patience = ended.early_stopping_callback
    history = checkpoint.read(tmp_path / "parts" / "checkpoint.ckpt")[checkpoint.KEY]["history"]
    assert patience.best_score.item() == pytest.approx(history[0]["held_out_loss"], rel=1e-6)
    train(tmp_path / "parts", options={"val_check_interval": within}, resume=True)
    train(tmp_path / "whole", options={"val_check_interval": within})
    assert_alike(tmp_path / "parts", tmp_path / "whole")


def early(**arguments):
    return {"callbacks": [{"class_path": "EarlyStopping", "init_args": arguments}]}


@pytest.mark.parametrize(
    ("monitor", "at_epochs", "options", "steps"),
    [
        ("held_out_loss", None, {"check_val_every_n_epoch": 2}, 20),
        ("held_out_loss", True, {"check_val_every_n_epoch": 2}, 20),
        ("held_out_loss", None, {"val_check_interval": 2}, 4),
        ("train_loss", None, {"check_val_every_n_epoch": 2}, 10),
        ("train_loss", None, {"val_check_interval": 2}, 10),
    ],
    ids=str,
)
def test_an_early_stopping_looks_when_there_is_a_new_value(tmp_path, monitor, at_epochs, options, steps):
    """Of patience 1 and with nothing ever better, it ends the training at the second value that there is."""
    options |= early(monitor=monitor, patience=1, min_delta=1e9, check_on_train_epoch_end=at_epochs)
    assert train(tmp_path, options=options, epochs=6).global_step == steps


def test_a_held_out_loss_has_the_weight_that_its_epoch_ends_with(tmp_path):
    train(tmp_path, warmup=12)
    weight = penalties.get("kl").default_weight
    rows = checkpoint.read(tmp_path / "checkpoint.ckpt")[checkpoint.KEY]["history"]
    for row, share in zip(rows, (5 / 12, 10 / 12, 1), strict=True):
        expected = row["held_out_reconstruction"] + share * weight * row["held_out_penalty"]
        assert row["held_out_loss"] == pytest.approx(expected, rel=1e-5)
        assert row["held_out_penalty"] > 1e-4


def test_no_two_batches_have_the_same_draws_of_one_seed_or_another():
    model, objective = objective_and_model("kl")
    drawn = []
    with undisturbed():
        for seed in range(3):
            drawing = Training(model, objective, 1e-2, seed=seed)
            for begins in (drawing.on_train_batch_start, drawing.on_validation_batch_start):
                for batch_idx in range(3):
                    begins(X, batch_idx)
                    drawn.append(torch.rand(()).item())
    assert len(set(drawn)) == len(drawn)


def test_a_row_has_the_steps_that_were_made_and_the_mean_deviation_of_posteriors_of_any_kind(tmp_path, monkeypatch):
    monkeypatch.setattr("tests.otkit_vae.tiny.SIZE", 11)  # 21 held-out observations are 11 and 10
    train(tmp_path, posterior="full")
    rows = checkpoint.read(tmp_path / "checkpoint.ckpt")[checkpoint.KEY]["history"]
    assert [row["step"] for row in rows] == [4, 8, 12]
    scale = checkpoint.load(tmp_path).encode(X[:21]).stddev.mean().item()
    assert rows[-1]["held_out_posterior_scale"] == pytest.approx(scale, rel=1e-5)


@pytest.fixture
def told(tmp_path, monkeypatch):
    """What the engine is given by a training; it refuses."""
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", np.random.default_rng(0).random((60, 6)))
    calls = []

    def refuse(*given, **options):
        calls.append((*given, options))
        raise Refused("no")

    monkeypatch.setattr(engine, "fit", refuse)
    return calls


def test_the_engine_is_told_the_options_of_a_training(told, capsys):
    options = {"batch_size": 48, "learning_rate": 0.5, "seed": 4, "checkpoint_steps": 3, "max_gradient_norm": 7.0}
    with pytest.raises(Refused):
        training.train(TrainConfig(penalty="kl", data="x.npy", progress=False, **options))
    ((*_, given),) = told
    assert options | {"progress": False, "resume": False} == {
        name: given[name] for name in (*options, "progress", "resume")
    }
    # There are 48 to train on, which is what was asked for.
    assert "48 observations to train on" in (err := capsys.readouterr().err)
    assert "all in one batch" not in err


def test_a_training_without_a_folder_takes_the_next_that_is_free(told, tmp_path):
    for k in (1, 3):
        (tmp_path / "runs" / f"x-kl-{k}").mkdir(parents=True)
    with pytest.raises(Refused):
        training.train(TrainConfig(penalty="kl", data="x.npy"))
    assert told[0][5].name == "x-kl-2"
    assert {folder.name for folder in (tmp_path / "runs").iterdir()} == {"x-kl-1", "x-kl-3"}
