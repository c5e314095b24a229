"""What a report shows, and what it leaves out with a reason; how it looks is in tests/browser."""

import html
import math
import re
import shlex
from dataclasses import replace

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes

from otkit_vae import VAE, cli
from otkit_vae.compared import Comparison, Row
from otkit_vae.config import TrainConfig
from otkit_vae.evaluation import Codes
from otkit_vae.evaluation._measures import Measure, Section
from otkit_vae.report import SECTIONS, _codes, _comparison, _figures, write_report
from otkit_vae.report._images import Painter
from otkit_vae.report._run import Numbers, commands, numbers, read_metrics


def text_of(page):
    """The words of a page."""
    body = re.sub(r"<(style|svg)\b.*?</\1>", " ", page, flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", body)).split())


def test_a_report_has_all_and_fetches_nothing(untrained):
    run = untrained((8, 8))
    page = write_report(run).read_text()
    for key, heading in SECTIONS.items():
        assert f'id="{key}"' in page
        assert heading in text_of(page)
    # Nothing is referred to but places in the page and data in it.
    assert set(re.findall(r'(?:src|href)="([^"#]{0,5})', page)) <= {"data:", ""}
    assert not re.search(r"url\((?!#)|@import|<script", page)
    assert "default-src 'none'" in page
    words = text_of(page)
    for word in ("W2 of q(z) to p(z), moments", "at q = p", "penalty sliced", "--penalty sliced"):
        assert word in words
    assert write_report(run).read_text() == page  # the same again


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"labels": None}, "no labels to colour the map by"),
        ({"posterior": "deterministic"}, "it has no scale to show"),
        ({"posterior": "deterministic"}, "the geodesic is the straight line"),
        ({"latent_dim": 1}, "There is no map: codes have one dimension"),
        ({"epochs": 0}, "There are no curves"),
        ({"shape": (9,)}, "Observations are not images"),
        ({"shape": (1,)}, "Observations are not images"),
        ({"shape": (2, 5, 7)}, "Observations are not images"),
    ],
)
@pytest.mark.usefixtures("undrawn")
def test_what_is_not_there_is_left_out_with_a_reason(untrained, options, said):
    assert said in text_of(write_report(untrained(**{"shape": (4, 3), **options})).read_text())
    if options.get("epochs") != 0:
        assert said not in text_of(write_report(untrained((4, 3), epochs=1)).read_text())


@pytest.mark.usefixtures("undrawn")
def test_a_diagonal_posterior_without_curves_is_not_called_deterministic(untrained):
    assert "The posterior is deterministic" not in text_of(write_report(untrained((4, 3), epochs=0)).read_text())


def test_curves_are_drawn_at_the_epochs_that_have_a_value(untrained, monkeypatch):
    run, drawn, bands = untrained((4, 3)), [], []
    rows = [f"{k},{9 - k},{8 - k},1.0,0.5" + (f",{7 - k},{6 - k},1.0,0.5" if k % 2 else ",,,,") for k in range(4)]
    text = (run.folder / "metrics.csv").read_text()
    (run.folder / "metrics.csv").write_text("\n".join([text.split("\n")[0], *rows]) + "\n")
    metrics = read_metrics(run.folder)
    assert metrics["train_loss"] == {1: 9, 2: 8, 3: 7, 4: 6}
    assert metrics["held_out_loss"] == {2: 6, 4: 4}

    def plot(_, x, y, **style):
        drawn.append((list(x), list(y)))
        return plotted(_, x, y, **style)

    def fill(_, x, low, high, **style):
        bands.append((list(x), list(low), list(high)))
        return filled(_, x, low, high, **style)

    plotted, filled = Axes.plot, Axes.fill_between
    monkeypatch.setattr(Axes, "plot", plot)
    monkeypatch.setattr(Axes, "fill_between", fill)
    said = _figures.curves("loss", "nats", {part: metrics[f"{part}_loss"] for part in ("train", "held_out")})
    assert drawn == [([1, 2, 3, 4], [9, 8, 7, 6]), ([2, 4], [6, 4])]
    assert "loss over 4 epochs: train from 9 to 6; held_out from 6 to 4" in said
    # Of several runs, where all have a value.
    del drawn[:]
    _figures.overlay("loss", "nats", {"kl": [{2: 6.0, 4: 4.0}, {4: 2.0, 6: 1.0}]}, _figures.lines(["kl"]))
    assert drawn == [([4], [3])]
    assert bands == [([4], [2], [4])]
    del drawn[:]
    _comparison.curves([run.config], _figures.lines([run.config.penalty]))
    assert drawn == [([2, 4], values) for values in ([5, 3], [1, 1], [6, 4], [0.5, 0.5])]


