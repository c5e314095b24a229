"""What is drawn in the figures of a report, and what is said of it."""

import re

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from otkit_vae.report import _figures


def recorded(monkeypatch, name):
    """The arguments of each call of a method of axes, which is called all the same."""
    calls, method = [], getattr(Axes, name)
    monkeypatch.setattr(Axes, name, lambda ax, *a, **k: calls.append((a, k)) or method(ax, *a, **k))
    return calls


def test_a_marginal_is_a_share_of_all_values_also_of_those_outside_the_range(monkeypatch):
    drawn = recorded(monkeypatch, "stairs")
    q, p = np.linspace(0, 1, 2000), np.array([0.25, 0.75, 50.0, 50.0])
    _figures.marginal(0, q, p, 1.0)
    mass = [(density * np.diff(edges)).sum() for (density, edges), _ in drawn]
    assert mass == pytest.approx([1, 0.5], abs=0.01)


def test_lines_and_labels_are_told_apart():
    n = len(_figures.COLOURS)
    assert len(set(_figures.lines([f"p{k}" for k in range(3 * n)]).values())) == 3 * n
    assert {dash for _, dash in _figures.lines([f"p{k}" for k in range(n)]).values()} == {"solid"}
    kinds = _figures.legend(range(5, 5 + 2 * n))
    assert [kind.label for kind in kinds] == list(range(5, 5 + 2 * n))
    assert len({(kind.colour, kind.marker) for kind in kinds}) == 2 * n
    assert _figures.legend(range(2 * n + 1)) == []


def test_a_map_has_the_points_of_each_label_and_two_ellipses_of_the_prior(monkeypatch):
    scattered, patches = recorded(monkeypatch, "scatter"), recorded(monkeypatch, "add_patch")
    points = np.arange(12.0).reshape(6, 2)
    prior = np.zeros(2), np.diag([4.0, 9.0])
    _figures.latent_map(points, np.array([7, 3, 7, 3, 3, 7]), prior, ("z0", "z1"))
    assert [np.stack(xy, 1).tolist() for xy, _ in scattered] == [points[k].tolist() for k in ([1, 3, 4], [0, 2, 5])]
    assert sorted(sorted((e.width, e.height)) for ((e,), _) in patches) == [[4, 6], [8, 12]]


def test_labels_with_names_have_them_in_the_legend_and_many_are_on_a_scale(monkeypatch):
    scattered, points = recorded(monkeypatch, "scatter"), np.arange(60.0).reshape(30, 2)
    named = np.array([f"name {k:02}" for k in range(30)])
    ax = Figure().subplots()
    _figures.scatter(ax, points[:6], named[[7, 3, 7, 3, 3, 7]])
    assert ax.get_legend_handles_labels()[1] == ["name 03", "name 07"]
    assert [np.stack(xy, 1).tolist() for xy, _ in scattered] == [points[k].tolist() for k in ([1, 3, 4], [0, 2, 5])]
    for labels, values, said in (
        (named[::-1], range(29, -1, -1), "label, in alphabetical order"),
        (np.arange(30) ** 2, np.arange(30) ** 2, "label"),
    ):
        ax = Figure().subplots()
        _figures.scatter(ax, points, labels)
        assert scattered[-1][1]["c"].tolist() == list(values)
        assert ax.figure.axes[-1].get_ylabel() == said
        assert ax.get_legend_handles_labels() == ([], [])


def test_the_spread_in_the_middle_of_the_way_is_said():
    said = _figures.spreads(np.array([0, 0.5, 1]), np.array([1.0, 1.25, 2.0]), np.array([1.0, 0.75, 2.0]))
    assert "along the geodesic 1.25 in the middle, along straight lines between independent draws 0.75" in said


def test_figures_of_one_page_have_identifiers_of_their_own():
    one, other = (_figures.spreads(np.array([0, 0.5, 1]), np.ones(3), np.full(3, k)) for k in (1.0, 2.0))
    ids, theirs = (set(re.findall(r' id="([^"]*)"', svg)) for svg in (one, other))
    assert ids
    assert not ids & theirs
    assert set(re.findall(r'(?:href="#|url\(#)([^")]*)', one)) <= ids
