"""Classes with few observations to train on: what an evaluation and generated data say of them."""

import numpy as np
import pytest
import torch

from otkit_vae import VAE, Objective, commands, penalties, runs
from otkit_vae.config import TrainConfig
from otkit_vae.data import Data
from otkit_vae.evaluation import Classifier, EvaluationOptions, evaluate_fully
from otkit_vae.evaluation._rare import rare_classes, rarest
from otkit_vae.runs import SavedRun

NAMES = ("ape", "bee", "cat")


def data(train, held_out=(4, 4, 4), classes=NAMES):
    """Observations of which so many of each class are to train on, and so many held out."""
    labels, others = (torch.arange(3).repeat_interleave(torch.tensor(counts)) for counts in (train, held_out))
    x = torch.rand(len(labels) + len(others), 2, generator=torch.Generator().manual_seed(0))
    return Data("some", x[: len(labels)], x[len(labels) :], others, labels, classes)


@pytest.mark.parametrize(
    ("train", "notes"),
    [
        ((10, 12, 10), []),
        ((12, 9, 10), ["augmented training: the class bee has 9 training observations, fewer than the 10 that are"]),
        ((12, 1, 2), ["no augmented training: the class bee has 1 training observation, and a Gaussian"]),
        ((12, 10, 0), ["no training observation has the label cat: none is generated, and no classifier finds one"]),
        ((0, 0, 3), ["no training observation has the label ape, bee: ", "augmented training: the class cat has 3 "]),
    ],
)
def test_what_is_said_of_classes_with_few_observations(train, notes):
    found = rare_classes(data(train), 10)
    assert len(found) == len(notes)
    assert all(said.startswith(note) for said, note in zip(found, notes, strict=True))


def test_classes_without_names_have_their_numbers_and_data_without_labels_none():
    assert rarest(data((5, 3, 4), classes=())) == ("1", 3)
    assert rarest(Data("bare", torch.rand(3, 2), torch.rand(3, 2))) is None
    assert rare_classes(Data("bare", torch.rand(3, 2), torch.rand(3, 2)), 10) == ()


def run(train, tmp_path):
    torch.manual_seed(0)
    model, objective = VAE.sized((2,), 2, widths=[4]).eval(), Objective(penalties.get("kl"))
    return SavedRun(tmp_path, TrainConfig(data="some.csv"), data(train), model, objective)


def test_an_evaluation_says_which_class_keeps_it_from_augmented_training(tmp_path, monkeypatch):
    untrained = Classifier((2,), torch.arange(3)).requires_grad_(False)
    monkeypatch.setattr("otkit_vae.evaluation._reference.cached_classifier", lambda *_, **__: untrained)
    opened = run((12, 1, 12), tmp_path)
    found = evaluate_fully(opened.model, opened.objective, opened.data, EvaluationOptions(2))
    assert found.augmentation is None
    assert rare_classes(opened.data, 10)[0] in found.notes


def test_augment_names_the_class_that_is_too_rare(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "open_run", lambda _: run((12, 1, 12), tmp_path))
    with pytest.raises(ValueError, match=r"class bee of its data \(some\.csv\) has one training observation"):
        commands.augment("run", out=str(tmp_path / "a.npz"))


def test_augment_says_which_class_it_generates_none_of(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(runs, "open_run", lambda _: run((12, 12, 0), tmp_path))
    monkeypatch.setattr("otkit_vae.pictures.side_by_side", lambda *_, **__: None)
    commands.augment("run", 3, out=str(tmp_path / "a.npz"))
    assert np.load(tmp_path / "a.npz")["labels"].tolist() == ["ape"] * 3 + ["bee"] * 3
    assert "no training observation has the label cat: none is generated" in capsys.readouterr().err
