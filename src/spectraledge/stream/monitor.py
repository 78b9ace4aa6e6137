"""The monitor of a training run: snapshots at the right moments, rows into a recording.

Ties together counter, ring and writer. It reads parameters and learning rates and writes nothing that the
training could see.

Where several ranks train one model, each multiplies the entries it counts (``ranks``), and all meet once a snapshot:
they tell each other whether anything is wrong, then add their sums. Whatever follows from a meeting, a row, a new
segment, the end of monitoring, follows on all of them. Rank 0 alone writes the recording.
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

from ..errors import DataError, OutputError, SettingError
from ..recording import Event, RecordingWriter
from ..recording.replay import replay
from . import cost
from .blocks import Blocks
from .decay import add_decay, check_decoupled
from .groups import describe_groups, largest_momentum
from .parameters import Structure, describe_change, head_counts
from .pending import Pending
from .probe import Prober
from .ranks.group import Parted, ranks_of_this_run
from .ranks.share import Share, table
from .ranks.state import Checkpoint, Pieces, load_pieces, ring_pieces
from .ranks.tensors import is_dtensor
from .ranks.writer import NoWriter
from .ring import UpdateRing
from .row import Row
from .settings import Settings
from .sketch import SketchRing
from .span import directions
from .state import load_file, pack, save_file, unpack
from .steps import StepCounter
from .store import AnyRing, make_ring

if TYPE_CHECKING:
    from types import TracebackType

    from ..recording import Recording
    from .watch import Watch

__all__ = ["Monitor", "Settings"]
logger = logging.getLogger("spectraledge")


@dataclass(frozen=True)
class _Started:
    """An update on its way: where its sums come from, and what is known of it besides."""

    pending: Pending
    span: _Span
    seconds: float


@dataclass(frozen=True)
class _Span:
    """The steps of an update: the last of them, that before the first, and the sums of their learning rates."""

    step: int
    before: int
    lr_sum: np.ndarray


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
        self.settings = settings
        self._model = model
        self._ranks = ranks_of_this_run(settings.ranks, settings.rank_timeout)
        self._optimizers = list(optimizers)
        if settings.decay_products:
            self._ranks.together(lambda: check_decoupled(optimizers))
        self._build()
        self._prober = None
        if settings.probe is not None:
            self._ranks.together(self._refuse_probes_of_shards)
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
            itemsize=self._share.itemsize,
            device=self._device(),
            backend=self._ring.backend,
            store=settings.store,
            precision=settings.precision,
            sketch_size=settings.sketch_size if settings.store == "sketch" else None,
            probe=settings.probe,
            probe_every=settings.probe_every,
        )
        logger.info("monitoring %s", self.plan)
        self._dead = False
        self._error: Exception | None = None  # what ended monitoring here, still to be told to the other ranks
        self._reloaded = False
        self._nonfinite: set[str] = set()
        self._rewind_to: tuple[int, bool] | None = None  # (step, whether the ring goes on), still to be written
        self._started: _Started | None = None  # an update whose sums an accelerator may still be at
        # opened only now: whatever is wrong with the model is found before the folder is touched
        self._writer: RecordingWriter | NoWriter = NoWriter()
        found = self._ranks.together(lambda: self._open_writer(open_writer))[0]
        self._resumed = found is not None
        self._counter = StepCounter(
            optimizers,
            start=step,
            before=self._guarded(self._before),
            stepped=self._guarded(self._stepped),
            completed=self._guarded(self._completed),
            reloaded=self._guarded(self._on_reload),
        )
        if self._ranks.size > 1 and step is None:  # a rank may train nothing that counts steps
            self._counter.restart(max(self._ranks.gather(self._counter.count)))
        self._lr_sum = np.zeros(sum(len(o.param_groups) for o in optimizers))
        self._last_step = self._start = self._counter.count
        self._rows: list[tuple[int, int]] = []  # (step, t) of every row that is not rewound
        self._found_segments: list[Mapping[str, Any]] = []  # in a file that is resumed
        self._segment, self._segment_step = -1, 0
        self._n_segments = 0  # numbers ever used: none is used twice, also after a rewind
        if found is None:
            self._open_segment("start")
        else:
            self._take_up(found)

    def _open_writer(self, open_writer: Callable[[], RecordingWriter]) -> dict[str, Any] | None:
        """On rank 0; what all ranks must know of a recording that goes on."""
        if self._ranks.rank != 0:
            return None
        self._writer = writer = open_writer()
        if writer.resumed is None:
            return None
        records = writer.resumed.records
        found = replay(records)
        numbers = [record["segment"] for record in records if record["kind"] == "segment"]
        return {
            "rows": [(row.step, row.t) for row in found.rows],
            "segments": [{key: s.get(key) for key in ("segment", "step", "blocks", "lags")} for s in found.segments],
            "n_segments": 1 + max((n for n in numbers if isinstance(n, int)), default=-1),
        }

    def _build(self) -> str:
        """Find the parameters, divide them among the ranks and make the ring; why it had to be made again.

        A collective: the ranks fail together.
        """
        several = self._ranks.size > 1
        before = getattr(self, "_structure", None)

        def look() -> tuple[Any, ...]:
            self._structure = Structure(self._model, self.settings.params, may_be_empty=several)
            reason = "" if before is None else describe_change(before.tensors, self._structure.tensors)
            changed = before is not None and not before.unchanged()
            heads = head_counts(self._model)
            return table(self._structure, self._optimizers, several=several), reason, changed, heads

        found = self._ranks.together(look)
        heads = self.settings.heads
        if heads is None:
            heads = {layer: n for _, _, _, counts in reversed(found) for layer, n in counts.items()}
        self._names = self._structure.names_of()

        def make() -> None:
            tables = [table for table, *_ in found]
            self._share = Share(self._ranks, tables, self._structure, self.settings.blocks, heads)
            self._ring = self._make_ring()

        self._ranks.together(make)
        return next((reason for _, reason, changed, _ in found if changed), "")

    def _refuse_probes_of_shards(self) -> None:
        if self._ranks.size > 1 or self._structure.sharded is not None:
            raise SettingError(
                "probes differentiate the whole model in one process; "
                f"{self._structure.sharded or 'it'} lies on {self._ranks.size} rank(s) as a part of it. Record "
                "without probe=, and probe checkpoints."
            )

    # what the user calls

    @property
    def step(self) -> int:
        """Optimizer steps made so far."""
        return self._counter.count

    @property
    def blocks(self) -> Blocks:
        """The current partition of the parameter vector; on several ranks, of the whole of it."""
        return self._share.blocks

    @property
    def recording(self) -> Recording:
        """Everything recorded so far; equal to ``spectraledge.load(out)``.

        Raises:
            SettingError: On other ranks than 0, which alone keeps the recording.
        """
        from ..recording import Recording

        self._guarded(self._catch_up)()
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
            SettingError: If fewer than ``window`` updates are stored, or several ranks store parts of them.
        """
        if self._ranks.size > 1:
            raise SettingError(
                f"modes need whole updates in one process; {self._ranks.size} ranks hold parts of them. "
                "Use recording.spectra on rank 0."
            )
        return directions(self._ring, window)

    @property
    def ring(self) -> AnyRing:
        """The stored updates; on several ranks, of the entries that this one counts."""
        return self._ring

    def log(self, *, step: int | None = None, **metrics: float) -> None:
        """Record metrics at the current optimizer step; on several ranks, those of rank 0.

        Args:
            step: Another step than the current one.
            **metrics: Numbers (or tensors of one element) by name.

        Raises:
            SettingError: If a value is no number; in training only with ``on_error="raise"``.
        """
        if not self._dead and self._error is None:
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
        if not self._dead and self._error is None:
            self._guarded(self._log_weights)(self._counter.count if step is None else step, singular_values)

    def on_event(self, callback: Callable[[Event], object]) -> None:
        """Call ``callback(event)`` whenever a detector reports something; starts detectors if none are at work.

        The one of grokking is at work only if asked for, ``attach(events=["grokking"])``. Events are recorded as
        well. A callback that raises is dropped with a warning. Detectors look at the past of the run alone, and start
        judging once they have seen enough of it (``spectraledge.detect``). On several ranks, what rank 0 finds is
        told on every rank that has a callback, at the same step: all can stop together.

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

        For trackers and displays. A callback that raises is dropped with a warning; fields must not be changed. On
        several ranks only rank 0 writes records, so callbacks of other ranks are never called.

        Args:
            callback: Takes the kind of the record ("row", "metrics", "event", "segment", "rewind", "close", ...) and
                its fields, see ``docs/recording.md``.
        """
        self._listeners.append(callback)

    def detach(self) -> None:
        """Take the hooks off and close the recording. Safe to call twice. All ranks must call it at the same step."""
        self._counter.remove()
        if self._dead:
            return
        self._dead = True
        if self._error is not None:  # the ranks have not met since
            self._stop(f"rank {self._ranks.rank}: {_told(self._error)}")
            return
        try:
            self._catch_up()
            self._flush_rewind()
            self._write("close", step=self._counter.count)
            self._writer.close()
        except Exception as error:
            self._fail(error)

    def state_dict(self, *, ring: bool = False) -> dict[str, Any]:
        """State to save beside a checkpoint.

        Args:
            ring: Whether to include the ring, ``(lags + 1) P`` entries: only then does a resumed recording go on
                bit for bit; without it a seam is marked, which no window crosses. On several ranks it is this rank's
                part; ``checkpoint()`` is what torch.distributed.checkpoint saves.
        """
        self._guarded(self._catch_up)()
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
            tensors = self._state_tensors() if self._ranks.size == 1 else self.ring_pieces()
            state["ring"] = {name: tensor.detach().clone() for name, tensor in tensors.items()}
        return state

    def ring_pieces(self) -> dict[str, torch.Tensor]:
        """The ring by parameter, as torch.distributed.checkpoint saves it: views of this rank's part, no copies.

        Raises:
            SettingError: If a part is no box of its parameter, as uneven strided shards are not.
        """
        return ring_pieces(self._ring, self._share)

    def checkpoint(self) -> Checkpoint:
        """This monitor with its ring, to put beside the model into a distributed checkpoint.

        ``torch.distributed.checkpoint.save({"model": ..., "monitor": monitor.checkpoint()}, ...)`` on all ranks; load
        the same way, after the model and the optimizer, on as many ranks as you like: the ring is resharded.
        The monitor itself has ``state_dict`` and ``load_state_dict`` too, without the ring: a seam is then marked.
        """
        return Checkpoint(self)

    def _state_tensors(self) -> dict[str, torch.Tensor]:
        waiting = self._prober.state_tensors() if self._prober is not None else {}
        return {**self._ring.state_tensors(), **waiting}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state; call it after the model's and the optimizer's states have been loaded.

        What was recorded after the state's step is rewound.

        Raises:
            SettingError: If the saved ring has another layout than this monitor's.
        """
        self._guarded(self._catch_up)()
        if "ring" in state:
            self._load_ring(state["ring"], state)
            self._last_step = int(state["last_step"])
            self._lr_sum = np.array(state["lr_sum"], dtype=np.float64)
        else:
            self._ring.reset(self._share.tensors())
            self._last_step = int(state["step"])
            self._lr_sum[:] = 0.0
        if self._watch is not None and "events" in state:
            self._watch.load_state(state["events"])
        self._counter.restart(int(state["step"]))
        self._reloaded = False
        if self._rows or self._resumed:
            self._rewind_to = (int(state["step"]), "ring" in state)
        else:  # a state loaded into a fresh recording
            self._start = self._last_step
            self._open_segment("went on from a saved state")

    def _load_ring(self, tensors: Mapping[str, torch.Tensor], state: Mapping[str, Any]) -> None:
        if any(isinstance(tensor, Pieces) for tensor in tensors.values()):
            load_pieces(self._ring, self._share, tensors)
            self._ring.n_appended = int(state["n_appended"])
            return
        waiting = {name: x for name, x in tensors.items() if name.startswith("probe.")}
        buffers = {name: x for name, x in tensors.items() if name not in waiting}
        self._ring.load_state_tensors(buffers, int(state["n_appended"]))
        if self._prober is not None:
            self._prober.load_state_tensors(waiting, state.get("probe"))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Save ``state_dict(ring=True)`` as a safetensors file, in one piece or not at all.

        Raises:
            OutputError: If the file cannot be written.
            SettingError: On several ranks, whose rings are saved by ``checkpoint()``.
        """
        if self._ranks.size > 1:
            raise SettingError(
                f"one file holds the ring of one process; there are {self._ranks.size} ranks. Save "
                "monitor.checkpoint() with torch.distributed.checkpoint."
            )
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
        if self._error is not None:  # nothing is recorded any more, but the ranks must meet at the same steps
            if self._reloaded:
                self._recount()
            return
        if self._rewind_to is not None or self._reloaded:
            self._catch_up()
            self._settle()
        if self.settings.decay_products:
            add_decay(self._ring, optimizer, self._pieces_of)

    def _pieces_of(self, parameter: torch.Tensor) -> dict[str, torch.Tensor]:
        found = {name: self._share.tensor(name) for name in self._names.get(id(parameter), ())}
        return {name: tensor for name, tensor in found.items() if tensor is not None}

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
        if not self._due(count):
            return
        if self._ranks.size > 1:
            self._meet()
            return
        count = self._counter.reconcile()
        if self._due(count) and count > self._last_step:
            self._snapshot(count)

    def _due(self, count: int) -> bool:
        return (count - self._start) % self.settings.every == 0

    def _on_reload(self) -> None:
        self._reloaded = True

    # how a snapshot becomes a record

    def _write(self, kind: str, **fields: Any) -> None:
        if self._ranks.rank != 0:
            return
        self._writer.write(kind, **fields)
        for listener in list(self._listeners):
            try:
                listener(kind, fields)
            except Exception as error:
                self._listeners.remove(listener)
                _warn("spectraledge dropped a listener that raised", error)

    def _snapshot(self, step: int) -> None:
        began = time.perf_counter()
        self._catch_up()
        if not self._structure.unchanged():
            self._restructure()
            return
        pending = self._ring.start(self._share.tensors())
        self._started = _Started(pending, self._next_span(step), time.perf_counter() - began)
        if pending.done or self._prober is not None:
            self._catch_up()

    def _catch_up(self) -> None:
        """Record the update that was started last; waits where an accelerator is still at it.

        Called before whatever follows it in the recording or changes what it belongs to. On a CPU sums are there at
        once; on CUDA this keeps the step from waiting for the device.
        """
        if self._started is None:
            return
        started, self._started = self._started, None
        began = time.perf_counter() - started.seconds
        self._record(self._ring.row(started.pending.result()), started.span, began)

    def _next_span(self, step: int) -> _Span:
        """The steps up to ``step``; those of the next update begin behind it."""
        span = _Span(step, self._last_step, self._lr_sum.copy())
        self._last_step = step
        self._lr_sum[:] = 0.0
        return span

    def _meet(self) -> None:
        """A snapshot on several ranks. Whatever goes wrong on one of them before, all know it after the meeting."""
        began = time.perf_counter()
        step, due, changed = self._counter.count, True, False
        sums = np.zeros((0, 0))
        if self._error is None:
            try:
                step = self._counter.reconcile()
                due = self._due(step) and step > self._last_step
                changed = due and not self._structure.unchanged()
                if due and not changed:
                    sums = self._ring.sums(self._share.tensors())
            except Exception as error:
                self._error = error
        failed = self._error is not None
        n_known = 0 if failed else 5 if changed or not due else 7
        n_appended = 0 if failed else self._ring.n_appended
        numbers = (step, due, self._last_step, self._start, n_appended, *sums.shape)
        meeting = self._ranks.meet(
            (failed, changed, self._watch is not None),
            [number if i < n_known else None for i, number in enumerate(numbers)],
        )
        any_failed, any_changed, any_watch = meeting.flags
        if any_failed:
            reasons = self._ranks.gather(_told(self._error))
            rank = next(rank for rank, reason in enumerate(reasons) if reason)
            self._stop(f"rank {rank}: {reasons[rank]}")
        elif not meeting.agreed:
            seen = self._ranks.gather(numbers)
            self._stop(f"the ranks must make the same steps; (step, due, last, first, updates, ...) are {seen}")
        elif due and any_changed:
            self._restructure()
        elif due:
            total = self._ranks.add(sums)
            try:
                self._record(self._ring.row(total), self._next_span(step), began, watch=any_watch)
            except Parted:
                raise
            except Exception as error:
                self._error = error  # the other ranks hear of it at the next meeting

    def _record(self, row: Row, span: _Span, began: float, *, watch: bool = True) -> None:
        step = span.step
        fields: dict[str, Any] = {
            "t": self._next_t,
            "segment": self._segment,
            "step": step,
            "n_steps": step - span.before,
            "lr_sum": span.lr_sum,
            "products": row.products,
            "theta_dot": row.theta_dot,
            "theta_norm2": row.theta_norm2,
            "unchanged": row.unchanged,
            "nonfinite": row.nonfinite,
            "flags": self._flags(row, step - span.before),
        }
        if row.decay_products is not None:
            fields |= {"decay_products": row.decay_products, "decay_norm2": row.decay_norm2}
        if row.error_norm2 is not None:
            fields["error_norm2"] = row.error_norm2
        seconds = time.perf_counter() - began
        error: Exception | None = None
        try:
            self._write("row", **fields, seconds=seconds)
        except Exception as caught:
            if self._ranks.size == 1:
                raise
            error = caught  # first do what the other ranks are waiting for
        if self._ranks.size > 1 and watch and self._watch is None:
            self._start_watch(None)
        if self._watch is not None and watch:
            self._look(self._watch, fields)
        if error is not None:
            raise error
        if isinstance(self._ring, SketchRing):
            for note in self._ring.take_notes():
                self._write("event", step=step, **note)
        self._report_nonfinite(row, step)
        self._rows.append((step, self._next_t))
        if self._prober is not None:
            self._probe(self._prober, self._whole_ring(), step)

    def _whole_ring(self) -> UpdateRing:
        assert isinstance(self._ring, UpdateRing)  # probes of a sketch are refused at attaching
        return self._ring

    def _probe(self, prober: Prober, ring: UpdateRing, step: int) -> None:
        """Finish the probe that waits for this update, and make a new one where one is due.

        A probe that fails ends probing, not the recording.
        """
        t = self._rows[-1][1]
        tensors = self._share.tensors()
        due = (step - self._start) % self.settings.probe_every == 0
        try:
            if prober.pending is not None and prober.pending.t == t - 1 and self._ring.n_appended > 1:
                self._write("outcome", **prober.follow_up(ring, tensors, step=step))
            prober.pending = None
            if due and self._ring.n_appended >= self.settings.window:
                fields = prober.measure(ring, tensors, t=t, step=step, n_steps=self.settings.every)
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

        self._watch = watch = Watch(self.settings.window, detectors, self._segment_fields())
        return watch

    def _look(self, watch: Watch, row: Mapping[str, Any]) -> None:
        """Detectors that fail end detection, not the recording. On several ranks those of rank 0 decide."""
        seam = self._ring.n_appended == 1
        noted, events, error = watch.noted, None, None
        if self._ranks.rank == 0:
            try:
                events = watch.push(row, seam=seam)
            except Exception as caught:
                error = caught
        if self._ranks.size > 1:
            noted, events = self._ranks.first((noted, events))
            if self._ranks.rank != 0 and events is not None:  # to be in the state that rank 0 is in
                watch.note(noted)
                watch.push(row, seam=seam)
        if events is None:
            self._watch = None
            if error is not None:
                self._stop_looking(error)
            return
        failed: Exception | None = None
        try:
            for event in events:
                self._write("event", **event.to_fields())
        except Exception as caught:
            failed = caught
        watch.tell(events)  # on this rank too, where the disk is full: the others are told as well
        if failed is not None:
            raise failed

    def _stop_looking(self, error: Exception) -> None:
        self._watch = None
        if self.settings.on_error == "raise":
            raise error
        _warn(f"spectraledge stopped looking for events at step {self.step}; training and recording go on", error)

    def _flags(self, row: Row, n_steps: int) -> list[str]:
        flags = []
        if row.nonfinite.any() or np.isnan(row.products[:, 0]).any():
            flags.append("nonfinite")
        if not row.products[:, 0].any():
            flags.append("zero_update")
        if n_steps != self.settings.every:
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
                if self._ranks.rank == 0:
                    logger.warning("step %d: %d entries of block %s are not finite", step, count, name)
        self._nonfinite = now

    def _restructure(self) -> None:
        del self._ring  # before the next one takes its place in memory
        reason = self._build()
        if self._ranks.rank == 0:
            logger.warning("step %d: the trained parameters changed (%s); a new segment begins", self.step, reason)
        self._lr_sum[:] = 0.0
        self._last_step = self._counter.count
        self._open_segment(reason)

    def _open_segment(self, reason: str) -> None:
        self._segment, self._segment_step = self._n_segments, self._last_step
        self._n_segments += 1
        fields = self._segment_fields()
        self._write("segment", segment=self._segment, step=self._last_step, reason=reason, **fields)
        if self._watch is not None:
            try:
                self._watch.start(fields)
            except DataError as error:
                self._stop_looking(error)

    def _segment_fields(self) -> dict[str, Any]:
        """What the rows of a segment have in common."""
        blocks = self._share.blocks
        return {
            "blocks": list(blocks.names),
            "block_info": self._block_info(),
            "scheme": blocks.scheme,
            "lags": self.settings.lags,
            "update_dtype": self._ring.update_dtype if self._ranks.size == 1 else self._share.update_dtype,
            "parameter_dtypes": list(self._share.dtypes),
            "groups": describe_groups(self._optimizers),
            "momentum": largest_momentum(self._optimizers),
            "every": self.settings.every,
            "n_parameters": blocks.n_parameters,
            "store": self.settings.store,
            "precision": self.settings.precision,
            **({"ranks": self._ranks.size} if self._ranks.size > 1 else {}),
            **({"sketch_size": self._ring.size} if isinstance(self._ring, SketchRing) else {}),
        }

    def _block_info(self) -> list[dict[str, Any]]:
        """Blocks as recorded; those whose tensors share one parameter group say which (index into ``lr_sum``)."""
        out = []
        for info, atoms in zip(self._share.blocks.info(), self._share.blocks.atoms, strict=True):
            groups = {self._share.groups.get(atom.name) for atom in atoms}
            out.append({**info, "group": groups.pop() if len(groups) == 1 else None})
        return out

    def _make_ring(self) -> AnyRing:
        settings, n = self.settings, self._share.local.n_parameters
        size = cost.ring_size(
            n,
            len(self._share.local.names),
            settings.lags,
            decay=settings.decay_products,
            itemsize=self._share.itemsize,
            store=settings.store,
            precision=settings.precision,
            sketch_size=settings.sketch_size,
        )
        cost.check_memory(size.memory, self._device(), n, settings.lags)
        return make_ring(
            self._share.local,
            self._share.tensors(),
            settings.lags,
            decay=settings.decay_products,
            store=settings.store,
            backend=settings.backend,
            precision=settings.precision,
            sketch_size=settings.sketch_size,
            layouts=self._share.layouts,
            folder=settings.folder,
            window=settings.window,
            sketch_check=settings.sketch_check,
        )

    def _device(self) -> torch.device:
        device = next((t.device for t in self._share.tensors().values()), torch.device("cpu"))
        return torch.device("cpu") if self.settings.store != "device" or device.type == "mps" else device

    # resuming

    @property
    def _next_t(self) -> int:
        return self._rows[-1][1] + 1 if self._rows else 0

    def _take_up(self, found: Mapping[str, Any]) -> None:
        """Read off an existing recording what going on behind it needs; nothing is written yet.

        The step may still change, by a state that is loaded after attaching.
        """
        self._rows = list(found["rows"])
        self._found_segments = list(found["segments"])
        self._n_segments = found["n_segments"]
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
            if self._recount():
                self._ring.reset(self._share.tensors())
                self._open_segment("an optimizer state was loaded")
            else:
                self._rewind_to = (self._counter.count, False)
        if self._rewind_to is not None and not self._rewind_to[1]:
            self._ring.reset(self._share.tensors())
            self._last_step = self._rewind_to[0]
            self._lr_sum[:] = 0.0
        self._flush_rewind()

    def _recount(self) -> bool:
        """Take the count of a loaded optimizer state; whether nothing has been recorded yet."""
        self._reloaded = False
        own = self._counter.own_count()
        self._counter.restart(own if own is not None else self._counter.count)
        if self._rows or self._resumed:
            return False
        self._start = self._last_step = self._counter.count
        return True

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
        if last.get("blocks") != list(self._share.blocks.names) or last.get("lags") != self.settings.lags:
            self._open_segment("resumed with other blocks or lags" if self._found_segments else "start")

    # metrics and failures

    def _log(self, step: int, metrics: Mapping[str, float]) -> None:
        self._catch_up()
        if self._reloaded or self._rewind_to is not None:
            self._settle()
        if self._ranks.rank != 0:
            return
        values = {}
        for name, value in metrics.items():
            if is_dtensor(value):
                raise SettingError(
                    f"a metric must be a plain number; {name} is a DTensor, of which a rank may hold a part. "
                    "Log value.full_tensor(), called on every rank."
                )
            try:
                values[name] = float(value.detach() if isinstance(value, torch.Tensor) else value)
            except (TypeError, ValueError, RuntimeError) as error:
                raise SettingError(f"a metric must be a number; {name} is {value!r}. Log its mean.") from error
        self._write("metrics", step=int(step), values=values)
        if self._watch is not None:
            self._watch.note(values)

    def _log_weights(self, step: int, spectra: Mapping[str, Sequence[float]]) -> None:
        self._catch_up()
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
        if self._ranks.size > 1 and not isinstance(error, Parted):
            self._error = self._error or error  # the other ranks hear of it when they meet
            return
        self._end()
        _warn(f"spectraledge stopped monitoring at step {self._counter.count}; training goes on", error)

    def _stop(self, reason: str) -> None:
        """End monitoring on this rank, as on all others."""
        error, self._error = self._error, None
        if self.settings.on_error == "raise":
            raise error or SettingError(f"monitoring must be possible on every rank. {reason}")
        self._end()
        told = (
            f"spectraledge stopped monitoring on all ranks at step {self._counter.count}; training goes on. {reason}"
        )
        if self._ranks.rank == 0:
            warnings.warn(told, RuntimeWarning, stacklevel=2)
        else:
            logger.info("%s", told)

    def _end(self) -> None:
        self._dead = True
        self._counter.remove()


def _told(error: Exception | None) -> str | None:
    return None if error is None else f"{type(error).__name__}: {error}"


def _warn(what: str, error: Exception) -> None:
    warnings.warn(f"{what}. {type(error).__name__}: {error}", RuntimeWarning, stacklevel=3)