def test_a_quantity_is_left_out_where_it_is_zero_for_all(untrained, tmp_path, monkeypatch):
    monkeypatch.setattr(_figures, "overlay", lambda title, *_: title)
    run, other = untrained((4, 3), epochs=1), tmp_path / "other"
    other.mkdir()
    header = (run.folder / "metrics.csv").read_text().split("\n")[0]
    (other / "metrics.csv").write_text(f"{header}\n0,3,3,0,0.5,4,4,0,0.5\n")
    none = replace(run.config, penalty="none", weight=None, out=str(other))
    styles = _figures.lines(["sliced", "none"])
    assert [len(_comparison.curves(configs, styles)) for configs in ([run.config, none], [none])] == [4, 3]


@pytest.mark.parametrize("shape", [(4, 12), (3, 6, 5), (6, 5, 3), (4, 6, 6)])
@pytest.mark.usefixtures("undrawn")
def test_images_of_any_kind_are_shown(untrained, shape):
    assert "Black to white: 0 to 1" in text_of(write_report(untrained(shape, n=8, labels=30)).read_text())


@pytest.mark.usefixtures("undrawn")
def test_an_unknown_posterior_has_no_geodesic(untrained):
    run = untrained((4, 3))
    laplace = torch.distributions.Laplace

    class Laplaces(torch.nn.Module):
        def forward(self, features):
            loc, raw = features.chunk(2, -1)
            return torch.distributions.Independent(laplace(loc, raw.exp()), 1)

    run.model.posterior = Laplaces()
    # The evaluation of a training knows Gaussians only.
    (run.folder / "evaluation.json").write_text('{"measures": {}, "sections": [], "notes": []}')
    assert "The posterior is no Gaussian" in text_of(write_report(run).read_text())


@pytest.mark.usefixtures("undrawn")
def test_names_are_text_not_markup(untrained):
    run = untrained((4, 3))
    object.__setattr__(run.data, "name", "<b onload=alert(1)>&amp;")
    object.__setattr__(run.data, "classes", ("<i>one", "two", "three"))
    page = write_report(run).read_text()
    assert "&lt;b onload=alert(1)&gt;&amp;amp; · sliced" in page
    assert re.findall(r"[●▲]</span> (.*)</li>", page) == ["&lt;i&gt;one", "three", "two"]


def test_the_printed_command_repeats_the_training(untrained, monkeypatch):
    run = untrained((4, 3), penalty="mmd", penalty_options={"kernel": "gaussian"}, weight=0.5, widths=[8, 9], seed=3)
    asked = []
    monkeypatch.setattr("otkit_vae.commands.train", asked.append)
    command = commands(run)["from anywhere"]
    assert "--trainer" not in command  # it is as by default
    assert cli.main(shlex.split(command)[1:]) == 0
    (config,) = asked
    assert config == TrainConfig(**(run.config.__dict__ | {"out": "NEW"}))


@pytest.mark.parametrize(
    "rows",
    [
        "epoch,train_loss\n0,abc\n",
        "train_loss\n1\n",
        "epoch,train_loss\n0,1,2\n",
        "epoch,train_loss\n0," + "1" * 200_000,
    ],
    ids=["text", "no epoch", "too long a row", "too long a number"],
)
def test_a_damaged_metrics_file_is_named(tmp_path, rows):
    (tmp_path / "metrics.csv").write_text(rows)
    with pytest.raises(ValueError, match=r"run: .*metrics\.csv does not hold the metrics of epochs"):
        read_metrics(tmp_path)


