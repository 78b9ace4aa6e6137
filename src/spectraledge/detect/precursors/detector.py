"""Grokking ahead: a frozen rule on a run that goes on, one update after the other."""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Iterable, Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np

from ...errors import DataError, SettingError
from ...recording import Recording
from ...recording.event import Event
from ..detectors import GROKKING
from ..plain import from_plain, to_plain
from .combination import Reading
from .frozen import Frozen, FrozenRule
from .history import History, block_parts
from .rules import FORM_WORDS, MOVING, SILENT, Form
from .statistics import STATISTICS

KIND = "grokking ahead"
_VERSION = 1
_BY_BLOCK = ("products", "theta_dot", "theta_norm2")


class GrokkingDetector:
    """Says that a run is about to generalise, from its updates alone.

    ``detector.extend(monitor.recording)``, then ``monitor.on_record(detector.hear)``: the callback is told while
    training goes on. ``find_grokking`` reports the same events of a finished recording.

    A rule made on networks that grok and networks that cannot (``Frozen``) is applied to each row as it
    comes. Its threshold is that of those networks: a rise or fall is read against the run's own past, which takes the
    scale of parameters and updates out of it, and nothing else. One event a run: the rule is not armed again before a
    seam, after which the past is forgotten and the burn-in starts anew. The horizon of the protocol, which ends where
    comparisons end, is not applied.

    Args:
        frozen: Rules.
        name: Of one of them; the winner where None.
        callback: Called with every event.

    Raises:
        SettingError: If there is no such rule, or it reads metrics, which rows do not hold.
    """

    def __init__(
        self, frozen: Frozen, name: str | None = None, callback: Callable[[Event], object] | None = None
    ) -> None:
        name = frozen.winner if name is None else name
        if name not in frozen.rules:
            raise SettingError(f"rule must be one of {', '.join(frozen.rules)}; got {name!r}. Choose one of them.")
        self.name, self.judging, self._callback = name, frozen.judging, callback
        self._rule: FrozenRule = frozen.rules[name]
        hazard = self._rule.hazard
        self._readings: tuple[Reading, ...] = (
            hazard.readings if hazard is not None else ((self._rule.rule.statistic, self._rule.rule.form),)
        )
        for statistic, form in self._readings:
            if not STATISTICS[statistic].updates_alone or form in ("above", "below"):
                raise SettingError(
                    f"a rule for running detection must read updates alone; {statistic} ({form}) reads metrics. "
                    "Choose a rule that compares a run with its own past."
                )
        self._segment: dict[str, Any] | None = None
        self._columns: dict[str, list[int]] = {}
        self._forget()

    def _forget(self) -> None:
        self._rows: list[dict[str, np.ndarray]] = []
        self._n = 0
        self._extremes = np.full(len(self._readings), np.nan)
        self._movements: list[list[float]] = [[] for _ in self._readings]  # in order of size
        self._last: list[float] = []
        self._fired = False

    def start(self, segment: Mapping[str, Any]) -> None:
        """The structure of the rows to come: the fields of a record of kind "segment".

        The past is forgotten if blocks or lags are others than before.

        Raises:
            DataError: If blocks do not tell a part apart that the rule reads, or there are too few lags.
        """
        blocks, lags = list(segment["blocks"]), int(segment["lags"])
        if lags < self.judging.window - 1:
            raise DataError(
                f"rows must hold products with the last {self.judging.window - 1} updates; got {lags}. "
                f"Record with window={self.judging.window} or more."
            )
        columns = self._find_parts(blocks, segment.get("block_info") or ())
        before = self._segment
        if before is None or (self._columns, list(before["blocks"]), int(before["lags"])) != (columns, blocks, lags):
            self._forget()
        self._columns = columns
        self._segment = {key: segment.get(key) for key in ("blocks", "block_info", "lags", "groups")}

    def hear(self, kind: str, fields: Mapping[str, Any]) -> None:
        """For ``monitor.on_record(detector.hear)``: takes every record, uses "segment", "row" and "rewind".

        The blocks are told before there is anyone to hear: ``detector.extend(monitor.recording)`` first. A run that
        goes back to an earlier step is met as after a seam.
        """
        if kind == "segment":
            self.start(fields)
        elif kind == "rewind":
            self._forget()
        elif kind == "row":
            self.push(fields)

    def push(self, row: Mapping[str, Any]) -> list[Event]:
        """The event that this row completes, if any.

        Args:
            row: The fields of a record of kind "row": ``step``, ``n_steps``, ``products`` (B, L+1), ``theta_dot``
                (B), ``theta_norm2`` (B), ``lr_sum`` (G), ``flags``.

        Raises:
            DataError: If no segment came before.
        """
        if self._segment is None:
            raise DataError(
                "a detector must know the blocks before it sees a row; no segment came yet. Call start(segment) "
                "or extend(monitor.recording) first."
            )
        if "seam" in row.get("flags", ()):
            self._forget()
        if self._fired:
            return []
        self._rows.append(self._by_part(row))
        # What the statistics of the last row look back on: W rows, each with up to L lags of rows with L lags.
        kept = self.judging.window + 2 * int(self._segment["lags"]) + 2
        del self._rows[:-kept]
        self._n += 1
        step = int(row["step"])
        value = self._value()
        if self._n > self.judging.burn_in:
            self._last = [*self._last, SILENT if np.isnan(value) else value][-self.judging.sustain :]
        lowest = min(self._last) if len(self._last) == self.judging.sustain else SILENT
        if not lowest >= self._rule.rule.threshold:
            return []
        self._forget()  # nothing of the past is asked for again
        self._fired = True
        event = self._event(step, lowest)
        if self._callback is not None:
            self._callback(event)
        return [event]

    def extend(self, recording: Recording) -> list[Event]:
        """The events of all rows of a recording, which may have none yet; rows pushed later go on from there.

        Raises:
            DataError: As ``start``.
        """
        segments = recording.meta.get("segments") or [{}]
        seams = {int(t) for t in recording.seams}
        events: list[Event] = []
        now = -1
        columns: list[int] = []
        for t in range(recording.n_updates):
            if recording.segment[t] != now:
                now = int(recording.segment[t])
                blocks = list(segments[now].get("blocks") or recording.blocks[len(recording.blocks) > 1 :])
                columns = [recording.blocks.index(block) for block in blocks]
                info = [recording.block_info[block] for block in blocks if block in recording.block_info]
                self.start({**segments[now], "blocks": blocks, "block_info": info, "lags": recording.lags})
            row = {key: getattr(recording, key)[t, columns] for key in _BY_BLOCK}
            row |= {key: getattr(recording, key)[t] for key in ("n_steps", "lr_sum")}
            events += self.push(row | {"step": recording.steps[t], "flags": ["seam"] if t in seams else []})
        if now < len(segments) - 1:  # no row of the last one yet
            self.start(segments[-1])
        return events

    def state(self) -> dict[str, Any]:
        """All that is remembered, JSON-able: a detector that loads it goes on as if it had never stopped."""
        return {
            "version": _VERSION,
            "rule": self.name,
            "segment": self._segment,
            "rows": [{key: to_plain(np.atleast_1d(x)) for key, x in row.items()} for row in self._rows],
            "n": self._n,
            "extremes": to_plain(self._extremes),
            "movements": [to_plain(np.array(past)) for past in self._movements],
            "last": [None if x == SILENT else x for x in self._last],
            "fired": self._fired,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from where ``state()`` was taken.

        Raises:
            DataError: If it was saved by a detector of another rule or version.
        """
        if state.get("version") != _VERSION or state.get("rule") != self.name:
            raise DataError(
                f"a state must be of version {_VERSION} and rule {self.name!r}; got version {state.get('version')} "
                f"and rule {state.get('rule')!r}. Make the detector as it was when it was saved."
            )
        self._forget()
        self._segment = None
        if state["segment"] is not None:
            self.start(state["segment"])
        self._rows = [
            {
                key: np.array(x, dtype=np.float64).reshape(() if key == "n_steps" else np.shape(x))
                for key, x in row.items()
            }
            for row in state["rows"]
        ]
        self._n, self._fired = int(state["n"]), bool(state["fired"])
        self._extremes = from_plain(state["extremes"])
        self._movements = [from_plain(past).tolist() for past in state["movements"]]
        self._last = [SILENT if x is None else float(x) for x in state["last"]]

    def _by_part(self, row: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """What is kept of a row: the sums of the parts that the rule reads, so that many blocks cost nothing."""
        kept = {key: np.array(row[key], dtype=np.float64) for key in ("lr_sum", "n_steps")}
        for key in _BY_BLOCK:
            values = np.asarray(row[key], dtype=np.float64)
            kept[key] = np.stack([values[columns].sum(axis=0) for columns in self._columns.values()])
        return kept

    def _find_parts(self, blocks: list[str], info: Iterable[Mapping[str, Any]]) -> dict[str, list[int]]:
        """Blocks of each part that the rule reads, "all" first."""
        found = block_parts(blocks, {entry["name"]: entry for entry in info}) | {"all": list(range(len(blocks)))}
        parts = dict.fromkeys(STATISTICS[name].part for name, _ in self._readings)
        missing = [part for part in parts if part not in found]
        if missing:
            raise DataError(
                f"blocks must tell the {missing[0]} apart, which {self.name!r} reads; got {', '.join(blocks)}. "
                f'Record with blocks="layer", or name one: blocks={{"{missing[0]}": PATTERN}}.'
            )
        return {part: found[part] for part in ("all", *(part for part in parts if part != "all"))}

    def _value(self) -> float:
        """The directed value of the last row."""
        history = History(self._recording(), self.judging.window)
        values = np.full(len(self._readings), np.nan)
        for i, (name, form) in enumerate(self._readings):
            series = STATISTICS[name].compute(history)
            assert series is not None  # the parts are there
            now = float(series[-1]) if np.isfinite(series[-1]) else np.nan
            values[i] = self._directed(i, now if self._moves(i, history) else np.nan, form, STATISTICS[name].signed)
        hazard = self._rule.hazard
        return float(values[0] if hazard is None else hazard.score(values[None])[0])

    def _moves(self, i: int, history: History) -> bool:
        """Whether the part moves as it uses to, where the form of a reading asks for that."""
        name, form = self._readings[i]
        part = history.part(STATISTICS[name].part)
        if not form.startswith("moving") or part is None:
            return True
        if self._n <= self.judging.start:
            return False
        now, past = float(part.movement[-1]), self._movements[i]
        if not np.isfinite(now):
            return False
        insort(past, now)
        # As ``usual_movement``, without going through the whole past.
        middle = (past[(len(past) - 1) // 2] + past[len(past) // 2]) / 2
        return bool(now >= MOVING * middle)

    def _directed(self, i: int, value: float, form: Form, signed: bool) -> float:
        if form in ("high", "low"):
            return value if form == "high" else -value
        with np.errstate(invalid="ignore", divide="ignore"):
            x = value if signed else float(np.log(value if value > 0 else np.nan))
        if self._n <= self.judging.start:
            return float("nan")
        rises = form.endswith("rise")
        self._extremes[i] = (np.fmin if rises else np.fmax)(self._extremes[i], x)
        return float(x - self._extremes[i] if rises else self._extremes[i] - x)

    def _recording(self) -> Any:
        """The rows kept, as much of a recording as statistics of updates read."""
        parts = list(self._columns)
        found = {key: np.stack([row[key] for row in self._rows]) for key in (*_BY_BLOCK, "lr_sum", "n_steps")}
        n = len(self._rows)
        return SimpleNamespace(
            **found,
            blocks=parts,
            block_info={part: {"kind": part} for part in parts},
            n_updates=n,
            steps=np.arange(n),
            segment=np.zeros(n, dtype=np.int64),
            meta={"segments": [self._segment]},
            metrics={},
        )

    def _event(self, step: int, value: float) -> Event:
        if self._rule.hazard is not None:
            words = f"{self._rule.rule.statistic}: log odds"
        else:
            words = f"{self._rule.rule.statistic}: {FORM_WORDS[self._rule.rule.form]}"
        return Event(
            step=step,
            block="all",
            kind=KIND,
            value=value,
            threshold=self._rule.rule.threshold,
            detector=GROKKING,
            detail=f"{words}, {self.judging.sustain} snapshots in a row.",
        )


def find_grokking(recording: Recording, frozen: Frozen, name: str | None = None) -> list[Event]:
    """Events of a recording: exactly those that a ``GrokkingDetector`` would have reported while it was made.

    Args:
        recording: By block.
        frozen: Rules.
        name: Of one of them; the winner where None.

    Raises:
        SettingError: If the rule cannot run on updates alone.
        DataError: If blocks do not tell the part apart that it reads.
    """
    return GrokkingDetector(frozen, name).extend(recording)
