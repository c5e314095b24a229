"""A run folder, opened: what it has of its training."""

from dataclasses import asdict

import numpy as np
import pytest
import torch
import yaml

from otkit_vae import checkpoint
from otkit_vae.config import TrainConfig
from otkit_vae.runs import data_of, fixed_options, open_run, read_config, result_options, same_data
from otkit_vae.training import prepare


def test_a_run_is_opened_as_far_as_its_checkpoint_with_data_that_are_given(tmp_path):
    np.save(tmp_path / "x.npy", np.random.default_rng(0).random((40, 4)))
    config = TrainConfig(penalty="wae_gan", data=tmp_path / "x.npy", widths=[8], batch_size=8, warmup=10, epochs=9)
    data = data_of(config)
    model, objective = prepare(config, data)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(asdict(config)))
    parts = {"model": model, "objective": objective}
    content = dict.fromkeys(checkpoint.PARTS) | {
        "state_dict": {f"{part}.{name}": value for part in parts for name, value in parts[part].state_dict().items()},
        "global_step": 14,
        "optimizer_states": [{}, {}],  # an adversary has one of its own, whose steps the engine counts too
        checkpoint.KEY: checkpoint.describe(model)
        | {"config": fixed_options(config), "data": data.fingerprint, "weight": 0.25, "history": [{}] * 2, "sums": {}},
    }
    checkpoint.write(content, tmp_path / checkpoint.CHECKPOINT)
    (tmp_path / "x.npy").unlink()
    run = open_run(tmp_path, data)
    assert (run.epochs, run.step, run.data, run.model.training) == (2, 14, data, False)
    assert run.unfinished == f"{tmp_path}: the model has 2 of 9 epochs behind it"
    assert run.warming == (
        f"{tmp_path}: warmup is 10, and the training made 7 steps: the weight got to 0.175, and not to 0.25"
    )
    assert not run._replace(steps=10).warming
    assert [run.objective.weight_at(step) for step in (5, None)] == [0.125, 0.25]
    for name, weight in objective.state_dict().items():
        assert torch.equal(run.objective.state_dict()[name], weight)


def test_data_of_which_nothing_is_noted_are_not_taken_for_the_same(tmp_path):
    np.save(tmp_path / "x.npy", np.random.default_rng(0).random((40, 4)))
    data = data_of(TrainConfig(data=tmp_path / "x.npy"))
    same_data(data.fingerprint, data, "x.npy", tmp_path)
    (name, *_) = data.fingerprint
    with pytest.raises(ValueError, match=rf"^data: x\.npy has changed since .*\({name} was not noted, and is "):
        same_data({part: known for part, known in data.fingerprint.items() if part != name}, data, "x.npy", tmp_path)


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"\x80 \x81\n", b"3", b""])
def test_a_config_that_is_no_text_or_has_no_options_is_named(tmp_path, content):
    (tmp_path / "config.yaml").write_bytes(content)
    with pytest.raises(ValueError, match=r"^run: \S+config\.yaml does not hold the options of a training"):
        read_config(tmp_path / "config.yaml")


@pytest.mark.parametrize(
    ("option", "other", "goes_on", "alike"),
    [
        ("epochs", 3, True, False),
        ("trainer", {"precision": "64-true"}, True, False),
        ("seed", 1, False, False),
        ("max_gradient_norm", 1.0, True, True),
        ("checkpoint_steps", 5, True, True),
        ("progress", False, True, True),
        ("out", "elsewhere", True, True),
        ("data", "elsewhere.npy", True, False),
    ],
)
def test_which_options_a_training_goes_on_with_and_which_results_are_alike(option, other, goes_on, alike):
    one, two = TrainConfig(), TrainConfig(**{option: other})
    assert (fixed_options(one) == fixed_options(two)) is goes_on
    assert (result_options(one) == result_options(two)) is alike
