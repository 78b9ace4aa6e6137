"""MLflow: metrics and tags of a run."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from ..errors import SettingError, require
from .alerts import Alert
from .base import Sink
from .keys import key_part

_BATCH = 1000  # metrics that MLflow takes in one request
_TAG = 5000  # characters of a tag that every store keeps


class MlflowSink(Sink):
    """Metrics by ``MlflowClient.log_batch``; alerts as tags ``spectral_edge.alert.<detector>``, the newest of each.

    Args:
        run_id: Of the run; None for the active one.
        tracking_uri: Of the server or store; None for the current one.

    Raises:
        SettingError: If no run is given and none is active.
        MissingDependencyError: If mlflow is not installed.
    """

    name = "mlflow"

    def __init__(self, run_id: str | None = None, *, tracking_uri: str | None = None) -> None:
        mlflow: Any = require("mlflow", "mlflow")
        if run_id is None:
            active = mlflow.active_run()  # of this thread: to be asked now, not in the sink's own
            if active is None:
                raise SettingError(
                    "An MLflow run must be active; there is none. Call mlflow.start_run() first, or give run_id=."
                )
            run_id = str(active.info.run_id)
        self.run_id = run_id
        self._metric = mlflow.entities.Metric
        self._client = mlflow.MlflowClient(tracking_uri=tracking_uri)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        now = int(1000 * time.time())
        metrics = [self._metric(key, float(value), now, step) for key, value in values.items()]
        for first in range(0, len(metrics), _BATCH):
            self._client.log_batch(self.run_id, metrics=metrics[first : first + _BATCH], synchronous=True)

    def alert(self, alert: Alert) -> None:
        tag = f"spectral_edge.alert.{key_part(alert.event.detector or alert.event.kind)}"
        self._client.set_tag(self.run_id, tag, alert.text[:_TAG], synchronous=True)
