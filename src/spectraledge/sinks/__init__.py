"""Trackers: what a monitor records, shown while it goes on in TensorBoard, W&B, MLflow, Trackio or anything else.

``connect(monitor, ["tensorboard:runs/tb", "wandb"])`` is all there is to it. Trackers are shown numbers and alerts;
the recording stays the source of truth. No tracker can slow, stop or change the training.
"""

from __future__ import annotations

from .alerts import Alert
from .base import Sink
from .callback import CallbackSink
from .connect import Connection, connect
from .jsonl import JsonlSink
from .mlflow import MlflowSink
from .spec import make_sinks
from .tensorboard import TensorBoardSink
from .trackio import TrackioSink
from .wandb import WandbSink

__all__ = [
    "Alert",
    "CallbackSink",
    "Connection",
    "JsonlSink",
    "MlflowSink",
    "Sink",
    "TensorBoardSink",
    "TrackioSink",
    "WandbSink",
    "connect",
    "make_sinks",
]
