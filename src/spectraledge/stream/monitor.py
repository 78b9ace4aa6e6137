"""The monitor of a training run: snapshots at the right moments, rows into a recording.

Ties together counter, ring and writer. It reads parameters and learning rates and writes nothing that the
training could see.
"""

from __future__ import annotations

import logging
import os
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..errors import OutputError, SettingError
from ..recording import Event, RecordingWriter
from ..recording.replay import replay
from . import cost
from .blocks import Blocks, BlockScheme, make_blocks
from .decay import add_decay, check_decoupled
from .parameters import (
    ParameterFilter,
    Structure,
    describe_change,
    head_counts,
    real,
    refuse_several_ranks,
)
from .probe import Probe, Prober
from .ring import Row, UpdateRing
from .span import directions
from .state import load_file, pack, save_file, unpack
from .steps import StepCounter

if TYPE_CHECKING:
    from types import TracebackType

    from ..recording import Recording
    from .watch import Watch

logger = logging.getLogger("spectraledge")


@dataclass(frozen=True)
class Settings:
    """How a run is monitored; checked once, in ``_attach.py``."""

    window: int
    every: int
    lags: int
    blocks: BlockScheme
    params: ParameterFilter | None
    heads: int | Mapping[str, int] | None
    decay_products: bool
    store: str
    backend: str
    on_error: str
    probe: Probe | None = None
    probe_every: int = 0
    events: bool | tuple[str, ...] = False


