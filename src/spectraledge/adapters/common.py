"""What the adapters share: attach's keywords kept until a framework has made model and optimizers."""

from __future__ import annotations

import inspect
import secrets
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from .._attach import attach
from ..errors import SettingError
from ..recording import Event, Recording
from ..recording.line import decode_line
from ..recording.log import recording_file
from ..stream.checks import check_every, check_lags, check_window, choice
from ..stream.monitor import Monitor
from ..stream.state import load_file, pack, save_file, unpack
from ..stream.steps import keeps_count, unwrap
from ..stream.store import STORES

FOLDER = "spectral_edge"  # beside a framework's own checkpoint files
RESERVED = ("self", "step")  # no metric can be passed to ``Monitor.log`` under these names
_NO_RING = "did not save its ring; a recording resumed from here will have a seam"


class LateMonitor:
    """A monitor that starts once a framework has made model and optimizers, and stops with its training.

    Keywords are checked at once where that needs no model, so that a mistake is found before data are loaded.

    Args:
        on_event: Called with every ``Event``; starts the detectors.
        **keywords: Of ``spectraledge.attach``.

    Attributes:
        keywords: As given.
        monitor: Of the training that runs, or ran last; None before the first.

    Raises:
        SettingError: If ``attach`` has no such keyword, or not with this value.

    Example:
        >>> late = LateMonitor(window=4, every=1)
        >>> model = torch.nn.Linear(3, 1)
        >>> monitor = late.attach(model, torch.optim.SGD(model.parameters(), lr=0.1))
        >>> late.log({"loss": torch.tensor(0.5), "confusion": torch.eye(2)})  # what is no number is left out
        >>> late.detach()
        >>> list(late.recording.metrics)
        ['loss']
    """

    def __init__(self, *, on_event: Callable[[Event], object] | None = None, **keywords: Any) -> None:
        known = [p.name for p in inspect.signature(attach).parameters.values() if p.kind is p.KEYWORD_ONLY]
        unknown = sorted(set(keywords) - set(known))
        if unknown:
            raise SettingError(
                f"keywords must be those of spectraledge.attach ({', '.join(known)}); got {', '.join(unknown)}."
            )
        window = check_window(keywords.get("window", 10))
        check_lags(window, keywords.get("lags"))
        check_every(keywords.get("every", 100))
        choice("store", keywords.get("store", "device"), STORES)
        choice("backend", keywords.get("backend", "auto"), ("auto", "torch", "compiled"))
        choice("on_error", keywords.get("on_error", "disable"), ("disable", "raise"))
        choice("resume", keywords.get("resume", "never"), ("never", "auto"))
        if on_event is not None and not callable(on_event):
            raise SettingError(f"on_event must be callable with an event; got {on_event!r}.")
        self.keywords = keywords
        self.monitor: Monitor | None = None
        self._on_event = on_event
        self._running = False
        self._failed = False
        self._run_id = ""

    @property
    def running(self) -> bool:
        """Whether a monitor is attached."""
        return self._running

    @property
    def recording(self) -> Recording:
        """What the training that runs, or ran last, has recorded.

        Raises:
            SettingError: If none has begun.
        """
        if self.monitor is None:
            raise SettingError("a recording begins with the training; none has begun. Train first.")
        return self.monitor.recording

    def attach(
        self,
        model: torch.nn.Module,
        optimizers: Any,
        *,
        state: Mapping[str, Any] | None = None,
        step: int | None = None,
    ) -> Monitor:
        """Attach, or go on from a saved state; call it after model and optimizer states have been loaded.

        A state goes on with the recording in ``out`` whatever ``resume`` and ``overwrite`` say, if it is the one
        that the state was saved with: in scripts that are started again and again these stay as they are. Any other
        recording there is treated as they say. A ring that does not fit is dropped with a warning: a seam.

        Args:
            model: Wrapped or not.
            optimizers: One or a list, wrapped or not.
            state: From ``state`` or ``load``; None starts afresh.
            step: Optimizer steps made so far, where neither the state nor the optimizers know.

        Raises:
            SettingError: As ``spectraledge.attach``, whatever ``on_error`` says: no step has been made yet.
            OutputError: As ``spectraledge.attach``.
        """
        self.detach()
        state = state if state and "step" in state else None
        keywords = dict(self.keywords)
        listed = list(optimizers) if isinstance(optimizers, (list, tuple)) else [optimizers]
        found = _run_id(keywords.get("out"))
        if state is not None:
            keywords["step"] = int(state["step"])
            if found and found == state.get("run_id"):
                keywords |= {"resume": "auto", "overwrite": False}
        elif keywords.get("step") is None and not any(keeps_count(unwrap(o)) for o in listed):
            keywords["step"] = step
        metadata = {"run_id": secrets.token_hex(8), **(keywords.get("metadata") or {})}
        monitor = attach(model, listed, **{**keywords, "metadata": metadata})
        self.monitor, self._running, self._failed = monitor, True, False
        self._run_id = found if found and keywords.get("resume") == "auto" else metadata["run_id"]
        if self._on_event is not None:  # first: detectors take up their state with the rest
            monitor.on_event(self._on_event)
        if state is not None:
            with self.forgiving("does not go on from the saved state; a seam is marked"):
                monitor.load_state_dict(state)
        return monitor

    def detach(self) -> None:
        """Close the recording; ``monitor``, ``recording`` and ``state`` stay. Safe to call at any time."""
        if self._running and self.monitor is not None:
            self._running = False
            self._failed = _has_failed(self.monitor)
            self.monitor.detach()

    def log(self, metrics: Mapping[str, Any], *, step: int | None = None) -> None:
        """Record those of a framework's metrics that are numbers, at the optimizer's step.

        Args:
            metrics: By name; words, lists and tensors of more than one element are left out, as are the names
                "self" and "step".
            step: Another step than the current one.
        """
        numbers = {k: v for k, v in metrics.items() if isinstance(k, str) and k not in RESERVED and _is_number(v)}
        if numbers and self._running and self.monitor is not None:
            self.monitor.log(step=step, **numbers)

    def state(self, *, ring: bool = False) -> dict[str, Any]:
        """The monitor's state, numbers and words only, also after ``detach``; empty if there is none.

        Args:
            ring: Also the ring as ``state["ring"]``, tensors in main memory, ``(lags + 1) P`` entries.
        """
        if self.monitor is None or self._failed or (self._running and _has_failed(self.monitor)):
            return {}
        with self.forgiving("did not save the state of its monitor; a resumed recording will have a seam"):
            state = {**self.monitor.state_dict(), "run_id": self._run_id}
            if ring:
                with self.forgiving(_NO_RING):
                    tensors = _ring_of(self.monitor)
                    state["ring"] = {name: t.detach().to("cpu", copy=True) for name, t in tensors.items()}
            return state
        return {}

    def save(self, folder: str | Path, *, name: str = "monitor") -> None:
        """Write the state with its ring to ``folder/spectral_edge/<name>.safetensors``, whole or not at all.

        Raises:
            OutputError: If it cannot be written; only with ``on_error="raise"``.
            SettingError: If several ranks hold parts of the ring; only with ``on_error="raise"``.
        """
        state = self.state()
        if state and self.monitor is not None:
            with self.forgiving(_NO_RING):
                save_file(sidecar(folder, name), *pack(state, _ring_of(self.monitor)))

    def load(self, folder: str | Path, *, name: str = "monitor") -> dict[str, Any] | None:
        """What ``save`` wrote, for ``attach``; None if there is nothing.

        Raises:
            DataError: If it is damaged; only with ``on_error="raise"``.
        """
        path = sidecar(folder, name)
        if not path.exists():
            return None
        with self.forgiving("could not read its saved ring; a seam is marked"):
            return unpack(*load_file(path))
        return None

    @contextmanager
    def forgiving(self, what: str) -> Iterator[None]:
        """Turn what goes wrong inside into a warning, so that training goes on, unless ``on_error="raise"``."""
        try:
            yield
        except Exception as error:
            if self.keywords.get("on_error", "disable") == "raise":
                raise
            message = f"spectraledge {what}; training goes on. {type(error).__name__}: {error}"
            warnings.warn(message, RuntimeWarning, stacklevel=3)


