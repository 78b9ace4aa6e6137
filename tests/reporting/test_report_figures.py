"""Panels as files."""

from __future__ import annotations

from pathlib import Path

import pytest
from plot_runs import Run

from spectraledge.errors import OutputError, SettingError
from spectraledge.plots import KINDS
from spectraledge.reporting import figures

MAGIC = {"png": b"\x89PNG", "pdf": b"%PDF", "svg": b"<?xml"}


@pytest.fixture
def few_kinds(monkeypatch: pytest.MonkeyPatch) -> None:
    """The quickest kinds only: lines, maps and points."""
    chosen = tuple(kind for kind in KINDS if kind.key in ("metrics", "block_map", "health"))
    monkeypatch.setattr("spectraledge.reporting.panels.KINDS", chosen)


def test_every_panel_in_every_format(tmp_path: Path) -> None:
    written = figures(Run(n_updates=12).save(tmp_path / "run"), tmp_path / "new" / "figures", dpi=50)
    assert {file.name for file in written} == {f"{kind.key}.{end}" for kind in KINDS for end in MAGIC}
    for file in written:
        assert file.read_bytes().startswith(MAGIC[file.suffix[1:]])


def test_the_same_recording_gives_the_same_bytes(few_kinds: None, tmp_path: Path) -> None:
    recording = Run(n_updates=14, nan_rows=(3,)).recording()
    once, again = (figures(recording, tmp_path / name, ("svg", "pdf"), names=["x"]) for name in "ab")
    assert [a.read_bytes() for a in once] == [b.read_bytes() for b in again]


def test_up_to_four_runs_share_a_figure(few_kinds: None, tmp_path: Path) -> None:
    recordings = [Run(n_updates=n).recording() for n in (3, 11, 14, 12)]
    assert len(figures(recordings, tmp_path, ["png"], dpi=40)) == 3


def test_more_than_four_runs_get_a_figure_each(few_kinds: None, tmp_path: Path) -> None:
    recordings = [Run(n_updates=11, seed=s).recording() for s in range(5)]
    written = figures(recordings, tmp_path, ["png"], names=["a/b", "c", "d", "e", "f"], dpi=40)
    assert len(written) == 5 * 3
    assert (tmp_path / "a-b-metrics.png").exists()


def test_mistakes(two_runs: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="formats must be some of png, svg, pdf; got 'jpg'"):
        figures(two_runs, tmp_path, ["png", "jpg"])
    with pytest.raises(SettingError, match="Pass a list"):
        figures(two_runs, tmp_path, "png")
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="must be writable"):
        figures(two_runs, tmp_path / "file", ["png"])