class Monitor:
    """Made by ``spectraledge.attach``; see there.

    Attributes:
        settings: How the run is monitored.
        plan: Its cost.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        optimizers: Sequence[torch.optim.Optimizer],
        settings: Settings,
        open_writer: Callable[[], RecordingWriter],
        *,
        step: int | None,
    ) -> None:
        refuse_several_ranks()
        self.settings = settings
        self._model = model
        if settings.decay_products:
            check_decoupled(optimizers)
        self._structure = Structure(model, settings.params)
        self._ring = self._make_ring()
        self._prober = None
        if settings.probe is not None:
            self._prober = Prober(settings.probe, model, optimizers, settings.window)
        self._listeners: list[Callable[[str, Mapping[str, Any]], object]] = []
        self._watch: Watch | None = None
        if settings.events:
            self._start_watch(settings.events if isinstance(settings.events, tuple) else None)
        self.plan = cost.make_plan(
            self._ring.blocks.n_parameters,
            len(self._ring.blocks.names),
            settings.lags,
            every=settings.every,
            decay=settings.decay_products,
            itemsize=self._ring.nbytes // self._ring.n_entries,
            device=self._device(),
            backend=self._ring.backend,
            probe=settings.probe,
            probe_every=settings.probe_every,
        )
        logger.info("monitoring %s", self.plan)
        self._dead = False
        self._reloaded = False
        self._nonfinite: set[str] = set()
        self._rewind_to: tuple[int, bool] | None = None  # (step, whether the ring goes on), still to be written
        # opened only now: whatever is wrong with the model is found before the folder is touched
        self._writer = writer = open_writer()
        self._counter = StepCounter(
            optimizers,
            start=step,
            before=self._guarded(self._before),
            stepped=self._guarded(self._stepped),
            completed=self._guarded(self._completed),
            reloaded=self._guarded(self._on_reload),
        )
        self._lr_sum = np.zeros(sum(len(o.param_groups) for o in optimizers))
        self._last_step = self._start = self._counter.count
        self._rows: list[tuple[int, int]] = []  # (step, t) of every row that is not rewound
        self._found_segments: list[Mapping[str, Any]] = []  # in a file that is resumed
        self._segment, self._segment_step = -1, 0
        self._n_segments = 0  # numbers ever used: none is used twice, also after a rewind
        if writer.resumed is None:
            self._open_segment("start")
        else:
            self._take_up(writer.resumed.records)

    # what the user calls

    @property
    def _tensors(self) -> dict[str, torch.Tensor]:
        return self._structure.tensors

    @property
    def step(self) -> int:
        """Optimizer steps made so far."""
        return self._counter.count

    @property
    def blocks(self) -> Blocks:
        """The current partition of the parameter vector."""
        return self._ring.blocks

    @property
    def recording(self) -> Recording:
        """Everything recorded so far; equal to ``spectraledge.load(out)``."""
        from ..recording import Recording

        return Recording.from_log(self._writer.log())

    def directions(self, window: int) -> tuple[np.ndarray, np.ndarray]:
        """The modes of the newest window, as combinations of the stored updates.

        Args:
            window: W, at most the number of lags.

        Returns:
            (W) singular values, descending [parameter], and (W, W) coefficients: column j on the updates l =
            0..W-1 (newest first) makes the unit vector v_j, ``ring.combine(coefficients[:, j])``. Columns of
            modes below the resolution floor are NaN.

        Raises:
            SettingError: If fewer than ``window`` updates are stored.
        """
        return directions(self._ring, window)

    @property
    def ring(self) -> UpdateRing:
        """The stored updates."""
        return self._ring

    def log(self, *, step: int | None = None, **metrics: float) -> None:
        """Record metrics at the current optimizer step.

        Args:
            step: Another step than the current one.
            **metrics: Numbers (or tensors of one element) by name.

        Raises:
            SettingError: If a value is no number; in training only with ``on_error="raise"``.
        """
        if not self._dead:
            self._guarded(self._log)(self._counter.count if step is None else step, metrics)

    def log_weights(self, singular_values: Mapping[str, Sequence[float]], *, step: int | None = None) -> None:
        """Record singular values of weight matrices at the current optimizer step.

        Args:
            singular_values: Name of the matrix to its leading singular values, descending [parameter]; see
                ``spectraledge.stream.weights.weight_spectra``.
            step: Another step than the current one.

        Raises:
            SettingError: If a value is no number; in training only with ``on_error="raise"``.
        """
        if not self._dead:
            self._guarded(self._log_weights)(self._counter.count if step is None else step, singular_values)

    def on_event(self, callback: Callable[[Event], object]) -> None:
        """Call ``callback(event)`` whenever a detector reports something; starts detectors if none are at work.

        Events are recorded as well. A callback that raises is dropped with a warning. Detectors look at the past of
        the run alone, and start judging once they have seen enough of it (``spectraledge.detect``).

        Args:
            callback: Takes an ``Event``.

        Example:
            >>> import torch, spectraledge as se
            >>> model = torch.nn.Linear(4, 1)
            >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
            >>> with se.attach(model, optimizer, window=4, every=1) as monitor:
            ...     monitor.on_event(lambda event: print(event.step, event.kind))
        """
        watch = self._watch or self._start_watch(None)
        watch.add(callback)

    def on_record(self, callback: Callable[[str, Mapping[str, Any]], object]) -> None:
        """Call ``callback(kind, fields)`` with every record from now on, once it is written.

        For trackers and displays. A callback that raises is dropped with a warning; fields must not be changed.

        Args:
            callback: Takes the kind of the record ("row", "metrics", "event", "segment", "rewind", "close", ...) and
                its fields, see ``docs/recording.md``.
        """
        self._listeners.append(callback)

    def detach(self) -> None:
        """Take the hooks off and close the recording. Safe to call twice."""
        self._counter.remove()
        if self._dead:
            return
        self._dead = True
        try:
            self._flush_rewind()
            self._write("close", step=self._counter.count)
            self._writer.close()
        except Exception as error:
            self._fail(error)

    def state_dict(self, *, ring: bool = False) -> dict[str, Any]:
        """State to save beside a checkpoint.

        Args:
            ring: Whether to include the ring, ``(lags + 1) P`` entries: only then does a resumed recording go on
                bit for bit; without it a seam is marked, which no window crosses.
        """
        state: dict[str, Any] = {
            "step": self._counter.count,
            "last_step": self._last_step,
            "t": self._next_t,
            "segment": self._segment,
            "n_appended": self._ring.n_appended,
            "lr_sum": self._lr_sum.tolist(),
        }
        if self._prober is not None and self._prober.pending is not None:
            state["probe"] = self._prober.pending.t
        if self._watch is not None:
            state["events"] = self._watch.state()
        if ring:
            state["ring"] = {name: tensor.clone() for name, tensor in self._state_tensors().items()}
        return state

    def _state_tensors(self) -> dict[str, torch.Tensor]:
        waiting = self._prober.state_tensors() if self._prober is not None else {}
        return {**self._ring.state_tensors(), **waiting}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state; call it after the model's and the optimizer's states have been loaded.

        What was recorded after the state's step is rewound.

        Raises:
            SettingError: If the saved ring has another layout than this monitor's.
        """
        if "ring" in state:
            waiting = {name: x for name, x in state["ring"].items() if name.startswith("probe.")}
            buffers = {name: x for name, x in state["ring"].items() if name not in waiting}
            self._ring.load_state_tensors(buffers, int(state["n_appended"]))
            if self._prober is not None:
                self._prober.load_state_tensors(waiting, state.get("probe"))
            self._last_step = int(state["last_step"])
            self._lr_sum = np.array(state["lr_sum"], dtype=np.float64)
        else:
            self._ring.reset(self._tensors)
            self._last_step = int(state["step"])
            self._lr_sum[:] = 0.0
        if self._watch is not None and "events" in state:
            self._watch.load_state(state["events"])
        self._counter.restart(int(state["step"]))
        self._reloaded = False
        if self._rows or self._writer.resumed is not None:
            self._rewind_to = (int(state["step"]), "ring" in state)
        else:  # a state loaded into a fresh recording
            self._start = self._last_step
            self._open_segment("went on from a saved state")

    def save(self, path: str | os.PathLike[str]) -> None:
        """Save ``state_dict(ring=True)`` as a safetensors file, in one piece or not at all.

        Raises:
            OutputError: If the file cannot be written.
        """
        save_file(path, *pack(self.state_dict(), self._state_tensors()))

    def load(self, path: str | os.PathLike[str]) -> None:
        """Load what ``save`` wrote; see ``load_state_dict``.

        Raises:
            DataError: If the file is damaged or no saved monitor.
        """
        self.load_state_dict(unpack(*load_file(path)))

    def __enter__(self) -> Monitor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.detach()

    # what the optimizers call

    def _before(self, optimizer: torch.optim.Optimizer) -> None:
        if self._rewind_to is not None or self._reloaded:
            self._settle()
        if self.settings.decay_products:
            add_decay(self._ring, optimizer, self._names)

    def _stepped(self, optimizer: torch.optim.Optimizer) -> None:
        i = 0
        for other in self._counter.optimizers:
            for group in other.param_groups:
                if i == len(self._lr_sum):  # a parameter group was added
                    self._lr_sum = np.append(self._lr_sum, 0.0)
                if other is optimizer:
                    self._lr_sum[i] += float(group["lr"])
                i += 1

    def _completed(self, count: int) -> None:
        if (count - self._start) % self.settings.every == 0:
            count = self._counter.reconcile()
            if (count - self._start) % self.settings.every == 0 and count > self._last_step:
                self._snapshot(count)

    def _on_reload(self) -> None:
        self._reloaded = True

    # how a snapshot becomes a record

    def _write(self, kind: str, **fields: Any) -> None:
        self._writer.write(kind, **fields)
        for listener in list(self._listeners):
            try:
                listener(kind, fields)
            except Exception as error:
                self._listeners.remove(listener)
                _warn("spectraledge dropped a listener that raised", error)

    def _snapshot(self, step: int) -> None:
        began = time.perf_counter()
        if not self._structure.unchanged():
            self._restructure()
            return
        row = self._ring.append(self._tensors)
        flags = self._flags(row, step)
        fields: dict[str, Any] = {
            "t": self._next_t,
            "segment": self._segment,
            "step": step,
            "n_steps": step - self._last_step,
            "lr_sum": self._lr_sum,
            "products": row.products,
            "theta_dot": row.theta_dot,
            "theta_norm2": row.theta_norm2,
            "unchanged": row.unchanged,
            "nonfinite": row.nonfinite,
            "flags": flags,
        }
        if row.decay_products is not None:
            fields |= {"decay_products": row.decay_products, "decay_norm2": row.decay_norm2}
        self._write("row", **fields, seconds=time.perf_counter() - began)
        if self._watch is not None:
            self._look(self._watch, step, row)
        self._report_nonfinite(row, step)
        self._rows.append((step, self._next_t))
        self._last_step = step
        self._lr_sum[:] = 0.0
        if self._prober is not None:
            self._probe(self._prober, step)

    def _probe(self, prober: Prober, step: int) -> None:
        """Finish the probe that waits for this update, and make a new one where one is due.

        A probe that fails ends probing, not the recording.
        """
        t = self._rows[-1][1]
        tensors = self._structure.tensors
        due = (step - self._start) % self.settings.probe_every == 0
        try:
            if prober.pending is not None and prober.pending.t == t - 1 and self._ring.n_appended > 1:
                self._write("outcome", **prober.follow_up(self._ring, tensors, step=step))
            prober.pending = None
            if due and self._ring.n_appended >= self.settings.window:
                fields = prober.measure(self._ring, tensors, t=t, step=step, n_steps=self.settings.every)
                self._write("probe", segment=self._segment, **fields)
        except OutputError:
            raise
        except Exception as error:
            if self.settings.on_error == "raise":
                raise
            self._prober = None
            _warn(f"spectraledge stopped probing at step {step}; training and recording go on", error)

    def _start_watch(self, detectors: Sequence[str] | None) -> Watch:
        from .watch import Watch  # most runs look for no events, and need not load what does

        self._watch = watch = Watch(self.settings.window, detectors)
        return watch

    def _look(self, watch: Watch, step: int, row: Row) -> None:
        """Detectors that fail end detection, not the recording."""
        try:
            events = watch.push(step, row.products, seam=self._ring.n_appended == 1)
        except Exception as error:
            if self.settings.on_error == "raise":
                raise
            self._watch = None
            _warn(f"spectraledge stopped looking for events at step {step}; training and recording go on", error)
            return
        for event in events:
            self._write("event", **event.to_fields())
        watch.tell(events)

    def _flags(self, row: Row, step: int) -> list[str]:
        flags = []
        if row.nonfinite.any() or np.isnan(row.products[:, 0]).any():
            flags.append("nonfinite")
        if not row.products[:, 0].any():
            flags.append("zero_update")
        if step - self._last_step != self.settings.every:
            flags.append("uneven")
        return flags

    def _report_nonfinite(self, row: Row, step: int) -> None:
        """One event a block when its parameters stop being finite, and again after they have recovered."""
        now = {self._ring.blocks.names[b] for b in np.flatnonzero(row.nonfinite)}
        for b in np.flatnonzero(row.nonfinite):
            name = self._ring.blocks.names[b]
            if name not in self._nonfinite:
                count = int(row.nonfinite[b])
                self._write(
                    "event",
                    step=step,
                    block=name,
                    event_kind="nonfinite",
                    value=count,
                    threshold=0,
                    detector="health",
                )
                logger.warning("step %d: %d entries of block %s are not finite", step, count, name)
        self._nonfinite = now

    def _restructure(self) -> None:
        after = Structure(self._model, self.settings.params)
        reason = describe_change(self._tensors, after.tensors)
        logger.warning("step %d: the trained parameters changed (%s); a new segment begins", self.step, reason)
        self._structure = after
        del self._ring  # before the next one takes its place in memory
        self._ring = self._make_ring()
        self._lr_sum[:] = 0.0
        self._last_step = self._counter.count
        self._open_segment(reason)

    def _open_segment(self, reason: str) -> None:
        self._segment, self._segment_step = self._n_segments, self._last_step
        self._n_segments += 1
        blocks = self._ring.blocks
        self._write(
            "segment",
            segment=self._segment,
            step=self._last_step,
            reason=reason,
            blocks=list(blocks.names),
            block_info=self._block_info(),
            scheme=blocks.scheme,
            lags=self.settings.lags,
            update_dtype=self._ring.update_dtype,
            parameter_dtypes=sorted({str(t.dtype).removeprefix("torch.") for t in self._tensors.values()}),
            groups=_describe_groups(self._counter.optimizers),
            momentum=_momentum(self._counter.optimizers),
            every=self.settings.every,
            n_parameters=blocks.n_parameters,
        )

    def _block_info(self) -> list[dict[str, Any]]:
        """Blocks as recorded; those whose tensors share one parameter group say which (index into ``lr_sum``)."""
        group_of: dict[str, int] = {}
        index = 0
        for optimizer in self._counter.optimizers:
            for group in optimizer.param_groups:
                group_of |= {self._names[id(p)]: index for p in group["params"] if id(p) in self._names}
                index += 1
        out = []
        for info, atoms in zip(self._ring.blocks.info(), self._ring.blocks.atoms, strict=True):
            groups = {group_of.get(atom.name) for atom in atoms}
            out.append({**info, "group": groups.pop() if len(groups) == 1 else None})
        return out

    def _make_ring(self) -> UpdateRing:
        shapes = {name: tuple(real(t).shape) for name, t in self._tensors.items()}
        heads = self.settings.heads if self.settings.heads is not None else head_counts(self._model)
        blocks = make_blocks(shapes, self.settings.blocks, heads)
        self._names = {id(t): name for name, t in self._tensors.items()}
        per_entry = 8 if any(t.dtype in (torch.float64, torch.complex128) for t in self._tensors.values()) else 4
        need = blocks.n_parameters * per_entry * (self.settings.lags + (2 if self.settings.decay_products else 1))
        cost.check_memory(need, self._device(), blocks.n_parameters, self.settings.lags)
        return UpdateRing(
            blocks,
            self._tensors,
            self.settings.lags,
            decay=self.settings.decay_products,
            store=self.settings.store,
            backend=self.settings.backend,
        )

    def _device(self) -> torch.device:
        device = next(iter(self._tensors.values())).device
        return torch.device("cpu") if self.settings.store == "host" or device.type == "mps" else device

    # resuming

    @property
    def _next_t(self) -> int:
        return self._rows[-1][1] + 1 if self._rows else 0

    def _take_up(self, records: Sequence[dict[str, Any]]) -> None:
        """Read off an existing recording what going on behind it needs; nothing is written yet.

        The step may still change, by a state that is loaded after attaching.
        """
        found = replay(records)
        self._rows = [(row.step, row.t) for row in found.rows]
        self._found_segments = list(found.segments)
        numbers = [record["segment"] for record in records if record["kind"] == "segment"]
        self._n_segments = 1 + max((n for n in numbers if isinstance(n, int)), default=-1)
        if self._found_segments:
            self._start = self._found_segments[0]["step"]
        self._rewind_to = (self._counter.count, False)

    def _drop_after(self, step: int) -> None:
        while self._rows and self._rows[-1][0] > step:
            self._rows.pop()
        self._found_segments = [s for s in self._found_segments if s["step"] <= step]

    def _settle(self) -> None:
        """Before the first step after a resume or a reload: write the rewind, forget what does not join."""
        if self._reloaded:  # an optimizer has loaded a state: the parameters are others, and so is the step
            self._reloaded = False
            own = self._counter.own_count()
            now = own if own is not None else self._counter.count
            self._counter.restart(now)
            if self._rows or self._writer.resumed is not None:
                self._rewind_to = (now, False)
            else:
                self._ring.reset(self._tensors)
                self._start = self._last_step = now
                self._open_segment("an optimizer state was loaded")
        if self._rewind_to is not None and not self._rewind_to[1]:
            self._ring.reset(self._tensors)
            self._last_step = self._rewind_to[0]
            self._lr_sum[:] = 0.0
        self._flush_rewind()

    def _flush_rewind(self) -> None:
        """Write the rewind that is due, and a segment where none found in the file describes this run."""
        if self._rewind_to is None:
            return
        step, ring = self._rewind_to
        self._rewind_to = None
        self._write("rewind", step=step, ring=ring)
        self._drop_after(step)
        if self._segment >= 0:  # within one process
            if self._segment_step > step:
                self._last_step = step
                self._open_segment("rewound to before the last change of structure")
            return
        last = self._found_segments[-1] if self._found_segments else {}
        self._segment, self._segment_step = last.get("segment", -1), last.get("step", 0)
        if last.get("blocks") != list(self._ring.blocks.names) or last.get("lags") != self.settings.lags:
            self._open_segment("resumed with other blocks or lags" if self._found_segments else "start")

    # metrics and failures

    def _log(self, step: int, metrics: Mapping[str, float]) -> None:
        if self._reloaded or self._rewind_to is not None:
            self._settle()
        values = {}
        for name, value in metrics.items():
            try:
                values[name] = float(value.detach() if isinstance(value, torch.Tensor) else value)
            except (TypeError, ValueError, RuntimeError) as error:
                raise SettingError(f"a metric must be a number; {name} is {value!r}. Log its mean.") from error
        self._write("metrics", step=int(step), values=values)
        if self._watch is not None:
            self._watch.note(values)

    def _log_weights(self, step: int, spectra: Mapping[str, Sequence[float]]) -> None:
        if self._reloaded or self._rewind_to is not None:
            self._settle()
        width = max((len(values) for values in spectra.values()), default=0)
        table = np.full((len(spectra), width), np.nan)
        for row, (name, values) in zip(table, spectra.items()):
            try:
                row[: len(values)] = [float(value) for value in values]
            except (TypeError, ValueError) as error:
                raise SettingError(
                    f"singular values must be numbers; those of {name} are not. Give floats."
                ) from error
        self._write("weights", step=int(step), names=list(spectra), singular_values=table)

    def _guarded(self, function: Callable[..., None]) -> Callable[..., None]:
        def call(*args: Any) -> None:
            if self._dead:
                return
            with self._forgiving():
                function(*args)

        return call

    @contextmanager
    def _forgiving(self) -> Any:
        try:
            yield
        except Exception as error:
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        if self.settings.on_error == "raise":
            raise error
        self._dead = True
        self._counter.remove()
        _warn(f"spectraledge stopped monitoring at step {self._counter.count}; training goes on", error)


def _warn(what: str, error: Exception) -> None:
    warnings.warn(f"{what}. {type(error).__name__}: {error}", RuntimeWarning, stacklevel=3)


def _describe_groups(optimizers: Sequence[torch.optim.Optimizer]) -> list[dict[str, Any]]:
    """Numbers and words of every parameter group, for the record."""
    out = []
    for i, optimizer in enumerate(optimizers):
        for group in optimizer.param_groups:
            plain = {
                key: list(value) if isinstance(value, tuple) else value
                for key, value in group.items()
                if key != "params"
                and isinstance(value, (int, float, str, bool, tuple, type(None)))
                and not (isinstance(value, tuple) and any(isinstance(v, torch.Tensor) for v in value))
            }
            out.append({"optimizer": i, "class": type(optimizer).__name__, **plain})
    return out


def _momentum(optimizers: Sequence[torch.optim.Optimizer]) -> float | None:
    """Largest momentum coefficient in use, which sets how far rows of the update matrix correlate in time."""
    found = [0.0]
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            betas = group.get("betas")
            beta = betas[0] if isinstance(betas, (tuple, list)) and betas else group.get("momentum", 0.0)
            found.append(float(beta or 0.0))
    return max(found)
