"""What goes on from a checkpoint of the engine, and when there is one."""

import contextlib
import copy
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from pytorch_lightning.callbacks import Callback

from otkit_vae import checkpoint
from tests.otkit_vae.tiny import Stop, X, assert_alike, train

# The engine and its dependencies warn of their own deprecations in a first import.
pytestmark = pytest.mark.filterwarnings("default")


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


@pytest.mark.parametrize("at", [3, 5, 10])
@pytest.mark.parametrize("options", [{"val_check_interval": 2}, {"val_check_interval": 0.4}], ids=str)
def test_what_goes_on_leaves_out_no_evaluation_within_an_epoch(tmp_path, options, at):
    train(tmp_path / "whole", options=options)
    with pytest.raises(EOFError):
        train(tmp_path / "parts", options=options, every=2, callback=Stop(at))
    train(tmp_path / "parts", options=options, every=2, resume=True)
    assert_alike(tmp_path / "parts", tmp_path / "whole")


@pytest.mark.parametrize("penalty", ["kl", "wae_gan"])
def test_a_limit_of_steps_within_an_epoch_is_a_pause(tmp_path, penalty):
    train(tmp_path / "whole", penalty)
    train(tmp_path / "parts", penalty, options={"max_steps": 7})
    before = checkpoint.read(tmp_path / "parts" / "checkpoint.ckpt")
    # An adversary has an optimiser of its own, which makes as many steps.
    for optimizer in before["optimizer_states"]:
        assert {int(state["step"]) for state in optimizer["state"].values()} == {7}
    assert len(before[checkpoint.KEY]["history"]) == 1
    train(tmp_path / "parts", penalty, resume=True)
    assert_alike(tmp_path / "parts", tmp_path / "whole")


@pytest.mark.parametrize("penalty", ["kl", "wae_gan"])
def test_so_is_one_at_the_last_evaluation_of_an_epoch(tmp_path, penalty):
    options = {"val_check_interval": 2}
    train(tmp_path / "whole", penalty, options=options)
    train(tmp_path / "parts", penalty, options=options | {"max_steps": 4})
    train(tmp_path / "parts", penalty, options=options, resume=True)
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
        (3, "on_validation_end", {"val_check_interval": 2}, 7),
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


def early(patience):
    """Ends a training after so many epochs that were not better by far than the first."""
    arguments = {"monitor": "held_out_loss", "min_delta": 1e9, "patience": patience}
    return {"callbacks": [{"class_path": "EarlyStopping", "init_args": arguments}]}


def test_what_stopped_a_training_stops_it_when_it_goes_on(tmp_path):
    assert train(tmp_path, options=early(1)).current_epoch == 2
    before = (tmp_path / "checkpoint.ckpt").read_bytes()
    train(tmp_path, options=early(1), resume=True)
    train(tmp_path, options=early(1), resume=True, epochs=5)
    assert (tmp_path / "checkpoint.ckpt").read_bytes() == before


def test_another_patience_holds_when_a_training_goes_on(tmp_path):
    train(tmp_path / "parts", options=early(1), epochs=6)
    assert train(tmp_path / "parts", options=early(3), epochs=6, resume=True).current_epoch == 4
    train(tmp_path / "whole", options=early(3), epochs=6)
    assert_alike(tmp_path / "parts", tmp_path / "whole")


def test_weights_can_be_averaged_from_where_a_training_goes_on(tmp_path):
    train(tmp_path / "whole", epochs=2)
    train(tmp_path / "parts", epochs=1)
    averaging = {"callbacks": [{"class_path": "EMAWeightAveraging", "init_args": {"decay": 0.5}}]}
    train(tmp_path / "parts", options=averaging, epochs=2, resume=True)
    whole, parts = (checkpoint.read(tmp_path / name / "checkpoint.ckpt") for name in ("whole", "parts"))
    for name, tensor in whole["state_dict"].items():
        assert torch.equal(parts["current_model_state"][name], tensor)
        averaged = not torch.equal(parts["state_dict"][name], tensor)
        assert averaged or "prior" in name, name


def test_averages_of_weights_are_not_taken_for_the_weights_by_a_training_that_goes_on(tmp_path):
    averaging = {"callbacks": [{"class_path": "EMAWeightAveraging", "init_args": {"decay": 0.5}}]}
    train(tmp_path, options=averaging, epochs=1)
    before = (tmp_path / "checkpoint.ckpt").read_bytes()
    with pytest.raises(ValueError, match="trainer: callbacks has none that averages the weights"):
        train(tmp_path, epochs=2, resume=True)
    assert (tmp_path / "checkpoint.ckpt").read_bytes() == before


def test_metrics_of_an_ended_training_are_written_again(tmp_path):
    train(tmp_path)
    before = (tmp_path / "metrics.csv").read_text()
    (tmp_path / "metrics.csv").unlink()
    train(tmp_path, resume=True)
    assert (tmp_path / "metrics.csv").read_text() == before


@pytest.mark.parametrize(("epochs", "stop"), [(1, None), (3, Stop(1))], ids=["ended", "goes on"])
def test_a_row_that_the_checkpoint_does_not_have_behind_it_goes(tmp_path, epochs, stop):
    """A kill between the two at an epoch's end leaves one."""
    train(tmp_path, epochs=1)
    before = (tmp_path / "metrics.csv").read_text()
    (tmp_path / "metrics.csv").write_text(before + before.splitlines()[-1])
    with contextlib.suppress(EOFError):
        train(tmp_path, epochs=epochs, resume=True, callback=stop)
    assert (tmp_path / "metrics.csv").read_text() == before


