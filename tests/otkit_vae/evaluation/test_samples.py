"""Features, the quality of samples in them, and augmented training: on data whose answers are known."""

import io
import sys

import pytest
import torch

from otkit_vae import VAE, Objective, penalties
from otkit_vae.data import Data
from otkit_vae.evaluation import (
    Labelled,
    augment,
    augmentation,
    cached_classifier,
    evaluate_fully,
    fit_classifier,
    labelled_subset,
    quality,
    real_accuracies,
    sample_quality,
)
from otkit_vae.likelihoods import Gaussian


def stripes(n, seed=0):
    """Images of three classes, each with another bright row, in noise."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(3, (n,), generator=generator)
    x = 0.2 * torch.rand(n, 8, 8, generator=generator)
    x[torch.arange(n), 2 * labels] += 0.7
    return Labelled(x, 10 * labels)


@pytest.mark.parametrize("shape", [(8, 8), (1, 8, 8), (8, 8, 1), (64,), (2, 32), (2, 2, 2, 8)])
def test_a_classifier_of_any_shape_learns_its_labels(shape):
    x, labels = stripes(300)
    classifier = fit_classifier(x.reshape(-1, *shape), labels, steps=60)
    held_out, truth = stripes(200, seed=1)
    assert classifier.accuracy(held_out.reshape(-1, *shape), truth) > 0.95
    assert classifier.features(x.reshape(-1, *shape), batch_size=77).shape == (300, 64)


def test_a_classifier_repeats_by_its_seed_and_leaves_the_global_state():
    x, labels = stripes(60)
    before = torch.random.get_rng_state()
    first, second, other = (fit_classifier(x, labels, steps=5, seed=seed).features(x) for seed in (1, 1, 2))
    assert torch.equal(before, torch.random.get_rng_state())
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_a_label_that_training_had_not_is_never_found():
    x, labels = stripes(100)
    assert fit_classifier(x, labels, steps=60).accuracy(x, labels + 1) == 0


def test_the_file_of_a_classifier_is_read_for_its_own_data_only(tmp_path, monkeypatch):
    steps = "otkit_vae.evaluation._classifier.STEPS"
    monkeypatch.setattr(steps, 5)
    fits = []
    monkeypatch.setattr(
        "otkit_vae.evaluation._classifier.fit_classifier",
        lambda x, labels, seed: fits.append(seed) or fit_classifier(x, labels, steps=5, seed=seed),
    )
    x, labels = stripes(60)
    file = tmp_path / "classifier.pt"
    made, read = (cached_classifier(x, labels, cache=file) for _ in range(2))
    assert fits == [0]
    assert torch.equal(made.features(x), read.features(x))
    assert torch.equal(made.classes, read.classes)
    cached_classifier(1 - x, labels, cache=file)
    cached_classifier(1 - x, labels.flip(0), cache=file)
    cached_classifier(1 - x, labels.flip(0), cache=file, seed=3)
    assert fits == [0, 0, 0, 3]
    file.write_bytes(b"something else")
    cached_classifier(x, labels, cache=file)
    assert len(fits) == 5
    assert [path.name for path in tmp_path.iterdir()] == ["classifier.pt"]


def test_a_classifier_that_cannot_be_kept_is_made_all_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "otkit_vae.evaluation._classifier.fit_classifier", lambda x, labels, seed: fit_classifier(x, labels, steps=5)
    )
    x, labels = stripes(60)
    made = cached_classifier(x, labels, cache=tmp_path / "nowhere" / "classifier.pt")
    assert torch.equal(made.features(x), fit_classifier(x, labels, steps=5).features(x))
    assert not list(tmp_path.iterdir())


def test_quality_of_points_that_are_shifted():
    torch.manual_seed(0)
    real = torch.randn(400, 3, dtype=torch.float64)
    same = quality(real, real)
    assert (same.frechet, same.w2, same.sliced_w2) == pytest.approx((0, 0, 0), abs=1e-9)
    assert (same.precision, same.recall) == (1, 1)
    # A translation by t: the Fréchet distance is |t|², W2 is |t|, its sliced form |t| / sqrt(d) for any n.
    moved = quality(real + 4, real, generator=torch.Generator().manual_seed(0))
    assert moved.frechet == pytest.approx(48)
    assert moved.w2 == pytest.approx(48**0.5)
    assert moved.sliced_w2 == pytest.approx(4, rel=0.1)
    assert moved.precision < 0.1


def test_samples_in_few_places_are_named_whatever_their_precision():
    torch.manual_seed(0)
    real, train = torch.randn(300, 8), torch.randn(300, 8)
    null = quality(train, real)
    one_place = quality(torch.zeros(300, 8), real)
    assert one_place.precision == 1
    assert one_place.recall == 0
    (note,) = one_place.notes("the prior", null)
    assert note.startswith(
        "samples of the prior: recall is 0, less than a tenth of that of real data, as where samples"
    )
    narrow = quality(0.5 * torch.randn(300, 8), real)
    assert narrow.recall > 0.1
    (note,) = narrow.notes("a mixture", null)
    assert note.startswith("samples of a mixture: precision is above that of real data, as where samples lie in few")
    # Samples elsewhere have no precision to be mistaken about.
    assert quality(torch.randn(300, 8) + 100, real).notes("the prior", null) == []
    # Twice the standard error, by chance: one in 44.
    assert sum(bool(quality(torch.randn(300, 8), real).notes("the prior", null)) for _ in range(20)) <= 3


def test_notes_of_codes_and_of_samples_are_among_those_of_an_evaluation():
    class Nothing(torch.nn.Module):
        """An encoder that says the same of every observation."""

        def forward(self, x):
            return torch.distributions.Independent(torch.distributions.Normal(0 * x, torch.ones_like(x)), 1)

    class Mean(torch.nn.Module):
        """A decoder that does not look at the code."""

        def forward(self, z):
            return 0 * z

    torch.manual_seed(0)
    data = Data("some", torch.randn(40, 2), torch.randn(30, 2))
    model = VAE(Nothing(), Mean(), Gaussian(1.0), 2)
    notes = evaluate_fully(model, Objective(penalties.get("kl")), data).notes
    assert any(note.startswith("posterior collapse: no unit is active") for note in notes)
    for source in ("the prior", "a mixture"):
        assert any(note.startswith(f"samples of {source}: recall is 0") for note in notes)


@pytest.mark.parametrize(("n", "there"), [(2, False), (3, False), (4, True)])
def test_precision_and_recall_are_left_out_of_few_points(n, there):
    torch.manual_seed(0)
    data = Data("few", torch.rand(14, 5), torch.rand(n, 5))
    found = evaluate_fully(VAE.sized((5,), 2), Objective(penalties.get("kl")), data)
    keys = {measure.key for measure in found.measures}
    assert {f"{source}_frechet" for source in ("prior", "mixture")} <= keys
    for key in ("prior_precision", "prior_recall", "mixture_precision", "mixture_recall"):
        assert (key in keys) == there
    assert (
        any(f"no precision and recall: they need more than 3 points, and there are {n}" in note for note in found.notes)
        != there
    )


@pytest.mark.parametrize("missing", ["held_out_labels", "train_labels", "classes"])
def test_without_labels_of_both_parts_samples_are_compared_as_they_are(missing):
    torch.manual_seed(0)
    x, y = torch.rand(14, 5), torch.rand(9, 5)
    labels = {"held_out_labels": torch.arange(9) % 2, "train_labels": torch.arange(14) % 2}
    labels = {name: 0 * of for name, of in labels.items()} if missing == "classes" else labels | {missing: None}
    model, objective = VAE.sized((5,), 2), Objective(penalties.get("kl"))
    found = evaluate_fully(model, objective, Data("some", x, y, **labels))
    assert found.samples == evaluate_fully(model, objective, Data("bare", x, y)).samples
    assert found.sections[2].heading == "samples of the prior, in data space"
    assert found.augmentation is None
    assert any("in both parts: samples are compared in data space" in n for n in found.notes)


@pytest.mark.parametrize("terminal", [True, False])
def test_an_evaluation_shows_on_a_terminal_which_part_is_computed(monkeypatch, terminal):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal, raising=False)
    model, data = VAE.sized((5,), 2), Data("some", torch.rand(14, 5), torch.rand(9, 5))
    evaluate_fully(model, Objective(penalties.get("kl")), data, progress=True)
    shown = sys.stderr.getvalue()
    assert all((f"evaluation: {part}" in shown) is terminal for part in ("codes", "samples", "augmented training"))
    assert bool(shown) is terminal


def test_samples_of_the_right_codes_are_better():
    torch.manual_seed(0)
    model = VAE.sized((4,), 2)
    codes = torch.distributions.Independent(torch.distributions.Normal(torch.zeros(2), torch.ones(2)), 1)
    wide = torch.distributions.Independent(torch.distributions.Normal(torch.zeros(2), torch.full((2,), 3.0)), 1)
    real = model.sample(500)
    good, bad = (
        sample_quality(model, c, lambda x: 10 * x, 10 * real, generator=torch.Generator().manual_seed(1))
        for c in (codes, wide)
    )
    assert good.frechet < 0.1 * bad.frechet
    assert good.w2 < bad.w2
    assert good.recall > 0.9
    assert good.n == 500


def test_a_subset_has_as_many_of_each_class():
    x, labels = stripes(100)
    subset = labelled_subset(x, labels, 7, generator=torch.Generator().manual_seed(0))
    assert [(subset.labels == label).sum() for label in (0, 10, 20)] == [7, 7, 7]
    for image, label in zip(*subset, strict=True):
        (where,) = (x == image).flatten(1).all(1).nonzero()
        assert labels[where] == label


class Copy(torch.nn.Module):
    """A model whose codes are the observations themselves: what it generates is as good as its Gaussians."""

    def encode(self, x):
        base = torch.distributions.Normal(x.flatten(1), torch.full_like(x.flatten(1), 1e-4))
        return torch.distributions.Independent(base, 1)

    def decode(self, z):
        return torch.distributions.Normal(z.unflatten(1, (8, 8)), 1.0)


def test_generated_observations_are_of_their_class():
    data = stripes(300)
    generated = augment(Copy(), data, 20, generator=torch.Generator().manual_seed(0))
    assert generated.x.shape == (60, 8, 8)
    assert fit_classifier(*data, steps=60).accuracy(*generated) > 0.95
    assert generated.labels.tolist() == sorted([0, 10, 20] * 20)


def test_augmentation_compares_over_seeds_and_sees_labels_that_are_wrong(monkeypatch):
    monkeypatch.setattr("otkit_vae.evaluation._augmentation.STEPS", 40)
    data, held_out = stripes(300), stripes(100, seed=1)
    found = augmentation(Copy(), data, held_out, n_seeds=2)
    assert len(found.real) == len(found.augmented) == 2
    assert min(found.real + found.augmented) > 0.9

    class Wrong(Copy):
        def decode(self, z):
            return torch.distributions.Normal(super().decode(z).mean.roll(2, 1), 1.0)

    wrong = augmentation(Wrong(), data, held_out, n_seeds=1)
    assert wrong.augmented[0] < 0.7
    assert found.real == real_accuracies(data, held_out, n_seeds=2)
    assert found == augmentation(Copy(), data, held_out, n_seeds=2, real=found.real)
    (measure,) = found.measures()
    assert measure.title == "accuracy, 10 real + 30 generated a class"
    assert measure.null == sum(found.real) / 2


@pytest.mark.parametrize(("sizes", "said"), [((5, 5), "5 real"), ((5, 12), "5 to 10 real"), ((10, 12), "10 real")])
def test_augmentation_says_how_many_real_observations_there_are(monkeypatch, sizes, said):
    monkeypatch.setattr("otkit_vae.evaluation._augmentation.STEPS", 1)
    x, labels = torch.rand(sum(sizes), 6), torch.arange(2).repeat_interleave(torch.tensor(sizes))
    some = Labelled(x, labels)
    (measure,) = augmentation(VAE.sized((6,), 2, widths=[8]), some, some, n_seeds=1, real=[0.5]).measures()
    assert measure.title == f"accuracy, {said} + 30 generated a class"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x, y: fit_classifier(x, y[:-1]), "labels has shape"),
        (lambda x, y: fit_classifier(x, 0 * y), "labels has one class"),
        (lambda x, y: augmentation(Copy(), (x, y), (x, y), labelled_per_class=1), "labelled_per_class is 1"),
        (lambda x, y: augmentation(Copy(), (x, y), (x, y), generated_per_class=0), "generated_per_class is 0"),
        (lambda x, y: augmentation(Copy(), (x, y), (x, y), n_seeds=0), "n_seeds is 0"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call(*stripes(30))
