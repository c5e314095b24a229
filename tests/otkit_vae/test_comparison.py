"""What a comparison does with what it finds in its folder, and with what a training gives it."""

import json
import shutil

import numpy as np
import pytest

from otkit_vae import commands, comparison
from otkit_vae.compared import Comparison, Row
from otkit_vae.config import TrainConfig
from otkit_vae.evaluation import EvaluationOptions
from otkit_vae.runs import read_config

# The engine and its dependencies warn of their own deprecations in a first import.
pytestmark = pytest.mark.filterwarnings("default")


def compare(penalties=("kl",), weights=None, **options):
    base = TrainConfig(**{"data": "x.npy", "epochs": 1, "widths": [8], "latent_dim": 2, "progress": False} | options)
    return comparison.compare(base, penalties, n_seeds=1, out="out", weights=weights, progress=False)


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compared")
    np.save(folder / "x.npy", np.random.default_rng(0).random((60, 6), dtype=np.float32))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        compare()
    return folder


@pytest.fixture
def done(compared, tmp_path, monkeypatch, unpictured, undrawn):
    """A comparison that is finished, in a folder of its own."""
    folder = shutil.copytree(compared, tmp_path / "done")
    monkeypatch.chdir(folder)
    monkeypatch.setattr("otkit_vae.pictures.side_by_side", lambda *_, **__: None)
    return folder


def content(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("left", ["config.yaml.moved", ".config.yaml.partial"])
def test_a_run_folder_without_options_is_kept(done, left):
    run = done / "out" / "kl-0"
    (run / "evaluation.json").unlink()
    (run / "config.yaml").rename(run / left)
    (run / "notes.txt").write_text("precious")
    before = content(run)
    with pytest.raises(FileExistsError, match=r"out: .*kl-0 has files but no config\.yaml; expected"):
        compare()
    assert content(run) == before


def test_what_a_killed_start_leaves_is_begun_anew(done):
    run = done / "out" / "kl-0"
    expected = json.loads((run / "evaluation.json").read_text())
    shutil.rmtree(run)
    run.mkdir()
    (run / ".config.yaml.partial").write_text("penalty: k")
    compare()
    assert json.loads((run / "evaluation.json").read_text()) == expected
    # A start that was killed as it wrote the options of the comparison.
    shutil.rmtree(done / "out")
    (done / "out").mkdir()
    (done / "out" / ".options.yaml.partial").write_text("data: [dig")
    compare()
    assert json.loads((run / "evaluation.json").read_text()) == expected


@pytest.mark.parametrize("other", ['{"measures": {}}', "{"])
def test_an_evaluation_of_another_version_is_made_anew(done, other):
    file = done / "out" / "kl-0" / "evaluation.json"
    expected = file.read_text()
    file.write_text(other)
    compare()
    assert file.read_text() == expected


def test_a_run_that_was_evaluated_by_hand_is_gone_on_with(done, monkeypatch):
    expected, resumed = json.loads((done / "out" / "kl-0" / "evaluation.json").read_text()), []
    monkeypatch.setattr(comparison, "resume", lambda folder, **_: resumed.append(folder.name))
    commands.evaluate("out/kl-0", EvaluationOptions())  # as in the middle of the training
    compare()
    assert resumed == ["kl-0"]
    assert json.loads((done / "out" / "kl-0" / "evaluation.json").read_text()) == expected


def test_the_evaluation_of_a_run_is_written_last(done, monkeypatch):
    def killed(*_, **__):
        raise KeyboardInterrupt

    run = done / "out" / "kl-0"
    for name in ("evaluation.json", "report.html"):
        (run / name).unlink()
    monkeypatch.setattr(comparison, "write_evaluation", killed)
    with pytest.raises(KeyboardInterrupt):
        compare()
    assert "log p(x) &gt;=" in (run / "report.html").read_text()


@pytest.mark.parametrize("ended", [True, False])
def test_data_that_moved_are_those_of_the_comparison_by_what_they_are(done, ended):
    file = done / "out" / "kl-0" / "evaluation.json"
    measures = json.loads(file.read_text())["measures"]
    if not ended:
        file.unlink()
    np.save("x.npy", 1 - np.load((done / "x.npy").rename("there.npy")))
    with pytest.raises(ValueError, match=r"data: x\.npy has changed since out was trained on it"):
        compare()
    compare(data="there.npy")
    assert json.loads(file.read_text())["measures"] == measures


def test_other_weights_are_refused_before_the_first_training(done):
    with pytest.raises(FileExistsError, match=r"kl-0 was trained with weight 1\.0, not 0\.5"):
        compare(["none", "kl"], weights={"kl": 0.5})
    assert not (done / "out" / "none-0").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [({"devices": 2, "accelerator": "cpu"}, "trainer asks for 2 processes; expected one"), ({"colour": 1}, "trainer:")],
)
def test_what_the_trainer_cannot_do_is_said_before_a_training(compared, tmp_path, monkeypatch, options, said):
    shutil.copy(compared / "x.npy", tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=f"penalties: kl cannot be trained with these options: {said}"):
        compare(trainer=options)
    assert not (tmp_path / "out").exists()


def test_a_mean_that_is_not_finite_is_not_the_best(tmp_path):
    def table(*means):
        names = ("kl", "mmd", "sliced")
        rows = (Row(n, "w2", "W2", m, None, None, "lower", 1) for n, m in zip(names, means, strict=True))
        return Comparison(tmp_path, tuple(rows)).markdown()

    nan = float("nan")
    assert table(nan, 2.0, 1.0).count("**1**") == 1
    assert table(2.0, nan, 1.0).count("**1**") == 1
    assert table(2.0, 1.0, float("-inf")).count("**1**") == 1
    for nothing in (table(nan, nan, nan), table(nan, nan, 1.0), table(1.0, 1.0, nan)):
        assert "**" not in nothing


@pytest.mark.parametrize(("base", "difference"), [(-2.0, "+3.5"), (0.0, "+1.5"), (1.0, "+0.5 (+50%)")])
def test_a_difference_is_relative_between_positive_means(tmp_path, base, difference):
    rows = (Row(n, "w2", "W2", m, None, None, "higher", 1) for n, m in (("kl", base), ("mmd", 1.5)))
    assert Comparison(tmp_path, tuple(rows)).winners().endswith(f" | {difference:10} |")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"\xff\xfepenalty: kl", ""),
        (b"data: null", "data is None; expected a text"),
        (b"data_root: 5", "data_root is 5"),
    ],
)
def test_a_config_that_is_none_is_named(tmp_path, text, said):
    (tmp_path / "config.yaml").write_bytes(text)
    with pytest.raises(ValueError, match=rf"run: .*config\.yaml does not hold the options of a training.*{said}"):
        read_config(tmp_path / "config.yaml")