@pytest.mark.usefixtures("undrawn")
def test_a_training_that_has_not_ended_is_shown_as_such(untrained):
    run = untrained((4, 3))
    assert " 120 epochs, batches" in text_of(write_report(run._replace(epochs=120)).read_text())
    assert " 2 of 120 epochs, batches" in text_of(write_report(run._replace(epochs=2)).read_text())


@pytest.mark.usefixtures("undrawn")
def test_numbers_are_those_of_the_last_evaluation(untrained):
    run = untrained((4, 3))
    (run.folder / "evaluation.json").write_text(
        '{"measures": {"w2": {"title": "W2, points", "value": 1.5, "null": 1.25, "better": "lower"}}, '
        '"sections": [{"heading": "codes", "null": "at q = p", "measures": ["w2"]}], "notes": ["mind the gap"]}'
    )
    measure = Measure("w2", "W2, points", 1.5, 1.25, "lower")
    assert numbers(run, None) == Numbers((Section("codes", "at q = p", (measure,)),), ("mind the gap",))
    words = text_of(write_report(run).read_text())
    assert "W2, points (lower is better) 1.5 1.25" in words
    assert "mind the gap" in words
    (run.folder / "evaluation.json").write_text(
        '{"training": {"seed": 9}, "measures": {}, "sections": [], "notes": []}'
    )
    with pytest.raises(ValueError, match=r"is of a training with other seed; evaluate the run again"):
        write_report(run)
    (run.folder / "evaluation.json").write_text('{"step": 4, "measures": {}, "sections": [], "notes": []}')
    with pytest.raises(ValueError, match=r"is of step 4, and the checkpoint of step 9; evaluate the run again"):
        write_report(run._replace(step=9))
    for damaged in (
        '{"measures": {}}',
        '{"measures": [], "sections": [], "notes": []}',
        '{"measures": {"w2": {"title": "W2", "value": "1.5"}}, "sections": [], "notes": []}',
        '{"measures": {"w2": {"title": "W2", "value": 1.5, "null": [2]}}, "sections": [], "notes": []}',
    ):
        (run.folder / "evaluation.json").write_text(damaged)
        with pytest.raises(ValueError, match=r"does not hold an evaluation of this version .*; evaluate the run again"):
            write_report(run)


@pytest.mark.usefixtures("undrawn")
def test_the_first_numbers_say_where_samples_are_drawn_from(untrained):
    run = untrained((4, 3))
    about = '{"title": "Fréchet distance, n = 9", "value": %s, "null": 0.5, "better": "lower"}'
    (run.folder / "evaluation.json").write_text(
        f'{{"measures": {{"prior_frechet": {about % 3.5}, "mixture_frechet": {about % 2.5}}}, "sections": ['
        '{"heading": "samples of the prior", "null": "real data", "measures": ["prior_frechet"]}, '
        '{"heading": "samples of a mixture", "null": "real data", "measures": ["mixture_frechet"]}], "notes": []}',
        encoding="utf-8",
    )
    words = text_of(write_report(run).read_text(encoding="utf-8"))
    assert "Fréchet distance, n = 9, samples of the prior 3.5 real data: 0.5" in words
    assert "Fréchet distance, n = 9, samples of a mixture 2.5 real data: 0.5" in words


