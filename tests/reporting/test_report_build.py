"""Panels as plotly figures."""

from __future__ import annotations

import json
from itertools import pairwise

import numpy as np
import pytest
from plot_runs import Run

from spectraledge.plots import KINDS
from spectraledge.plots.panel import Band, Heat, Line, Mark, Panel, Points, Row
from spectraledge.reporting.build import figures_of
from spectraledge.reporting.page import embed
from spectraledge.reporting.traces import decimate, numbers

X = np.arange(6.0)
HOLES = np.array([1.0, np.nan, 3.0, 4.0, np.nan, 6.0])


def panel(*layers, log: bool = False) -> Panel:
    return Panel("k", "t", "r", rows=(Row("row", layers, log=log),), marks=(Mark(2, "m", "#000000"),))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.key)
def test_plotly_takes_every_figure(kind) -> None:
    graph_objects = pytest.importorskip("plotly.graph_objects")
    panels = [kind.panel(Run(drift=d, nan_rows=(20,)).recording()) for d in (0.0, 0.5)]
    for figure in figures_of(panels):
        graph_objects.Figure(figure)  # refuses what plotly does not know
        assert json.loads(embed(figure)) == json.loads(json.dumps(figure))


def test_missing_numbers_are_null_and_interrupt_lines() -> None:
    trace = figures_of([panel(Line(X, HOLES, "a", "#102030"))])[0]["data"][0]
    assert trace["y"] == [1, None, 3, 4, None, 6]
    assert trace["connectgaps"] is False
    with pytest.raises(ValueError, match="JSON"):
        embed(float("nan"))
    assert numbers(np.array([np.inf, 1e9, 1e-12])) == [None, 1_000_000_000, 1e-12]


def test_bands_are_closed_outlines_between_holes() -> None:
    data = figures_of([panel(Band(X, HOLES - 1, HOLES + 1, "b", "#102030", opacity=0.5))])[0]["data"]
    assert [trace["x"] for trace in data] == [[0, 0], [2, 3, 3, 2], [5, 5]]
    assert data[1]["y"] == [2, 3, 5, 4]
    assert data[1]["fillcolor"] == "rgba(16,32,48,0.5)"


def test_runs_share_axes_and_margins() -> None:
    long = Panel("k", "t", "r", rows=(Row("row", (Line(X * 10, X * 7 + 1, "a", "#000000"),), ticks=((1, "x" * 9),)),))
    short = Panel("k", "t", "r", rows=(Row("row", (Line(X, X + 1, "a", "#000000"),), ticks=((1, "x" * 9),)),))
    one, other = figures_of([long, short])
    for name in ("xaxis", "yaxis"):
        assert one["layout"][name]["range"] == other["layout"][name]["range"]
    assert one["layout"]["margin"] == other["layout"]["margin"]
    assert one["layout"]["margin"]["l"] >= 9 * 6


def test_rows_do_not_overlap_and_fill_the_figure() -> None:
    rows = tuple(Row(f"r{i}", (Line(X, X, "a", "#000000"),), height=h) for i, h in enumerate((1.0, 0.5, 2.0)))
    layout = figures_of([Panel("k", "t", "r", rows=rows)])[0]["layout"]
    domains = [layout[name]["domain"] for name in ("yaxis", "yaxis2", "yaxis3")]
    assert domains[0][1] == 1
    assert domains[2][0] == pytest.approx(0)
    assert all(upper[0] > lower[1] for upper, lower in pairwise(domains))
    # Room for the label of the next row, in pixels.
    inner = layout["height"] - layout["margin"]["t"] - layout["margin"]["b"]
    assert (domains[0][0] - domains[1][1]) * inner >= 30


def test_maps_keep_their_values_beside_their_logarithms() -> None:
    values = np.array([[1.0, 10.0, np.nan], [100.0, 1.0, 1.0]])
    heat = Heat(X[:3], ("a<b>", "b"), values, "ratio", log=True)
    trace = figures_of([panel(heat)])[0]["data"][0]
    assert trace["z"] == [[0, 1, None], [2, 0, 0]]
    assert trace["customdata"] == [[1, 10, None], [100, 1, 1]]
    assert (trace["zmin"], trace["zmax"]) == (0, 2)
    assert trace["y"] == ["a&lt;b&gt;", "b"]


def test_long_series_keep_their_spikes_and_holes() -> None:
    n = 50_000
    y = np.sin(np.arange(n) / 500)
    y[[777, 40_001]] = 9, -9
    y[20_000:21_000] = np.nan
    trace = figures_of([panel(Line(np.arange(n), y, "a", "#000000"))])[0]["data"][0]
    assert len(trace["x"]) <= 2000
    assert 777 in trace["x"]
    assert 40_001 in trace["x"]
    assert None in trace["y"]
    assert len(decimate(np.arange(3), y[:3], 2000)) == 3


def test_stated_ticks_are_kept() -> None:
    rows = (Row("row", (Points(X, X + 1, "p", "#000000"),), log=True, ticks=((1.0, "one"), (5.0, "five"))),)
    axis = figures_of([Panel("k", "t", "r", rows=rows)])[0]["layout"]["yaxis"]
    assert (axis["tickmode"], axis["tickvals"], axis["ticktext"]) == ("array", [1.0, 5.0], ["one", "five"])


def test_points_marks_and_logarithms() -> None:
    figure = figures_of([panel(Points(X, X + 1, "p", "#000000", filled=False), log=True)])[0]
    assert figure["data"][0]["marker"]["symbol"] == "circle-open"
    assert figure["layout"]["yaxis"]["type"] == "log"
    low, high = figure["layout"]["yaxis"]["range"]
    assert low < 0 < np.log10(6) < high
    assert [shape["x0"] for shape in figure["layout"]["shapes"]] == [2]


def test_a_panel_without_rows_has_no_figure() -> None:
    assert figures_of([Panel("k", "t", "r", note="why"), panel(Line(X, X, "a", "#000000"))])[0] is None
