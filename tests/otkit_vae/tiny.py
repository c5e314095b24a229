"""A training of a second at most: a tiny model on a few observations, three epochs of five batches."""

import torch
from pytorch_lightning.callbacks import Callback

from otkit_vae import VAE, Objective, checkpoint, penalties
from otkit_vae.engine import fit
from otkit_vae.trainer import make_trainer

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