class Monitored:
    """A callback around a ``LateMonitor``."""

    _late: LateMonitor

    @property
    def monitor(self) -> Monitor | None:
        """Of the training that runs, or ran last; None before."""
        return self._late.monitor

    @property
    def recording(self) -> Recording:
        """What the training that runs, or ran last, has recorded.

        Raises:
            SettingError: If none has begun.
        """
        return self._late.recording


def sidecar(folder: str | Path, name: str = "monitor") -> Path:
    """Where the state lies beside the checkpoint files in ``folder``.

    >>> sidecar("checkpoint-100").as_posix()
    'checkpoint-100/spectral_edge/monitor.safetensors'
    """
    return Path(folder) / FOLDER / f"{name}.safetensors"


def _ring_of(monitor: Monitor) -> dict[str, torch.Tensor]:
    if monitor._ranks.size > 1:
        raise SettingError(
            f"a saved ring must be that of one process; {monitor._ranks.size} ranks hold parts of it. Save "
            "monitor.checkpoint() with torch.distributed.checkpoint."
        )
    return monitor._state_tensors()


def _has_failed(monitor: Monitor) -> bool:
    """Whether a monitor that nobody has detached is at an end: nothing could go on from its state."""
    return monitor._dead or getattr(monitor, "_error", None) is not None


def _is_number(value: Any) -> bool:
    if isinstance(value, torch.Tensor):
        return value.numel() == 1 and not value.is_complex() and not value.is_meta
    if isinstance(value, (str, bytes, Sequence, Mapping)) or value is None:
        return False
    try:
        float(value)
    except (TypeError, ValueError, RuntimeError):
        return False
    return True


def _run_id(out: Any) -> str:
    """Which run the recording in ``out`` is of; "" if there is none, or it was made by ``attach`` alone."""
    if out is None:
        return ""
    try:
        with open(recording_file(out), "rb") as file:
            header = decode_line(file.readline())
        return str(header["meta"].get("run_id", ""))
    except Exception:  # whatever is wrong with it, ``attach`` looks again and says so
        return ""
