"""Tables, CSV files and the summary."""

from __future__ import annotations

import csv
import json
import sys

import numpy as np
import pytest
from recording_reference import small_run

from spectraledge.errors import MissingDependencyError, OutputError, SettingError
from spectraledge.recording import Recording, RecordingWriter


def logged_run() -> Recording:
    run = small_run()
    writer = run.record(RecordingWriter(None, header_meta={"seed": 1}))
    for step in (10, 20):
        writer.write("metrics", step=step, values={"loss": 1 / step, "odd": float("nan")})
    writer.write("close", step=240)
    return Recording.from_log(writer.log())


RECORDING = logged_run()


def test_windows_table_is_the_spectra():
    table = RECORDING.table(window=4, block="a.*")
    spectra = RECORDING.spectra(4, block="a.*")
    np.testing.assert_array_equal(table["sigma_4"], spectra.singular_values[:, 3])
    for rule in ("guarded", "plain", "weighted"):
        np.testing.assert_array_equal(table[f"{rule}_position"], spectra.gap(rule).position)
    assert table["block"][0] == "a.*"
    assert "guarded_p_value" not in table
    assert "guarded_p_value" in RECORDING.table(window=4, p_value=True)
    assert len({len(column) for column in table.values()}) == 1


def test_rows_table():
    run = small_run()
    table = RECORDING.table("rows", block=["a.w", "a.b"])
    x = run.updates[:, run.columns("a.w", "a.b")]
    np.testing.assert_allclose(table["update_norm"], np.linalg.norm(x, axis=1))
    cosine = np.sum(x[1:] * x[:-1], axis=1) / np.linalg.norm(x[1:], axis=1) / np.linalg.norm(x[:-1], axis=1)
    np.testing.assert_allclose(table["cosine_1"][1:], cosine, rtol=1e-12)
    assert np.isnan(table["cosine_1"][0])
    assert len({len(column) for column in table.values()}) == 1


def test_dataframes():
    pandas = pytest.importorskip("pandas")
    frame = RECORDING.to_dataframe("metrics")
    assert list(frame.columns) == ["step", "name", "value"]
    assert frame[frame.name == "loss"].value.tolist() == [0.1, 0.05]
    assert isinstance(RECORDING.to_dataframe(window=3), pandas.DataFrame)
    assert len(RECORDING.to_dataframe("rows")) == 24


def test_without_pandas_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MissingDependencyError, match=r"spectraledge\[export\]"):
        RECORDING.to_dataframe()


def test_csv_holds_full_precision_and_needs_no_pandas(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    path = RECORDING.to_csv(tmp_path / "new" / "windows.csv", window=3)
    with path.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    sigma = [float(row["sigma_1"]) for row in rows]
    np.testing.assert_array_equal(sigma, RECORDING.spectra(3).singular_values[:, 0])
    with RECORDING.to_csv(tmp_path / "m.csv", "metrics").open(newline="") as stream:
        assert [row["value"] for row in csv.DictReader(stream)] == ["0.1", "0.05", "", ""]
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(OutputError, match="must be writable"):
        RECORDING.to_csv(tmp_path / "folder.csv", window=3)


def test_unknown_table():
    with pytest.raises(SettingError, match="kind must be one of windows, rows, metrics; got 'gaps'"):
        RECORDING.table("gaps")


def test_summary_is_plain_json():
    summary = RECORDING.summary()
    json.dumps(summary, allow_nan=False)
    assert summary["n_updates"] == 24
    assert summary["last_step"] == 240
    assert summary["steps_per_update"] == 10
    assert summary["largest_window"] == 8
    assert summary["closed"]
    assert summary["meta"] == {"seed": 1}
    assert summary["metrics"]["loss"] == {"n": 2, "last_step": 20, "last": 0.05}
    assert summary["metrics"]["odd"]["last"] is None
    assert summary["damage"]["lost_rows"] == 0
    assert repr(RECORDING) == "Recording(24 updates, 4 blocks, 7 lags, path=None)"
