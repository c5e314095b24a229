"""A training that fails says at which step and observations, and where to go on."""

import math
import re

import pytest
import torch
from pytorch_lightning.callbacks import Callback

from otkit_vae import callbacks, checkpoint, engine, penalties
from otkit_vae.batches import Batches
from tests.otkit_vae.tiny import SIZE, Stop, X, train

# The engine and its dependencies warn of their own deprecations in a first import.
pytestmark = pytest.mark.filterwarnings("default")


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


def test_many_observations_are_listed_after_what_there_is_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(engine, "LISTED", SIZE - 1)
    with pytest.raises(ArithmeticError) as error:
        train(tmp_path, Poison(8, "loss"), warmup=0)
    indices = Batches(X, SIZE, seed=3).indices(1, 2).tolist()
    assert str(error.value) == (
        "the loss is nan at step 7 (epoch 1, batch 2, of the 10 training observations listed last); the last "
        f"checkpoint is {tmp_path / 'checkpoint.ckpt'}, of step 5: otkit-vae train --resume {tmp_path} goes on there; "
        f"try a smaller learning_rate or weight; the observations: {indices}"
    )


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


def test_an_infinite_gradient_is_not_finite_rather_than_above_a_limit(tmp_path):
    """A scaler of half precision skips such a step."""

    class Infinite(Callback):
        def on_after_backward(self, trainer, pl_module):
            pl_module.model.encoder.network[0].bias.grad.fill_(math.inf)

    with pytest.raises(ArithmeticError, match=r"^the gradient of model\.encoder\.network\.0\.bias was not finite"):
        train(tmp_path, callback=Infinite(), max_gradient_norm=1e6)


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


def test_weights_that_are_not_finite_are_never_saved(tmp_path):
    class Break(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            if trainer.global_step == 10:
                with torch.no_grad():
                    pl_module.model.encoder.network[0].bias[0] = torch.inf

    with pytest.raises(ArithmeticError, match=r"model\.encoder\.network\.0\.bias was not finite at step 9"):
        train(tmp_path, callback=Break())
    assert checkpoint.read(tmp_path / "checkpoint.ckpt")["global_step"] == 5
