"""The engine on a tiny model: exact resume, accumulated gradients, its own options, and what it leaves behind."""

import copy
import math
import random
import re

import numpy as np
import pytest
import torch
from pytorch_lightning.callbacks import Callback

from otkit_vae import VAE, Objective, callbacks, checkpoint, penalties
from otkit_vae.batches import Batches
from otkit_vae.engine import fit
from otkit_vae.trainer import make_trainer

# The engine and its dependencies warn of their own deprecations in a first import.
pytestmark = pytest.mark.filterwarnings("default")

X = torch.rand(53, 6, generator=torch.Generator().manual_seed(0))
SIZE, EPOCHS = 10, 3


def objective_and_model(penalty, warmup=12, posterior="diagonal"):
    torch.manual_seed(0)
    made = penalties.get(penalty) if isinstance(penalty, str) else penalty
    model, objective = VAE.sized((6,), 2, widths=[8], posterior=posterior), Objective(made, warmup=warmup)
    objective.check(model, X[:SIZE])
    return model, objective


class Stop(Callback):
    """Ends the training with a fault when so many batches are done."""

    def __init__(self, at):
        self.left = at

    def on_train_batch_end(self, *_):
        self.left -= 1
        if not self.left:
            raise EOFError("stopped")


def train(
    out,
    penalty="kl",
    *,
    options=None,
    callback=None,
    every=None,
    resume=False,
    epochs=EPOCHS,
    max_gradient_norm=None,
    progress=False,
    **model_options,
):
    out.mkdir(exist_ok=True)
    model, objective = objective_and_model(penalty, **model_options)
    trainer = make_trainer(options or {}, objective.penalty, epochs=epochs)
    trainer.callbacks += [] if callback is None else [callback]
    fit(
        *(trainer, model, objective, X, X[:21], out),
        batch_size=SIZE,
        learning_rate=1e-2,
        seed=3,
        config={},
        checkpoint_steps=every,
        max_gradient_norm=max_gradient_norm,
        resume=resume,
        progress=progress,
    )
    return trainer


def content(folder):
    return checkpoint.read(folder / "checkpoint.ckpt"), (folder / "metrics.csv").read_text()


def assert_alike(folder, expected):
    (one, rows), (other, their_rows) = content(folder), content(expected)
    assert rows == their_rows
    for name, tensor in other["state_dict"].items():
        assert torch.equal(one["state_dict"][name], tensor), name
    for mine, theirs in zip(one["optimizer_states"], other["optimizer_states"], strict=True):
        for key, state in theirs["state"].items():
            assert all(torch.equal(mine["state"][key][name], value) for name, value in state.items())


@pytest.mark.parametrize("every", [None, 1, 3])
@pytest.mark.parametrize(
    ("penalty", "options"),
    [
        ("kl", {}),
        ("kl", {"max_steps": 15}),
        ("wae_gan", {"precision": "64-true"}),
        ("sliced", {"accumulate_grad_batches": 2, "gradient_clip_val": 1.0}),
    ],
    ids=str,
)
def test_what_goes_on_from_a_checkpoint_is_what_would_have_gone_on(tmp_path, penalty, options, every):
    train(tmp_path / "whole", penalty, options=options, every=every)
    for stop in (1, 3, 5, 6, 9, 14, 15):
        out = tmp_path / f"{stop}"
        with pytest.raises(EOFError):
            train(out, penalty, options=options, every=every, callback=Stop(stop))
        train(out, penalty, options=options, every=every, resume=True)
        assert_alike(out, tmp_path / "whole")


@pytest.mark.parametrize("changed", [{"accumulate_grad_batches": 2}, {"limit_train_batches": 3}], ids=str)
def test_what_makes_the_steps_of_an_epoch_stays(tmp_path, changed):
    train(tmp_path, options={"limit_train_batches": 1.0}, epochs=1)
    ((name, value),) = changed.items()
    with pytest.raises(ValueError, match=rf"^trainer: {name} is {value}, and was 1(\.0)? when .*; expected the same"):
        train(tmp_path, options=changed, resume=True)
    assert checkpoint.read(tmp_path / "checkpoint.ckpt")["epoch"] == 0
    # A checkpoint of an earlier version does not say.
    content = checkpoint.read(tmp_path / "checkpoint.ckpt")
    del content[checkpoint.KEY]["an_epoch"]
    checkpoint.write(content, tmp_path / "checkpoint.ckpt")
    train(tmp_path, resume=True)
    assert checkpoint.read(tmp_path / "checkpoint.ckpt")["epoch"] == 2


