"""TensorBoard: event files."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any

from ..errors import OutputError, SettingError, require
from .alerts import Alert
from .base import Sink
from .keys import ROOT


class TensorBoardSink(Sink):
    """Scalars and, for alerts, texts in TensorBoard event files.

    Args:
        log_dir: Folder of the event files.
        writer: A ``SummaryWriter`` of your own, instead of a folder; it is flushed and never closed, and a rewind
            leaves what is in it, because that may be yours.
        flush_seconds: Longest time that values stay out of the file.

    A rewind opens a new event file with ``purge_step``: TensorBoard then no longer shows what was taken back.

    Raises:
        SettingError: If neither or both of folder and writer are given.
        MissingDependencyError: If tensorboard is not installed.
        OutputError: If the folder cannot be made.
    """

    name = "tensorboard"

    def __init__(
        self,
        log_dir: str | os.PathLike[str] | None = None,
        *,
        writer: Any = None,
        flush_seconds: float = 10.0,
    ) -> None:
        if (log_dir is None) == (writer is None):
            raise SettingError(
                "TensorBoard must be given a folder or a writer; got "
                f"{'neither' if log_dir is None else 'both'}. Name one: sinks=['tensorboard:runs/tb']."
            )
        self._dir = None if log_dir is None else os.fspath(log_dir)
        self._writer = writer
        self._flush_seconds = flush_seconds
        self._last_flush = time.monotonic()
        if self._dir is not None:
            require("tensorboard", "tensorboard")
            self._make: Any = getattr(require("torch.utils.tensorboard", "tensorboard"), "SummaryWriter")  # noqa: B009
            try:
                os.makedirs(self._dir, exist_ok=True)
            except OSError as error:
                raise OutputError(
                    f"{self._dir} must be writable; got {error.strerror}. Choose another folder."
                ) from error

    def log(self, step: int, values: Mapping[str, float]) -> None:
        writer = self._open()
        for key, value in values.items():
            writer.add_scalar(key, value, global_step=step)
        self._flush()

    def alert(self, alert: Alert) -> None:
        self._open().add_text(f"{ROOT}/alert", f"**{alert.title}**  \n{alert.text}", global_step=alert.step)
        self._flush()

    def rewind(self, step: int) -> None:
        if self._dir is not None:
            if self._writer is not None:
                self._writer.close()
            self._writer = self._make(self._dir, purge_step=step + 1)

    def close(self) -> None:
        if self._writer is not None:
            if self._dir is None:
                self._writer.flush()
            else:
                self._writer.close()

    def _open(self) -> Any:
        if self._writer is None:
            self._writer = self._make(self._dir)
        return self._writer

    def _flush(self) -> None:
        now = time.monotonic()
        if now - self._last_flush >= self._flush_seconds:
            self._writer.flush()
            self._last_flush = now
