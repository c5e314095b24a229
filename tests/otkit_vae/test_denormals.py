"""Adam's averages: none becomes denormal, and no parameter is another for it."""

import copy

import pytest
import torch
from pytorch_lightning.callbacks import Callback

from otkit_vae import VAE, Objective, penalties
from otkit_vae.denormals import EVERY, drop_denormals
from otkit_vae.engine import fit
from otkit_vae.trainer import make_trainer


def denormals(optimizer):
    averages = [state[name] for state in optimizer.state.values() for name in ("exp_avg", "exp_avg_sq")]
    return sum(int(((a != 0) & (a.abs() < torch.finfo(a.dtype).tiny)).sum()) for a in averages)


@pytest.mark.parametrize(
    ("fused", "dtype", "steps"),
    [(False, torch.float32, 1200), (True, torch.float32, 1200), (True, torch.float64, 7600)],
)
def test_parameters_are_bit_equal_and_averages_normal(fused, dtype, steps):
    """Gradients of many sizes, most of which end one after another."""
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(200, generator=generator, dtype=dtype)
    sizes = 10.0 ** torch.linspace(-12, 3, 200, dtype=dtype)
    last = torch.randint(1, 400, (200,), generator=generator)
    last[:20] = steps
    ends = {}
    for dropped in (False, True):
        parameter = start.clone().requires_grad_()
        optimizer, most = torch.optim.Adam([parameter], lr=1e-2, fused=fused), 0
        generator.manual_seed(1)
        for step in range(steps):
            parameter.grad = torch.randn(200, generator=generator, dtype=dtype) * sizes * (step < last)
            if dropped and step % EVERY == 0:
                drop_denormals(optimizer)
            optimizer.step()
            most = max(most, denormals(optimizer)) if step % 7 == 0 else most
        ends[dropped] = parameter.detach(), most
    assert ends[False][1] > 100
    assert ends[True][1] == 0
    assert torch.equal(ends[True][0], ends[False][0])


def test_both_averages_are_dropped_below_a_million_times_the_least_normal_number():
    parameter = torch.ones(4, requires_grad=True)
    optimizer = torch.optim.Adam([parameter])
    parameter.grad = torch.ones(4)
    optimizer.step()
    before, after = torch.tensor([1.1e-32, -1.1e-32, 1.2e-32, -1.2e-32]), torch.tensor([0, 0, 1.2e-32, -1.2e-32])
    state = optimizer.state[parameter]
    state["exp_avg"].copy_(before)
    state["exp_avg_sq"].copy_(before.abs())
    drop_denormals(optimizer)
    assert torch.equal(state["exp_avg"], after)
    assert torch.equal(state["exp_avg_sq"], after.abs())


def test_half_precision_is_left_alone():
    parameter = torch.ones(3, dtype=torch.float16, requires_grad=True)
    optimizer = torch.optim.Adam([parameter])
    parameter.grad = torch.full_like(parameter, 0.1)
    optimizer.step()
    before = copy.deepcopy(optimizer.state_dict()["state"])
    drop_denormals(optimizer)
    assert torch.equal(optimizer.state[parameter]["exp_avg"], before[0]["exp_avg"])


class Fading(Callback):
    """Gives the weights of one unit, which is dead, a small average at the fifth step."""

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        weight = pl_module.model.encoder.network[0].weight
        self.average = trainer.optimizers[0].state[weight]["exp_avg"][0]
        if pl_module.steps(trainer.current_epoch, batch_idx) == 5:
            self.average.fill_(1e-30)


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("penalty", ["kl", "wae_gan"])
def test_a_training_drops_them(tmp_path, penalty):
    torch.manual_seed(0)
    x = torch.rand(53, 6)
    model, objective, fading = VAE.sized((6,), 2, widths=[8]), Objective(penalties.get(penalty)), Fading()
    with torch.no_grad():
        model.encoder.network[0].bias[0] = -1e3
    objective.check(model, x[:10])
    trainer = make_trainer({"limit_val_batches": 0}, objective.penalty, epochs=60)
    trainer.callbacks += [fading]
    options = {"batch_size": 10, "learning_rate": 1e-3, "seed": 0, "checkpoint_steps": 10**6, "progress": False}
    fit(trainer, model, objective, x, x, tmp_path, **options)
    # By itself it would be 1e-30 · 0.9^294 = 3e-44, and stay there.
    assert torch.equal(fading.average, torch.zeros(6))
