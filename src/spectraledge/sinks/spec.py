"""Trackers by name, as a setting or a command line gives them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..errors import SettingError
from .callback import CallbackSink
from .jsonl import JsonlSink
from .mlflow import MlflowSink
from .tensorboard import TensorBoardSink
from .trackio import TrackioSink
from .wandb import WandbSink

_MAKERS: dict[str, Callable[[str | None], Any]] = {
    "tensorboard": lambda rest: TensorBoardSink(rest),
    "wandb": lambda rest: WandbSink(),
    "mlflow": lambda rest: MlflowSink(rest),
    "trackio": lambda rest: TrackioSink(),
    "jsonl": lambda rest: JsonlSink(_needed(rest)),
}
_PLAIN = ("wandb", "trackio")


def make_sinks(sinks: Any) -> list[Any]:
    """Sinks from names and objects.

    Args:
        sinks: One of, or a sequence of: ``"tensorboard:DIR"``, ``"wandb"`` (the active run), ``"mlflow"`` (the active
            run) or ``"mlflow:RUN_ID"``, ``"trackio"`` (the current run), ``"jsonl:FILE"``; an object with a method
            ``log(step, values)``; or a function of step and values.

    Raises:
        SettingError: If one is none of these, or lacks what it needs.
        MissingDependencyError: If its library is not installed.
    """
    several = isinstance(sinks, Sequence) and not isinstance(sinks, str)
    return [_make(sink) for sink in (sinks if several else [sinks])]


def _make(sink: Any) -> Any:
    if isinstance(sink, str):
        name, _, rest = sink.partition(":")
        if name not in _MAKERS or (rest and name in _PLAIN):
            raise SettingError(
                f"sinks must name tensorboard:DIR, wandb, mlflow[:RUN_ID], trackio or jsonl:FILE; got {sink!r}. "
                "Give an object for anything else, for instance WandbSink(run=...)."
            )
        return _MAKERS[name](rest or None)
    if callable(getattr(sink, "log", None)):
        return sink
    if callable(sink):
        return CallbackSink(sink, name=getattr(sink, "__name__", "callback"))
    raise SettingError(
        f"A sink must have a method log(step, values); got {type(sink).__name__}. "
        "Derive it from spectraledge.sinks.Sink, or give a function."
    )


def _needed(path: str | None) -> str:
    if path is None:
        raise SettingError('jsonl must be given a file; got none. Name one: sinks=["jsonl:runs/values.jsonl"].')
    return path