def test_the_ways_between_posteriors_have_the_laws_they_claim():
    torch.manual_seed(0)
    model, x = VAE.sized((5,), 3, posterior="full", widths=(6,)).double(), torch.rand(2, 5, dtype=torch.float64)
    with torch.no_grad():
        q = model.encode(x)
    found = [_codes.way(model, x, torch.Generator().manual_seed(k)) for k in range(400)]
    assert torch.allclose(found[0].means[[0, -1]], q.mean)
    geodesic, line = (torch.stack([getattr(way, name) for way in found]) for name in ("geodesic", "line"))
    t = torch.linspace(0, 1, _codes.STEPS, dtype=torch.float64)
    cov = q.covariance_matrix
    for k in range(_codes.STEPS):
        mean = (1 - t[k]) * q.mean[0] + t[k] * q.mean[1]
        expected = {
            "line": (1 - t[k]) ** 2 * cov[0] + t[k] ** 2 * cov[1],
            "geodesic": _codes.gaussian.geodesic(q.mean[0], cov[0], q.mean[1], cov[1], t[k])[1],
        }
        for draws, law in ((line, "line"), (geodesic, "geodesic")):
            # Of 400 draws a mean is off by 1/20 and a variance by 1/14 of itself, standard deviations; six are allowed.
            scale = expected[law].diagonal().sqrt()
            assert ((draws[:, k].mean(0) - mean).abs() < 6 * scale / 20).all()
            assert ((draws[:, k].var(0) / scale**2 - 1).abs() < 6 / 14).all()
            spread = found[0].spread[0 if law == "geodesic" else 1][k].item()
            assert spread == pytest.approx(math.sqrt(expected[law].diagonal().mean()), rel=1e-6)


def test_the_map_has_the_main_directions_and_the_prior_in_them():
    generator = torch.Generator().manual_seed(0)
    means = torch.randn(500, 4, generator=generator) * torch.tensor([3.0, 0.1, 2.0, 0.1])
    prior = torch.distributions.MultivariateNormal(torch.ones(4), torch.diag(torch.tensor([1.0, 4.0, 9.0, 16.0])))
    found = _codes.map_of(Codes(means, torch.full((500, 4), 0.2), means), prior)
    assert found.share > 0.99
    assert found.points.var(0) == pytest.approx(means[:, [0, 2]].var(0).numpy(), rel=0.05)
    assert found.prior[1].diagonal() == pytest.approx([1, 9], rel=0.05)
    assert abs(found.prior[0]) == pytest.approx([1, 1], rel=0.1)
    assert found.spread == pytest.approx([0.2, 0.2])


def test_the_map_is_of_the_first_codes_and_its_share_of_their_variance_about_the_mean():
    means = torch.randn(_codes.MAPPED + 100, 2, generator=torch.Generator().manual_seed(0)).double()
    prior = torch.distributions.MultivariateNormal(torch.zeros(2), torch.eye(2))
    assert (_codes.map_of(Codes(means, means, means), prior).points == means[: _codes.MAPPED].numpy()).all()
    equal = torch.randn(500, 4, generator=torch.Generator().manual_seed(0)).double()
    equal = torch.linalg.qr(equal - equal.mean(0))[0] + 7  # alike in four directions
    prior = torch.distributions.MultivariateNormal(torch.zeros(4), torch.eye(4))
    assert _codes.map_of(Codes(equal, equal, equal), prior).share == pytest.approx(0.5)


def test_the_map_has_a_prior_of_unknown_moments_by_its_samples():
    base = torch.distributions.Independent(torch.distributions.Normal(torch.zeros(2), torch.ones(2)), 1)
    shift = torch.distributions.AffineTransform(torch.tensor([1.0, -1.0]), torch.tensor([2.0, 3.0]))
    means = torch.randn(20, 2)
    found = _codes.map_of(Codes(means, means, means), torch.distributions.TransformedDistribution(base, [shift]))
    assert found.prior[0] == pytest.approx([1, -1], abs=0.1)
    assert found.prior[1].diagonal() == pytest.approx([4, 9], rel=0.1)