def test_more_epochs_later_are_as_many_at_once(tmp_path):
    train(tmp_path / "whole", epochs=3)
    train(tmp_path / "parts", epochs=1)
    train(tmp_path / "parts", epochs=3, resume=True)
    assert_alike(tmp_path / "parts", tmp_path / "whole")
    train(tmp_path / "parts", epochs=3, resume=True)  # ended already
    assert_alike(tmp_path / "parts", tmp_path / "whole")


def test_a_limit_of_steps_within_an_epoch_is_a_pause(tmp_path):
    train(tmp_path / "whole")
    train(tmp_path / "parts", options={"max_steps": 7})
    before = checkpoint.read(tmp_path / "parts" / "checkpoint.ckpt")
    assert before["global_step"] == 7
    assert len(before[checkpoint.KEY]["history"]) == 1
    train(tmp_path / "parts", resume=True)
    assert_alike(tmp_path / "parts", tmp_path / "whole")


@pytest.mark.parametrize(("steps", "options"), [(10, {}), (6, {"accumulate_grad_batches": 2})], ids=str)
def test_a_limit_of_steps_at_the_end_of_an_epoch_is_a_pause(tmp_path, steps, options):
    train(tmp_path / "whole", options=options)
    train(tmp_path / "parts", options={"max_steps": steps, **options}, every=100)
    before = checkpoint.read(tmp_path / "parts" / "checkpoint.ckpt")
    assert before["global_step"] == steps
    assert len(before[checkpoint.KEY]["history"]) == 2
    train(tmp_path / "parts", options=options, resume=True)
    assert_alike(tmp_path / "parts", tmp_path / "whole")


class Ask(Callback):
    """Asks for an end after a batch, or after an evaluation, as a limit of time does, or of patience."""

    def __init__(self, at, hook):
        self.left = at
        setattr(self, hook, self.ask)

    def ask(self, trainer, *_):
        self.left -= 1
        trainer.should_stop |= not self.left


@pytest.mark.parametrize(
    ("at", "hook", "options", "stopped"),
    [
        (7, "on_train_batch_end", {}, 7),
        (10, "on_train_batch_end", {}, 10),
        (6, "on_train_batch_end", {"accumulate_grad_batches": 3}, 3),
        (9, "on_train_batch_end", {"accumulate_grad_batches": 3}, 4),
        (3, "on_validation_end", {"val_check_interval": 2}, 8),
        (3, "on_validation_end", {"val_check_interval": 2, "accumulate_grad_batches": 3}, 3),
        (2, "on_validation_end", {}, 10),
    ],
    ids=str,
)
def test_a_training_that_is_asked_to_end_leaves_a_checkpoint_of_its_end(tmp_path, at, hook, options, stopped):
    """Within a window of accumulated gradients it ends with the window, of which the checkpoint can be."""
    train(tmp_path / "whole", options=options)
    ended = train(tmp_path / "parts", options=options, every=100, callback=Ask(at, hook))
    assert ended.global_step == checkpoint.read(tmp_path / "parts" / "checkpoint.ckpt")["global_step"] == stopped
    train(tmp_path / "parts", options=options, resume=True)
    assert_alike(tmp_path / "parts", tmp_path / "whole")


@pytest.mark.parametrize(("every", "steps"), [(None, [5, 10, 15]), (3, [3, 6, 9, 12, 15]), (4, [4, 8, 12, 15])])
def test_checkpoints_are_as_many_steps_apart_as_was_asked_for(tmp_path, monkeypatch, every, steps):
    written, write = [], checkpoint.write

    def noted(content, file):
        written.append(content["global_step"])
        write(content, file)

    monkeypatch.setattr(checkpoint, "write", noted)
    train(tmp_path, every=every)
    assert written == steps


def test_the_global_states_do_not_matter_and_generators_of_others_are_seeded_too(tmp_path):
    class Draws(Callback):
        def __init__(self):
            self.seen = []

        def on_train_batch_end(self, *_):
            self.seen.append((torch.rand(()).item(), np.random.rand(), random.random()))  # noqa: NPY002

    whole, rest = Draws(), Draws()
    train(tmp_path / "whole", callback=whole)
    with pytest.raises(EOFError):
        train(tmp_path / "parts", callback=Stop(8))
    np.random.seed(17)  # noqa: NPY002
    train(tmp_path / "parts", callback=rest, resume=True)
    # From the checkpoint of the first epoch on.
    assert rest.seen == whole.seen[5:]
    assert len(set(whole.seen)) == 15


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
        ({"callbacks": [{"class_path": "pytorch_lightning.callbacks.Nothing"}]}, "Nothing"),
    ],
)
def test_options_that_do_not_go_are_refused_before_training(options, message):
    with pytest.raises(ValueError, match=f"(?s)^trainer: .*{message}"):
        make_trainer(options, penalties.get("wae_gan"), epochs=1)


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


