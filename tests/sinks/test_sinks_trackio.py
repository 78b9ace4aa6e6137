"""Trackio, locally: no server and no network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sinks_runs import Training, expected

from spectraledge.errors import SettingError
from spectraledge.recording import Event
from spectraledge.sinks import Alert, TrackioSink, connect


@pytest.fixture
def trackio(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    for name in ("TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL", "TRACKIO_WEBHOOK_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    module = pytest.importorskip("trackio")
    storage = pytest.importorskip("trackio.sqlite_storage")
    for place in (module, storage, module.utils):
        if hasattr(place, "TRACKIO_DIR"):
            monkeypatch.setattr(place, "TRACKIO_DIR", tmp_path)
    return module


def rows(trackio: Any, run: Any) -> list[dict[str, Any]]:
    return trackio.sqlite_storage.SQLiteStorage.get_logs(run.project, run.name, run_id=run.id)


def start(trackio: Any, name: str) -> Any:
    return trackio.init(project="spectra", name=name, auto_log_gpu=False, auto_log_cpu=False)


def test_own_steps_go_on_counting(trackio: Any) -> None:
    run = start(trackio, "both")
    training = Training()
    with training.attach() as monitor:
        connection = connect(monitor, "trackio")
        training.steps(12, lambda step: trackio.log({"loss": training.losses[-1]}))
    trackio.finish()
    assert not connection.errors
    found, want = rows(trackio, run), expected(monitor.recording)
    own = [row for row in found if "loss" in row]
    assert [row["step"] for row in own] == list(range(12))
    assert [row["loss"] for row in own] == training.losses
    ours = {row["spectral_edge/step"]: row for row in found if "spectral_edge/step" in row}
    assert sorted(ours) == list(range(1, 13))
    assert {s: row.get("spectral_edge/k_star") for s, row in ours.items()} == {
        s: v.get("spectral_edge/k_star") for s, v in want.items()
    }


@pytest.mark.parametrize("own_run", [True, False])
def test_a_run_without_rows_of_your_own(trackio: Any, own_run: bool) -> None:
    run = start(trackio, f"alone-{own_run}")
    training = Training()
    with training.attach(every=2) as monitor:
        connect(monitor, TrackioSink(run, own_run=own_run))
        training.steps(12)
    trackio.finish()
    assert [row["step"] for row in rows(trackio, run)] == [2, 4, 6, 8, 10, 12]


def test_alerts_are_trackios(trackio: Any) -> None:
    run = start(trackio, "alerts")
    TrackioSink(own_run=True).alert(Alert(Event(5, "all", "gap opened", detail="It is wide.")))
    trackio.finish()
    alerts = trackio.sqlite_storage.SQLiteStorage.get_alerts(run.project, run_name=run.name)
    assert [(a["title"], a["level"], a["step"]) for a in alerts] == [("gap opened (all)", "warn", 5)]
    assert "It is wide." in alerts[0]["text"]


def test_without_a_run(trackio: Any) -> None:
    with pytest.raises(SettingError, match=r"trackio\.init"):
        TrackioSink()