@pytest.mark.parametrize(
    ("penalty", "least", "steps"),
    [
        ("kl", {"min_epochs": 4}, [5, 10, 15, 20]),
        ("kl", {"min_steps": 17}, [5, 10, 15, 17]),
        ("wae_gan", {"min_steps": 17}, [5, 10, 15, 17]),
    ],
)
def test_a_training_that_may_not_end_yet_has_no_checkpoint_at_each_step(tmp_path, monkeypatch, penalty, least, steps):
    """It is asked to end after two epochs; steps are those of the model, not those of an adversary."""
    written, write = [], checkpoint.write

    def noted(content, file):
        written.append(content["global_step"] // len(content["optimizer_states"]))
        write(content, file)

    monkeypatch.setattr(checkpoint, "write", noted)
    train(tmp_path, penalty, options=early(1) | least, epochs=6)
    assert written == steps


@pytest.mark.parametrize(
    ("every", "interval", "steps"),
    [
        (None, None, [5, 10, 15]),
        (3, None, [3, 6, 9, 12, 15]),
        (4, None, [4, 8, 12, 15]),
        (2, 2, [2, 4, 6, 8, 10, 12, 14, 15]),
        (2, 1, [2, 4, 6, 8, 10, 12, 14, 15]),
    ],
)
def test_checkpoints_are_as_many_steps_apart_as_was_asked_for(tmp_path, monkeypatch, every, interval, steps):
    written, write = [], checkpoint.write

    def noted(content, file):
        written.append(content["global_step"])
        write(content, file)

    monkeypatch.setattr(checkpoint, "write", noted)
    train(tmp_path, options={"val_check_interval": interval}, every=every)
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


def test_checkpoints_have_their_format_version_and_config(tmp_path):
    train(tmp_path)
    about = checkpoint.read(tmp_path / "checkpoint.ckpt")[checkpoint.KEY]
    assert about["format"] == checkpoint.FORMAT
    assert about["version"]
    assert about["config"] == {}
    assert [row["epoch"] for row in about["history"]] == [0, 1, 2]


@pytest.mark.parametrize("format", [checkpoint.FORMAT + 1, checkpoint.FORMAT - 1])
def test_a_checkpoint_of_a_later_or_earlier_format_is_refused(tmp_path, format):
    about = {"format": format, "version": "99"}
    torch.save({checkpoint.KEY: about, "state_dict": {}}, tmp_path / "checkpoint.ckpt")
    with pytest.raises(ValueError, match=rf"has format {format}, of otkit 99; expected format"):
        checkpoint.load(tmp_path)


def test_the_model_of_a_checkpoint_is_that_of_the_training(tmp_path):
    seen = []

    class Keep(Callback):
        def on_train_end(self, trainer, pl_module):
            seen.append(copy.deepcopy(pl_module.model))

    train(tmp_path, callback=Keep())
    assert not checkpoint.load(tmp_path).training
    assert torch.equal(checkpoint.load(tmp_path).reconstruct(X), seen[0].eval().reconstruct(X))


def lose_parts(content):
    del content["optimizer_states"], content[checkpoint.KEY]["weight"]


def lose_weights(content):
    del content["state_dict"]["model.encoder.network.0.weight"]


def misshape(content):
    content["state_dict"]["model.encoder.network.0.weight"] = torch.zeros(3)


def lose_architecture(content):
    del content[checkpoint.KEY]["architecture"]["latent_dim"]


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lose_parts, "is no whole checkpoint: it has no optimizer_states, otkit_vae.weight"),
        (lose_weights, 'does not hold what was trained: .*Missing.*"{}encoder.network.0.weight"'),
        (misshape, "size mismatch for {}encoder.network.0.weight: .*Size..3.. from checkpoint, the shape"),
        (lose_architecture, "does not hold what was trained: .* missing 1 required positional argument: 'latent_dim'"),
    ],
)
def test_a_checkpoint_that_lacks_something_says_what(tmp_path, damage, said):
    train(tmp_path, epochs=1)
    file = tmp_path / "checkpoint.ckpt"
    content = checkpoint.read(file)
    damage(content)
    checkpoint.write(content, file)
    before = file.read_bytes()
    with pytest.raises(ValueError, match=f"^path: {file} .*{said.format('')}"):
        checkpoint.load(tmp_path)
    if damage is not lose_architecture:  # of which a training knows its own
        with pytest.raises(ValueError, match=f"^path: {file} .*{said.format('model.')}"):
            train(tmp_path, resume=True)
    assert file.read_bytes() == before


@pytest.mark.parametrize("content", [b"", b"\x80\x02"], ids=["empty", "cut off"])
def test_a_checkpoint_that_ends_too_early_says_so(tmp_path, content):
    (tmp_path / "checkpoint.ckpt").write_bytes(content)
    with pytest.raises(ValueError, match=r"checkpoint.ckpt is not .* damaged \(it ends too early\)$"):
        checkpoint.load(tmp_path)


@pytest.mark.parametrize(
    ("architecture", "weights", "said"),
    [
        (None, {}, r"has a model with networks of its own; expected one made by VAE\.sized"),
        ({"event_shape": [4], "latent_dim": 2}, [], "does not hold what was trained: 'list' object has no"),
    ],
)
def test_a_model_that_cannot_be_made_says_of_which_file(architecture, weights, said):
    content = {checkpoint.KEY: {"architecture": architecture}, "state_dict": weights}
    with pytest.raises(ValueError, match=rf"^path: a\.ckpt {said}"):
        checkpoint.model_of(content, Path("a.ckpt"))
