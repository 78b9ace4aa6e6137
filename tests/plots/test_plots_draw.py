"""Every figure draws, whatever the recording holds, and says what is missing."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pytest
from plot_runs import DEGENERATE, Run, window_of

import spectraledge.plots as plots
from spectraledge.errors import SettingError
from spectraledge.plots.axes import cell_edges
from spectraledge.plots.draw import draw_panels
from spectraledge.plots.panel import (
    Band,
    Heat,
    Line,
    Mark,
    Panel,
    Row,
    extents_of,
    legend,
    row_extent,
    spread,
)
from spectraledge.plots.ticks import log_ticks

mpl.use("Agg")

PLOTS = {kind.key: getattr(plots, f"plot_{kind.key}") for kind in plots.KINDS}
X = np.arange(5.0)


def texts(figure) -> str:
    found = figure.findobj(mpl.text.Text)
    return " ".join(" ".join(text.get_text() for text in found).split())


@pytest.mark.parametrize("kind", plots.KINDS, ids=lambda kind: kind.key)
def test_an_ordinary_recording_fills_every_panel(kind) -> None:
    recording = Run(n_updates=24, drift=0.5).recording()
    figure = PLOTS[kind.key](recording, **({"window": 10} if kind.options else {}))
    figure.draw_without_rendering()
    assert kind.title in texts(figure)
    panel = kind.panel(recording)
    assert panel.rows
    # One sentence: a full stop followed by a capital would start another.
    assert not any(part[:1].isupper() for part in panel.reading.split(". ")[1:])


@pytest.mark.parametrize("name", DEGENERATE)
@pytest.mark.parametrize("kind", plots.KINDS, ids=lambda kind: kind.key)
def test_a_degenerate_recording_is_drawn_as_far_as_it_goes(kind, name: str) -> None:
    panel = kind.panel(DEGENERATE[name].recording(), window=window_of(name), marks=(Mark(30, "event", "#000000"),))
    figure = draw_panels([panel])
    figure.draw_without_rendering()
    if not panel.rows:
        assert panel.note
        assert "".join(panel.note.split())[:30] in "".join(texts(figure).split())


def test_a_table_draws_as_its_recording_does() -> None:
    recording = Run().recording()
    table = plots.singular_values_table(recording, window=5)
    ours = plots.plot_singular_values(table).axes[0].lines
    theirs = plots.plot_singular_values(recording, window=5).axes[0].lines
    assert len(ours) == len(theirs) > 5
    for one, other in zip(ours, theirs):
        np.testing.assert_array_equal(one.get_ydata(), other.get_ydata())


def test_given_axes_are_used() -> None:
    from matplotlib.figure import Figure

    ax = Figure().subplots()
    figure = plots.plot_metrics(Run().recording(), ax)
    assert figure is ax.figure
    assert len(ax.child_axes) == 2
    figure.draw_without_rendering()


def test_nothing_is_left_in_pyplot_or_in_the_settings() -> None:
    import matplotlib.pyplot as plt

    before, size = plt.get_fignums(), mpl.rcParams["font.size"]
    plots.plot_health(Run().recording())
    assert plt.get_fignums() == before
    assert mpl.rcParams["font.size"] == size


def test_a_setting_that_cannot_be_is_not_drawn() -> None:
    with pytest.raises(SettingError, match="window must be at least 2"):
        plots.plot_singular_values(Run().recording(), window=1)


def test_names_are_not_read_as_formulas() -> None:
    run = Run(blocks={"$\\frac{": 100, "b": 200})
    plots.plot_block_map(run.recording(), window=10).draw_without_rendering()


def test_runs_side_by_side_share_axes() -> None:
    recordings = [Run(scale=s, n_updates=n).recording() for s, n in ((1.0, 48), (10.0, 30))]
    figure = draw_panels([plots.KINDS[1].panel(r) for r in recordings], ["one", "other"])
    left, right = figure.axes
    assert left.get_ylim() == right.get_ylim()
    assert left.get_xlim() == right.get_xlim()
    top = max(np.nanmax(line.get_ydata()) for line in right.lines)
    assert left.get_ylim()[1] > top


def test_rows_are_compared_by_quantity_not_by_place() -> None:
    small, large = Line(X, X + 1, "a", "#000000"), Line(X, 100 * X + 1, "a", "#000000")
    one = Panel("k", "t", "r", rows=(Row("accuracy", (small,)), Row("loss", (large,), log=True)))
    other = Panel("k", "t", "r", rows=(Row("loss", (small,), log=True),))
    extents = extents_of([one, other])
    assert len(extents) == 2
    assert extents[other.rows[0].axis] == row_extent([one.rows[1]])
    assert extents[one.rows[0].axis] == row_extent([one.rows[0]])


def test_guides_do_not_stretch_the_axis_and_bands_do() -> None:
    line, guide = Line(X, X + 1, "a", "#000000"), Line(X, X - 1e6, "floor", "#000000", guide=True)
    assert row_extent([Row("r", (line, guide))]) == row_extent([Row("r", (line,))])
    band = Band(X, X - 10, X + 10, "b", "#000000")
    low, high = row_extent([Row("r", (line, band))])
    assert low < -10 < 14 < high


def test_extents_of_nothing_and_of_constants() -> None:
    assert row_extent([Row("r", (Line(X, np.full(5, np.nan), "a", "#000000"),))]) is None
    low, high = row_extent([Row("r", (Line(X, np.zeros(5), "a", "#000000"),))])
    assert low < 0 < high
    low, high = row_extent([Row("r", (Line(X, np.full(5, 2.0), "a", "#000000"),), log=True)])
    assert 0 < low < 2 < high
    low, high = row_extent([Row("r", (Heat(X, ("a",), np.ones((1, 5)), "u"),))])
    assert low == 1 < high


def test_legends_name_each_thing_once() -> None:
    line, band = Line(X, X, "a", "#000000"), Band(X, X, X, "b", "#000000")
    panel = Panel(
        "k", "t", "r", rows=(Row("1", (band, line)), Row("2", (band, line))), marks=(Mark(1, "m", "#000000"),)
    )
    assert list(legend([panel, panel])) == ["a", "b", "m"]


def test_indices_are_spread_with_both_ends() -> None:
    for n in (1, 2, 59, 60, 61, 1000):
        index = spread(n, 60)
        assert (index[0], index[-1]) == (0, n - 1)
        assert len(index) == min(n, 60)
        assert (np.diff(index) > 0).all()
    assert len(spread(0, 60)) == 0


@pytest.mark.parametrize(("low", "high"), [(1e-9, 1e3), (0.99, 1.5), (1.0, 1.02), (3e-4, 5e-4), (0.004, 1.3)])
def test_logarithmic_axes_always_have_ticks(low: float, high: float) -> None:
    ticks = log_ticks(low, high)
    assert 2 <= len(ticks) <= 12
    assert all(low * (1 - 1e-9) <= tick <= high * (1 + 1e-9) for tick in ticks)


def test_cells_meet_half_way() -> None:
    np.testing.assert_array_equal(cell_edges(np.array([7.0])), [6.5, 7.5])
