"""MLflow with a store of files: mlflow-skinny without sqlalchemy has no other local one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sinks_runs import Training, expected, run_with

from spectraledge.errors import SettingError
from spectraledge.recording import Event
from spectraledge.sinks import Alert, MlflowSink, connect
from spectraledge.sinks.keys import key_parts


@pytest.fixture
def mlflow(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("DO_NOT_TRACK", "true")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    module = pytest.importorskip("mlflow")
    module.set_tracking_uri((tmp_path / "mlruns").as_uri())
    return module


def test_the_run_holds_what_was_recorded(mlflow: Any) -> None:
    with mlflow.start_run() as run:
        mlflow.log_metric("mine", 1.0, step=3)
        _, recording, connection = run_with("mlflow", 12)
        assert not connection.errors
    client, want = mlflow.MlflowClient(), expected(recording)
    for key in ("spectral_edge/k_star", "spectral_edge/sigma_1", "spectral_edge/layer/0/gap_ratio"):
        history = client.get_metric_history(run.info.run_id, key)
        assert [(m.step, m.value) for m in history] == [(s, v[key]) for s, v in want.items() if key in v], key
    assert client.get_run(run.info.run_id).data.metrics["mine"] == 1.0


def test_strange_names_are_admitted(mlflow: Any) -> None:
    parts = key_parts(["W(Q)/..//x", "%", "ü ß", "a:b", "A.b", ".", ".."])
    with mlflow.start_run() as run:
        MlflowSink().log(1, {f"spectral_edge/layer/{part}/k_star": 1.0 for part in parts.values()})
    metrics = mlflow.MlflowClient().get_run(run.info.run_id).data.metrics
    assert len(metrics) == len(parts)


def test_alerts_are_tags(mlflow: Any) -> None:
    run_id = mlflow.MlflowClient().create_run("0").info.run_id
    sink = MlflowSink(run_id)
    sink.alert(Alert(Event(5, "all", "gap opened", 3.0, 2.0, "mode 2 (W=10)")))
    tags = mlflow.MlflowClient().get_run(run_id).data.tags
    assert tags["spectral_edge.alert.mode_2_w_10"].startswith("step 5: gap opened in all")


@pytest.mark.filterwarnings("ignore:tracker mlflow raised:RuntimeWarning")
def test_a_run_that_is_gone_ends_the_sink_and_not_the_training(mlflow: Any) -> None:
    training = Training()
    with training.attach() as monitor:
        connection = connect(monitor, "mlflow:0123456789abcdef0123456789abcdef")
        training.steps(6)
    assert len(training.losses) == monitor.recording.n_updates == 6
    assert "not found" in str(connection.errors["mlflow"])
    assert connection.dropped == {"mlflow": 6}


def test_without_a_run(mlflow: Any) -> None:
    with pytest.raises(SettingError, match="start_run"):
        MlflowSink()