def test_the_noise_of_a_code_is_a_root_mean_square_and_the_prior_an_ellipse():
    scale = torch.tensor([[0.1, 0.3], [0.7, 0.3]]).repeat(10, 1)
    means = torch.randn(20, 2)
    prior = torch.distributions.MultivariateNormal(torch.tensor([1.0, 2.0]), torch.diag(torch.tensor([4.0, 9.0])))
    found = _codes.map_of(Codes(means, scale, means), prior)
    assert found.spread == pytest.approx([0.5, 0.3])
    ellipse = _figures.ellipse(*found.prior, 2)
    corners = ellipse.get_patch_transform().transform([[1, 0], [-1, 0], [0, 1], [0, -1]])
    assert sorted(map(tuple, np.round(corners, 6))) == [(-3, 2), (1, -4), (1, 8), (5, 2)]


@pytest.mark.parametrize(
    ("options", "there"),
    [
        ({}, True),
        ({"posterior": "full"}, False),
        ({"posterior": "full", "latent_dim": 2}, True),
        ({"posterior": "deterministic"}, False),
    ],
)
@pytest.mark.usefixtures("undrawn")
def test_the_noise_of_a_code_is_said_where_the_scales_of_the_units_tell_it(untrained, options, there):
    # Across units that are correlated a posterior has another spread than one that is diagonal.
    assert ("The noise of a code" in text_of(write_report(untrained((4, 3), **options)).read_text())) == there


def test_a_null_value_that_each_penalty_has_for_itself_is_beside_its_value(tmp_path):
    rows = (
        Row("kl", "penalty", "penalty", 3.0, 0.25, 0.0, None, 3),
        Row("kl", "w2", "W2", 2.0, None, 1.5, None, 1),
        Row("mmd", "penalty", "penalty", 0.5, None, 0.125, None, 1),
        Row("mmd", "w2", "W2", 1.0, None, 1.5, None, 1),
    )
    found = _comparison.measures(Comparison(tmp_path, rows), ["kl", "mmd", "none"])
    assert [(row["null"], row["cells"]) for row in found] == [
        ("in brackets", ["3 ± 0.25 (0)", "0.5 (0.125)", "–"]),
        ("1.5", ["2", "1", "–"]),
    ]


def test_measures_of_samples_have_titles_of_their_own(tmp_path):
    title = "Fréchet distance, n = 359"
    rows = [Row("kl", key, title, 3.0, None, 0.0, "lower", 1) for key in ("prior_frechet", "mixture_frechet")]
    rows.append(Row("kl", "w2", "W2 of q(z) to p(z), samples", 3.0, None, 0.0, None, 1))
    assert [row["title"] for row in _comparison.measures(Comparison(tmp_path, tuple(rows)), ["kl"])] == [
        f"{title}, samples of the prior",
        f"{title}, samples of a mixture",
        "W2 of q(z) to p(z), samples",
    ]


@pytest.mark.usefixtures("undrawn")
def test_what_the_measures_mean_is_said_of_those_that_there_are(untrained):
    run = untrained((4, 3))
    about = '{"title": "some", "value": 3.5}'
    (run.folder / "evaluation.json").write_text(
        f'{{"measures": {{"active_units": {about}, "prior_precision": {about}}}, "sections": ['
        '{"heading": "all", "null": "", "measures": ["active_units", "prior_precision"]}], "notes": []}',
        encoding="utf-8",
    )
    words = text_of(write_report(run).read_text(encoding="utf-8"))
    lines = "An active unit is", "Precision is the share", "The data have grey values"
    assert all(line in words for line in lines)
    (run.folder / "evaluation.json").unlink()
    object.__setattr__(run.data, "held_out", run.data.held_out.round())
    words = text_of(write_report(run).read_text(encoding="utf-8"))
    assert not any(line in words for line in lines)
    run = untrained((4, 3), likelihood="gaussian")
    assert "The data have grey values" not in text_of(write_report(run).read_text(encoding="utf-8"))


def test_it_is_said_from_where_the_command_with_the_config_works(untrained, tmp_path, monkeypatch):
    run = untrained((4, 3))
    assert list(commands(run)) == ["on this machine", "from anywhere"]
    monkeypatch.chdir(tmp_path)
    near = run._replace(folder=run.folder.relative_to(tmp_path))
    assert commands(near)["from the folder in which run is this run’s folder"] == (
        "otkit-vae train --config run/config.yaml --out NEW"
    )