class Poison(penalties.PerSamplePenalty):
    """A mean of squares, until a call at which value or gradient is not finite."""

    def __init__(self, at, what):
        super().__init__()
        self.left, self.what = at, what

    def per_observation(self, posterior, z, prior, *, generator=None):
        # Training only: held-out data have no gradients.
        self.left -= z.requires_grad
        value = z.square().sum(-1)
        if self.left:
            return value
        if self.what == "large":
            return 1e9 * value
        return value + float("nan") if self.what == "loss" else value + (0 * value).sqrt()


@pytest.mark.parametrize(
    ("what", "said"), [("loss", "the loss is nan"), ("gradient", "the gradient of model.encoder.* was not finite")]
)
@pytest.mark.parametrize("batch", [1, 8, 10])
def test_a_loss_or_gradient_that_is_not_finite_names_its_batch_and_where_to_go_on(tmp_path, what, said, batch):
    with pytest.raises(ArithmeticError, match=said) as error:
        train(tmp_path, Poison(batch, what), warmup=0)
    epoch, position = divmod(batch - 1, 5)
    indices = Batches(X, SIZE, seed=3).indices(epoch, position).tolist()
    message = str(error.value)
    assert f"at step {batch - 1} (epoch {epoch}, batch {position}, of the training observations {indices})" in message
    if epoch == 0:
        assert "there is no checkpoint of this training yet" in message
        assert not (tmp_path / "checkpoint.ckpt").exists()
        return
    assert f"the last checkpoint is {tmp_path / 'checkpoint.ckpt'}, of step 5" in message
    assert f"otkit-vae train --resume {tmp_path}" in message
    state = checkpoint.read(tmp_path / "checkpoint.ckpt")["state_dict"]
    assert all(torch.isfinite(tensor).all() for tensor in state.values())


@pytest.mark.parametrize("options", [{}, {"gradient_clip_val": 1.0}], ids=str)
def test_a_gradient_above_its_limit_names_its_batch_and_where_to_go_on(tmp_path, options):
    """Also where it would be clipped; without a limit such a training goes on."""
    poison = {"options": options, "warmup": 0}
    with pytest.raises(
        ArithmeticError, match=r"norm of the gradient is .*e\+\d+, more than max_gradient_norm 1e\+06"
    ) as error:
        train(tmp_path, Poison(8, "large"), max_gradient_norm=1e6, **poison)
    indices = Batches(X, SIZE, seed=3).indices(1, 2).tolist()
    assert f"at step 7 (epoch 1, batch 2, of the training observations {indices})" in str(error.value)
    assert f"the last checkpoint is {tmp_path / 'checkpoint.ckpt'}, of step 5" in str(error.value)
    train(tmp_path / "unlimited", Poison(8, "large"), **poison)
    train(tmp_path / "whole", Poison(99, "large"), max_gradient_norm=1e6, **poison)


@pytest.mark.parametrize("options", [{}, {"max_steps": 99}, {"accumulate_grad_batches": 2}], ids=str)
@pytest.mark.parametrize("stop", [5, 10, 12])
def test_what_is_said_after_a_resume_counts_from_the_beginning(tmp_path, monkeypatch, options, stop):
    bars, bar = [], callbacks.tqdm
    monkeypatch.setattr(callbacks, "tqdm", lambda **shown: bars.append(bar(**shown)) or bars[-1])
    options, pause = {"options": options, "every": 1 if stop % 5 else None, "warmup": 0}, Stop(stop + 1)
    with pytest.raises(EOFError):
        train(tmp_path, Poison(99, "loss"), callback=pause, **options)
    with pytest.raises(ArithmeticError) as error:
        train(tmp_path, Poison(1, "loss"), resume=True, progress=True, **options)
    ((epoch, batch),) = re.findall(r"epoch (\d+), batch (\d+)", str(error.value))
    at = bars[0].initial
    assert (int(epoch), int(batch)) == divmod(at, 5)
    each = options["options"].get("accumulate_grad_batches", 1)
    step = at // 5 * math.ceil(5 / each) + at % 5 // each
    assert f"at step {step} " in str(error.value)
    assert f"checkpoint.ckpt, of step {step}:" in str(error.value)
    assert at == stop


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


