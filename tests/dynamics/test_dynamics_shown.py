"""The command and the figures on recordings with and without probes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from dynamics_runs import Planted, W, train
from typer.testing import CliRunner

from spectraledge import load, plots
from spectraledge.cli.app import app
from spectraledge.cli.theory import PARTS, theory_content
from spectraledge.dynamics import compare_flows, curvature, loss_decomposition, stability
from spectraledge.errors import SettingError


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("theory")
    return {
        "probed": train("sgd", 60, noise=0.3).recording.save(root / "probed").parent,
        "plain": Planted(n_updates=40, lags=9).recording().save(root / "plain").parent,
    }


def shown(*arguments: object) -> str:
    result = CliRunner().invoke(app, ["theory", *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


def test_json_is_what_the_library_says(folders: dict[str, Path]) -> None:
    options = ["--window", W, "--draws", 9, "--mode", "both", "--json"]
    options += ["--part", "stability", "--part", "curvature", "--part", "loss"]
    content = json.loads(shown(folders["probed"], folders["plain"], *options))
    probed, plain = content["runs"]
    recording = load(folders["probed"])
    for mode in ("strict", "author"):
        expected = stability(recording, W, n_draws=9, mode=mode).summary()  # type: ignore[arg-type]
        assert probed["stability"][mode]["n_windows"] == expected["n_windows"]
        for kind, h in expected["hierarchy"].items():
            found = probed["stability"][mode]["hierarchy"][kind]
            assert found["verdict"] == h["verdict"]
            assert found["margin"]["value"] == pytest.approx(h["margin"]["value"], nan_ok=True) or np.isnan(
                h["margin"]["value"]
            )
        loss = loss_decomposition(recording, mode=mode).summary()  # type: ignore[arg-type]
        assert probed["loss"][mode]["coverage"] == pytest.approx(loss["coverage"])
    assert probed["curvature"]["slope"] == pytest.approx(curvature(recording).summary()["slope"])
    assert probed["missing"] == []
    assert plain["curvature"] is None
    assert plain["loss"] == {"strict": None, "author": None}
    assert plain["stability"]["strict"] is not None
    assert len(plain["missing"]) == 1
    assert "--probe-every" in plain["missing"][0]


def test_people_see_the_same_side_by_side(folders: dict[str, Path]) -> None:
    text = shown(folders["probed"], folders["plain"], "--window", W, "--draws", 9)
    summary = loss_decomposition(load(folders["probed"])).summary()
    for words in ("overlap2_lagW", "norm_matched", "constant_drift", "slope is -1/2", "alpha improves", "plain:"):
        assert words in text
    assert f"{summary['coverage']['value']:.3g}" in text
    assert "dk_dlam" not in text
    assert max(len(line) for line in text.splitlines() if line[:1] in "│┃") <= 118


def test_every_part_is_shown_or_says_what_it_needs(folders: dict[str, Path]) -> None:
    parts = [part for part in PARTS if part not in ("stability", "curvature", "loss")]
    words = [word for part in parts for word in ("--part", part)]
    content = json.loads(shown(folders["probed"], folders["plain"], "--window", W, "--json", *words))
    probed, plain = content["runs"]
    for part in parts:
        for found in probed[part].values():
            assert found is None or set(found) == {"summary", "rows"}
    expected = compare_flows(load(folders["probed"]), W).summary()
    assert probed["flows"][""]["summary"] == json.loads(json.dumps(expected))
    assert plain["gap_flow"] == {"": None}
    assert any("probe" in sentence for sentence in plain["missing"])
    text = shown(folders["probed"], "--window", W, *words)
    assert "Forecasts out of sample" in text
    assert max(len(line) for line in text.splitlines() if line[:1] in "│┃") <= 118


def test_a_mistake_is_one_sentence() -> None:
    with pytest.raises(SettingError, match=r"parts must be among stability, .*; got flow\."):
        theory_content({}, parts=["flow"])
    with pytest.raises(SettingError, match="mode must be one of strict, author, both"):
        theory_content({}, mode="loose")


def test_figures_show_what_was_measured(folders: dict[str, Path]) -> None:
    recording = load(folders["probed"])
    turned = plots.stability_table(recording, window=W)
    np.testing.assert_array_equal(turned["rotation"], stability(recording, W, n_draws=0).rotation)
    bent = plots.curvature_table(recording)
    np.testing.assert_array_equal(bent["mode"], curvature(recording).mode)
    np.testing.assert_allclose(bent["random"], curvature(recording).random.mean(axis=1))
    split = plots.loss_decomposition_table(recording)
    np.testing.assert_array_equal(split["measured"], loss_decomposition(recording).decomposition.measured)
    for kind, n_rows in ((plots.PROBE_KINDS[0], 5), (plots.PROBE_KINDS[1], 3)):
        panel = kind.panel(recording, window=W)
        assert len(panel.rows) == n_rows
        assert kind.panel(load(folders["plain"])).note.startswith("A recording must hold probes")


def test_figures_are_drawn(folders: dict[str, Path]) -> None:
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    from matplotlib import pyplot

    recording = load(folders["probed"])
    for figure in (
        plots.plot_stability(recording, window=W),
        plots.plot_curvature(recording),
        plots.plot_loss_decomposition(recording),
    ):
        assert len(figure.axes) >= 3
    pyplot.close("all")


def test_the_report_has_them_where_there_are_probes(folders: dict[str, Path], tmp_path: Path) -> None:
    from spectraledge.reporting import report

    page = report([str(folders["probed"])], tmp_path / "page.html", window=W).read_text()
    assert "Curvature along the modes" in page
    page = report([str(folders["plain"])], tmp_path / "other.html", window=W).read_text()
    assert "Curvature along the modes" not in page