def test_marginals_are_ordered_by_their_distance():
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(2000, 3, generator=generator) * torch.tensor([1.0, 0.2, 1.0]) + torch.tensor([0.3, 0.0, 0.0])
    prior = torch.distributions.Independent(torch.distributions.Normal(torch.zeros(3), 1.0), 1)
    found = _codes.marginals(Codes(z, torch.ones_like(z), z), prior, generator)
    assert found.order == [1, 0, 2]
    assert found.w2 == pytest.approx([0.3, 0.8, 0], abs=0.06)  # between normals: |Δ mean|, |Δ scale|
    assert 0.5 < found.w2[2] / found.null < 2


@pytest.mark.parametrize(("labels", "pairs"), [(None, [(0, 1), (2, 3)]), ([5, 5, 7, 7, 9, 1], [(5, 0), (2, 4)])])
def test_pairs_are_of_different_labels(labels, pairs):
    assert _codes.ends(None, 3, 2) == [(0, 1)]
    assert _codes.ends(None if labels is None else torch.tensor(labels), 6, 2) == pairs


def test_pixels_are_the_values_of_the_data():
    x = torch.tensor([[[0.0, 0.5], [1.0, 1.0]]])
    painter = Painter.of(x)
    assert painter.pixels(x[0]).tolist() == [[0, 128], [255, 255]]
    painter = Painter.of(4 * x - 3)
    assert (painter.low, painter.high) == (-3, 1)
    assert painter.pixels(4 * x[0] - 3).tolist() == [[0, 128], [255, 255]]
    # Of constant data the one value is black, and curves lie at the bottom.
    constant = Painter.of(torch.full((3, 2, 2), 7.0))
    assert constant.pixels(torch.full((2, 2), 7.0)).tolist() == [[0, 0], [0, 0]]
    assert not constant.heights(torch.full((5,), 7.0)).any()
    # A reconstruction beyond the data is cut to their range.
    assert painter.pixels(torch.full((2, 2), 9.0)).tolist() == [[255, 255], [255, 255]]


@pytest.mark.parametrize("channels_last", [False, True])
def test_channels_are_red_green_and_blue_without_transparency(channels_last):
    x = torch.rand(4, 2, 5)
    shown = Painter.of(x[None]).pixels(x.movedim(0, -1) if channels_last else x)
    assert (shown == (255 * x[:3]).round().movedim(0, -1).numpy()).all()


def test_a_curve_is_from_left_to_right_and_from_the_bottom_up():
    y = torch.tensor([0.0, 0.5, 1.0])
    (tile,) = Painter.of(y[None]).tiles(y[None])
    assert 'points="1.0,48.0 50.0,25.0 99.0,2.0"' in tile
    long = torch.linspace(0, 1, 801)
    np.testing.assert_array_equal(Painter.of(long[None]).heights(long), long.double()[::3])


def test_a_single_value_is_a_level_that_can_be_seen(untrained):
    x = torch.tensor([[0.0], [0.5], [1.0]])
    painter = Painter.of(x)
    for tile, y in zip(painter.tiles(x), ("48.0", "25.0", "2.0"), strict=True):
        assert f'points="1.0,{y} 99.0,{y}"' in tile
    (beyond,) = painter.tiles(torch.tensor([[7.0]]))
    assert 'points="1.0,2.0 99.0,2.0"' in beyond
    assert "drawn as levels, each of a single value" in text_of(write_report(untrained((1,))).read_text())
    assert "drawn as curves over their index" in text_of(write_report(untrained((2,))).read_text())


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ((28, 28), "small"),
        ((56, 56), "small"),
        ((30, 10), "small"),
        ((64, 64), "medium"),
        ((10, 30), "large"),
        ((9,), "medium"),
    ],
)
def test_an_observation_is_as_large_as_its_width_when_it_is_40_pixels_high_at_least(shape, size):
    assert Painter.of(torch.rand(1, *shape)).size == size