class Overflow(Callback):
    """Gives the model weights that are finite, of codes that are not."""

    def __init__(self, at, hook):
        self.left = at
        setattr(self, hook, self.overflow)

    def overflow(self, trainer, training, *_):
        self.left -= 1
        if not self.left:
            encoder = training.model.encoder.network
            with torch.no_grad():
                encoder[0].weight.fill_(1e30)
                encoder[-1].weight.copy_(torch.tensor([3e38, -3e38]).repeat(4))


TRAINED = (8, "on_train_batch_start", r"the loss (cannot be computed \(.+\)|is nan) at step 7", 2)
HELD_OUT = (10, "on_train_batch_end", r"the loss of held-out observations cannot be computed \(.+\) at step 9", 4)


@pytest.mark.parametrize(
    ("penalty", "at", "hook", "said", "batch"),
    [
        *((penalty, *TRAINED) for penalty in ("aggregated_gaussian_w2", "cramer_wold", "sinkhorn")),
        ("sinkhorn", *HELD_OUT),
    ],
)
def test_codes_that_a_solver_fails_on_name_their_batch(tmp_path, penalty, at, hook, said, batch):
    with pytest.raises(ArithmeticError, match=said) as error:
        train(tmp_path, penalty, callback=Overflow(at, hook), posterior="deterministic", warmup=0)
    indices = Batches(X, SIZE, seed=3).indices(1, batch).tolist()
    assert f"(epoch 1, batch {batch}, of the training observations {indices}); the last checkpoint" in str(error.value)


class Raises(penalties.PerSamplePenalty):
    def __init__(self, error):
        super().__init__()
        self.error, self.left = error, 3

    def per_observation(self, posterior, z, prior, *, generator=None):
        self.left -= z.requires_grad
        if not self.left:
            raise self.error
        return z.square().sum(-1)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("too little"), RuntimeError("Connection closed by peer")])
def test_faults_that_are_not_of_the_codes_stay_what_they_are(tmp_path, error):
    with pytest.raises(type(error), match=str(error)):
        train(tmp_path, Raises(error))


def test_a_step_of_accumulated_gradients_that_fails_names_all_its_batches(tmp_path):
    options, order = {"options": {"accumulate_grad_batches": 3}, "warmup": 0}, Batches(X, SIZE, seed=3)

    def names(error, epoch, first, last):
        indices = torch.cat([order.indices(epoch, k) for k in range(first, last + 1)]).tolist()
        return f"epoch {epoch}, batches {first} to {last}, of the training observations {indices})" in str(error.value)

    with pytest.raises(ArithmeticError, match="norm of the gradient") as error:
        train(tmp_path / "norm", Poison(7, "large"), max_gradient_norm=1e6, **options)
    assert names(error, 1, 0, 2)
    # Found in the loss of the next batch, or in the checkpoint at the epoch's end.
    for at, epoch, first, last in ((7, 1, 0, 2), (9, 1, 3, 4)):
        with pytest.raises(ArithmeticError, match=r"gradient of .* was not finite") as error:
            train(tmp_path / f"{at}", Poison(at, "gradient"), **options)
        assert names(error, epoch, first, last)
    with pytest.raises(ArithmeticError, match=r"the loss is nan .*epoch 1, batch 1, "):
        train(tmp_path / "loss", Poison(7, "loss"), **options)


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


def test_checkpoints_have_their_format_version_and_config(tmp_path):
    train(tmp_path)
    about = checkpoint.read(tmp_path / "checkpoint.ckpt")[checkpoint.KEY]
    assert about["format"] == checkpoint.FORMAT
    assert about["version"]
    assert about["config"] == {}
    assert [row["epoch"] for row in about["history"]] == [0, 1, 2]


def test_weights_that_are_not_finite_are_never_saved(tmp_path):
    class Break(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            if trainer.global_step == 10:
                with torch.no_grad():
                    pl_module.model.encoder.network[0].bias[0] = torch.inf

    with pytest.raises(ArithmeticError, match=r"model\.encoder\.network\.0\.bias was not finite at step 9"):
        train(tmp_path, callback=Break())
    assert checkpoint.read(tmp_path / "checkpoint.ckpt")["global_step"] == 5


def test_the_model_of_a_checkpoint_is_that_of_the_training(tmp_path):
    seen = []

    class Keep(Callback):
        def on_train_end(self, trainer, pl_module):
            seen.append(copy.deepcopy(pl_module.model))

    train(tmp_path, callback=Keep())
    assert torch.equal(checkpoint.load(tmp_path).reconstruct(X), seen[0].eval().reconstruct(X))
