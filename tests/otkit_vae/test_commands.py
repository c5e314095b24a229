"""The commands on finished runs and the comparison, as a user starts them: short, on real digits."""

import csv
import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
import torch

from otkit_vae import checkpoint, compared, comparison, pictures, runs
from otkit_vae.data import load_data
from otkit_vae.engine import Training
from otkit_vae.evaluation import fit_classifier
from tests.otkit_vae.shell import command

# The engine and its dependencies warn of their own deprecations in a first import.
pytestmark = pytest.mark.filterwarnings("default")


def train(out, *options):
    assert command("train", "--epochs", 2, "--penalty", "kl", "--progress", "false", "--out", out, *options) == 0


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    train(folder / "run", "--latent_dim", 3, "--epochs", 30)
    x = np.random.default_rng(0).normal(size=(60, 6, 5))
    np.save(folder / "bare.npy", x)
    train(folder / "bare", "--data", folder / "bare.npy", "--likelihood", "gaussian")
    return folder


@pytest.fixture(autouse=True)
def quick(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("otkit_vae.evaluation._augmentation.STEPS", 10)
    monkeypatch.setattr(
        "otkit_vae.evaluation._classifier.fit_classifier",
        lambda x, labels, seed: fit_classifier(x, labels, steps=100, seed=seed),
    )


@pytest.fixture
def run(trained, tmp_path):
    return shutil.copytree(trained / "run", tmp_path / "run")


def test_evaluate_prints_and_writes_all_numbers(run, capsys):
    assert command("evaluate", run, "--importance_samples", 5) == 0
    first = (run / "evaluation.json").read_text()
    content = json.loads(first)
    assert content["training"]["penalty"] == "kl"
    assert content["evaluation"]["importance_samples"] == 5
    printed = capsys.readouterr().out
    measures = content["measures"]
    for key in ("squared_error", "moments_w2", "sliced_w2", "prior_frechet", "mixture_recall", "augmented_accuracy"):
        assert measures[key]["title"] in printed
        assert np.isfinite(measures[key]["value"])
    assert "not Inception" in printed
    assert "K = 5" in measures["log_likelihood_bound"]["title"]
    # An ELBO is a mean of the same draws' reconstruction and KL, a bound with more samples lies above it.
    assert (
        measures["log_likelihood_bound"]["value"] > -measures["reconstruction"]["value"] - measures["penalty"]["value"]
    )
    # Samples of a mixture fitted to the codes are nearer to the data than those of the prior, real data nearest.
    assert measures["mixture_frechet"]["value"] < measures["prior_frechet"]["value"]
    assert measures["mixture_frechet"]["null"] < 0.5 * measures["mixture_frechet"]["value"]
    assert (run / "classifier.pt").is_file()
    assert command("evaluate", run, "--importance_samples", 5) == 0
    assert (run / "evaluation.json").read_text() == first


def test_the_report_of_a_finished_training_keeps_the_numbers_of_a_full_evaluation(run):
    measures = {"recall": {"title": "recall, n = 359", "value": 0.625, "null": 0.875, "better": "higher"}}
    section = {"heading": "samples", "null": "real data", "measures": ["recall"]}
    (run / "evaluation.json").write_text(json.dumps({"measures": measures, "sections": [section], "notes": []}))
    assert command("train", "--progress", "false", "--resume", run) == 0
    assert "recall, n = 359" in (run / "report.html").read_text()


def test_a_training_that_was_cut_short_and_batches_that_are_smaller_than_asked_are_said(trained, capsys):
    options = ("--data", trained / "bare.npy", "--likelihood", "gaussian", "--batch_size", 500)
    train("cut", *options, "--trainer.max_steps", 1)
    err = capsys.readouterr().err
    assert "all in one batch, as batch_size is 500" in err
    assert "cut: the model has 1 of 2 epochs behind it" in err
    assert command("evaluate", "cut", "--importance_samples", 2) == 0
    assert "cut: the model has 1 of 2 epochs behind it" in capsys.readouterr().err


def test_numbers_that_cannot_be_written_are_printed_all_the_same(trained, tmp_path, capsys):
    folder = shutil.copytree(trained / "bare", tmp_path / "bare")
    (folder / "evaluation.json").unlink(missing_ok=True)
    (folder / "evaluation.json").mkdir()
    assert command("evaluate", folder, "--importance_samples", 2) == 2
    out, err = capsys.readouterr()
    assert "log p(x) >= (K = 2" in out
    assert "evaluation.json cannot be written" in err


def test_evaluate_shows_its_progress(trained, monkeypatch):
    told = []
    monkeypatch.setattr(runs, "evaluate_fully", lambda *_, **given: told.append(given["progress"]) or sys.exit(0))
    with pytest.raises(SystemExit):
        command("evaluate", trained / "bare")
    assert told == [True]


def test_evaluate_without_labels_compares_the_observations(trained, capsys):
    assert command("evaluate", trained / "bare") == 0
    printed = capsys.readouterr().out
    assert "samples of the prior, in data space" in printed
    assert "have no labels" in printed
    assert "accuracy" not in printed
    assert not (trained / "bare" / "classifier.pt").exists()


@pytest.mark.parametrize("source", ["prior", "mixture"])
def test_sample_writes_images_codes_and_a_picture(run, source):
    assert command("sample", run, "--n", 7, "--from", source, "--out", "a.npz", "--seed", 3) == 0
    assert command("sample", run, "--n", 7, "--from", source, "--out", "b.npz", "--seed", 3) == 0
    assert command("sample", run, "--n", 7, "--from", source, "--out", "c.npz", "--seed", 4) == 0
    a, b, c = (np.load(f"{name}.npz") for name in "abc")
    assert a["images"].shape == (7, 8, 8)
    assert a["codes"].shape == (7, 3)
    assert np.array_equal(a["images"], b["images"])
    assert not np.array_equal(a["images"], c["images"])
    assert matplotlib.image.imread("a.png")[..., :3].std() > 0.02


def test_samples_of_the_prior_need_no_data_and_those_of_the_mixture_say_where_they_are_told_of(trained, capsys):
    run = Path(shutil.copytree(trained / "bare", "bare"))
    config = run / "config.yaml"
    config.write_text(config.read_text().replace("bare.npy", "gone.npy"))
    assert command("sample", run, "--n", 2, "--out", "a.npz") == 0
    assert np.load("a.npz")["images"].shape == (2, 6, 5)
    assert command("sample", run, "--n", 2, "--from", "mixture", "--out", "b.npz") == 2
    assert "gone.npy" in capsys.readouterr().err


def test_a_killed_sample_leaves_no_file_that_the_next_one_would_refuse(run, monkeypatch):
    def killed(file, **_):
        (file.write if hasattr(file, "write") else Path(file).write_bytes)(b"PK")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(np, "savez_compressed", killed)
        assert command("sample", run, "--n", 2, "--out", "a.npz") == 130
    assert command("sample", run, "--n", 2, "--out", "a.npz") == 0


def test_augment_writes_labelled_data_that_can_be_trained_on(run):
    assert command("augment", run, "--n_per_class", 6, "--out", "all.npz") == 0
    assert command("augment", run, "--n_per_class", 6, "--labelled_per_class", 5, "--out", "few.npz") == 0
    content, few = np.load("all.npz"), np.load("few.npz")
    assert content["images"].shape == (60, 8, 8)
    assert np.bincount(content["labels"]).tolist() == [6] * 10
    assert not np.array_equal(content["images"], few["images"])
    data = load_data("digits")
    classifier = fit_classifier(data.train, data.train_labels, steps=200)
    images, labels = (torch.from_numpy(content[name]) for name in ("images", "labels"))
    # Thirty epochs in three dimensions: not nearly all are of their class, but far more than a tenth.
    assert classifier.accuracy(images, labels) > 0.3
    assert load_data("all.npz").train.shape == (48, 8, 8)


def test_augment_names_classes_as_the_data_do(run, monkeypatch):
    data = replace(load_data("digits"), classes=tuple(f"class {k}" for k in range(10)))
    rows = []
    monkeypatch.setattr(runs, "load_data", lambda *_, **__: data)
    monkeypatch.setattr(pictures, "side_by_side", lambda names, *_, **__: rows.extend(names))
    assert command("augment", run, "--n_per_class", 2, "--out", "named.npz") == 0
    assert np.load("named.npz")["labels"].tolist() == [name for name in data.classes for _ in range(2)]
    assert rows == list(data.classes)
    assert load_data("named.npz").classes == data.classes


@pytest.mark.usefixtures("unpictured", "undrawn")
def test_compare_trains_all_and_goes_on_where_it_was(tmp_path, capsys, monkeypatch):
    def compare(penalties, *options):
        return command(
            "compare", "--penalties", penalties, "--epochs", 1, "--latent_dim", 2, "--progress", "false",
            "--out", "out", *options,
        )  # fmt: skip

    trained = []
    real = comparison.train
    monkeypatch.setattr(comparison, "train", lambda c: trained.append((c.penalty, c.seed)) or real(c))

    def killed(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(comparison, "write_evaluation", killed)
        assert compare("kl,none", "--seeds", 2) == 130
    assert trained == [("kl", 0)]
    assert compare("kl,none", "--seeds", 2) == 0
    # The run that had ended and had no evaluation yet is not trained again.
    assert trained == [("kl", 0), ("kl", 1), ("none", 0), ("none", 1)]
    del trained[:]
    printed = capsys.readouterr().out
    files = {"comparison.csv", "comparison.json", "comparison.md", "samples.png", "mixture.png", "reconstructions.png"}
    assert files <= {path.name for path in (tmp_path / "out").iterdir()}
    markdown = (tmp_path / "out" / "comparison.md").read_text()
    assert markdown in printed
    assert "null value" in markdown

    rows = list(csv.DictReader((tmp_path / "out" / "comparison.csv").read_text().splitlines()))
    assert {(row["penalty"], row["n_seeds"]) for row in rows} == {("kl", "2"), ("none", "2")}
    values = [
        json.loads((tmp_path / "out" / f"kl-{seed}" / "evaluation.json").read_text())["measures"]["squared_error"][
            "value"
        ]
        for seed in (0, 1)
    ]
    (row,) = [row for row in rows if (row["penalty"], row["measure"]) == ("kl", "squared_error")]
    assert float(row["mean"]) == pytest.approx(np.mean(values))
    assert float(row["sd"]) == pytest.approx(abs(values[0] - values[1]) / 2**0.5)
    assert json.loads((tmp_path / "out" / "comparison.json").read_text())[0]["penalty"] == "kl"

    # Finished runs are not trained again, evaluations with other options are made again, and seeds can be fewer.
    file = tmp_path / "out" / "kl-0" / "evaluation.json"
    before = file.read_text()
    assert command("evaluate", "out/kl-0", "--importance_samples", 2) == 0
    assert file.read_text() != before
    assert compare("none,kl", "--seeds", 1) == 0
    assert file.read_text() == before
    assert trained == []
    # Other options are another comparison, other weights another run.
    capsys.readouterr()
    assert compare("kl", "--epochs", 2) == 2
    assert "epochs is 1 there, 2 here" in capsys.readouterr().err
    assert compare("kl", "--weights", "{kl: 0.5}") == 2
    assert "kl-0 was trained with weight 1.0, not 0.5" in capsys.readouterr().err


@pytest.mark.usefixtures("unpictured", "undrawn")
def test_compare_resumes_a_run_from_its_checkpoint(tmp_path, capsys, monkeypatch):
    def compare(*options):
        return command(
            "compare", "--penalties", "kl", "--seeds", 1, "--epochs", 2, "--latent_dim", 2, "--widths", "[8]",
            "--progress", "false", *options,
        )  # fmt: skip

    epochs, start, stopped = [], Training.on_train_epoch_start, []

    def interrupted(training):
        epochs.append(training.current_epoch)
        if training.current_epoch == 1 and not stopped:
            stopped.append(True)
            raise KeyboardInterrupt
        start(training)

    monkeypatch.setattr(Training, "on_train_epoch_start", interrupted)
    assert compare("--out", "stopped") == 130
    assert not (tmp_path / "stopped" / "kl-0" / "evaluation.json").exists()
    # A run that was begun with other options is not gone on with, and not deleted.
    assert compare("--out", "stopped", "--weights", "{kl: 0.5}") == 2
    assert "kl-0 was trained with weight 1.0, not 0.5" in capsys.readouterr().err
    assert compare("--out", "stopped") == 0
    assert epochs == [0, 1, 1]
    assert compare("--out", "whole") == 0
    mine, whole = (checkpoint.load(tmp_path / name / "kl-0").state_dict() for name in ("stopped", "whole"))
    assert all(torch.equal(mine[name], whole[name]) for name in whole)
    measures = [
        json.loads((tmp_path / name / "kl-0" / "evaluation.json").read_text())["measures"]
        for name in ("stopped", "whole")
    ]
    assert measures[0] == measures[1]

    # Of a run without its options there is nothing yet.
    shutil.rmtree(tmp_path / "whole" / "kl-0")
    (tmp_path / "whole" / "kl-0").mkdir()
    assert compare("--out", "whole") == 0
    assert epochs == [0, 1, 1, 0, 1, 0, 1]


def test_compare_does_not_mix_data(tmp_path, capsys, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(comparison, "_run", killed)

    def compare(penalties):
        options = ("--seeds", 1, "--epochs", 1, "--widths", "[8]", "--progress", "false", "--data", "x.npy")
        return command("compare", "--penalties", penalties, *options, "--out", "out")

    x = np.random.default_rng(0).random((60, 6), dtype=np.float32)
    np.save("x.npy", x)
    assert compare("kl") == 130
    np.save("x.npy", x**8)
    capsys.readouterr()
    assert compare("kl,sliced") == 2
    assert "data: x.npy has changed since out was trained on it (train was 48 x 6" in capsys.readouterr().err
    np.save("x.npy", x)
    assert compare("kl,sliced") == 130


def test_the_best_is_bold_unless_there_are_two(tmp_path):
    def row(penalty, measure, mean, better, null=None):
        return compared.Row(penalty, measure, measure, mean, 0.25, null, better, 3)

    found = compared.Comparison(
        tmp_path,
        (
            row("kl", "squared_error", 2.0, "lower"),
            row("kl", "prior_recall", 0.5, "higher", 0.9),
            row("kl", "w2", 1.0, None, 1.5),
            row("mmd", "squared_error", 1.0, "lower"),
            row("mmd", "prior_recall", 0.5, "higher", 0.7),
            row("mmd", "w2", 2.0, None, 1.5),
        ),
    )
    assert found.table().split("\n") == [
        "| penalty    | squared error | W2(q, p) samples | recall, prior |",
        "| ---------- | ------------- | ---------------- | ------------- |",
        "| kl         | 2 ± 0.25      | 1 ± 0.25         | 0.5 ± 0.25    |",
        "| mmd        | **1 ± 0.25**  | 2 ± 0.25         | 0.5 ± 0.25    |",
        "| null value |               | 1.5              | 0.8           |",
    ]
    assert found.winners().split("\n") == [
        "| measure       | best | mean | kl | difference |",
        "| ------------- | ---- | ---- | -- | ---------- |",
        "| squared error | mmd  | 1    | 2  | -1 (-50%)  |",
    ]
    assert found.markdown() == f"{found.table()}\n\n{found.winners()}"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("evaluate", "nowhere"), "run: no file nowhere/config.yaml"),
        (("evaluate", "RUN", "--importance_samples", 0), "importance_samples is 0"),
        (("evaluate", "RUN", "--labelled_per_class", 1), "labelled_per_class is 1"),
        (("evaluate", "RUN", "--seed", 2**32), "seed is 4294967296; expected a whole number from 0 to 2**32 - 1"),
        (("sample", "nowhere"), "run: no file nowhere/config.yaml"),
        (("sample", "RUN", "--n", 0), "n is 0"),
        (("sample", "RUN", "--n", 10**15), "too little memory"),
        (("sample", "RUN", "--n", 10**19), "n is 10000000000000000000; expected a whole number from 1 to 2**63 - 1"),
        (("sample", "RUN", "--out", "samples.png"), "out is 'samples.png'; expected the name of an .npz file"),
        (("sample", "RUN", "--out", "there.npz"), "out: there.npz exists"),
        (("sample", "RUN", "--out", "no/where.npz"), "out: no folder no"),
        (("sample", "RUN", "--from", "thin air"), "--from"),
        (("sample", "RUN", "--seed", -1), "seed is -1"),
        (("augment", "BARE"), "have no labels"),
        (("augment", "RUN", "--n_per_class", 0), "n_per_class is 0"),
        (("augment", "RUN", "--labelled_per_class", 1), "labelled_per_class is 1"),
        (("compare", "--penalties", "kl"), "out"),
        (
            ("compare", "--out", "new", "--penalties", "kl,wassserstein"),
            "penalties: penalty is 'wassserstein'; expected one of",
        ),
        (("compare", "--out", "new", "--penalties", "kl,kl"), "penalties has kl twice"),
        (("compare", "--out", "new", "--penalties", ","), "penalties is empty"),
        (("compare", "--out", "new", "--seeds", 0), "seeds is 0"),
        (("compare", "--out", "new", "--penalties", "kl", "--weights", "{mmd: 1}"), "weights has mmd"),
        (("compare", "--out", "new", "--penalties", "kl", "--weights", "{kl: -1}"), "weight is -1"),
        (("compare", "--out", "new", "--data", "nowhere.npz"), "data: no file nowhere.npz"),
        (("compare", "--out", "new", "--data", "wide.npy"), "the bernoulli likelihood expects [0, 1]"),
        (("compare", "--out", "new", "--penalties", "kl,wasserstein", "--batch_size", 1), "batch_size is 1"),
        (("compare", "--out", "full", "--penalties", "kl"), "out: full exists and is no comparison"),
        (("compare", "--out", "empty", "--penalties", "kl"), "out: empty/options.yaml does not hold the options of a"),
        (("compare", "--out", "torn", "--penalties", "kl"), "out: torn/options.yaml does not hold the options of a"),
    ],
)
def test_bad_input_is_one_line_and_status_2(trained, tmp_path, capsys, arguments, message):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("precious")
    (tmp_path / "there.npz").write_text("precious")
    for name, content in (("empty", ""), ("torn", "data: [dig")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "options.yaml").write_text(content)
    np.save("wide.npy", np.random.default_rng(0).normal(size=(40, 4)))
    before = sorted(tmp_path.rglob("*"))
    folders = {"RUN": trained / "run", "BARE": trained / "bare"}
    assert command(*(folders.get(argument, argument) for argument in arguments)) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert err.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_a_run_of_another_version_is_refused(run, capsys):
    (run / "config.yaml").write_text("penalty: kl\ncolour: red\n")
    assert command("evaluate", run) == 2
    assert "does not hold the options of a training of this version" in capsys.readouterr().err
