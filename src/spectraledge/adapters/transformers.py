"""``SpectralEdgeCallback``: a monitor that the Hugging Face Trainer starts, saves, resumes and stops.

Checked against transformers 5.24. Around a step its order is: ``on_pre_optimizer_step``, ``optimizer.step()`` (here
the monitor takes its snapshot, by a hook of the optimizer), ``on_optimizer_step``, scheduler, ``zero_grad``,
``global_step += 1``, ``on_step_end``, ``on_log``, evaluation, saving, ``on_save``. Lifecycle alone is taken from it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ..errors import SettingError, require
from ..recording import Event
from ..stream.steps import optimizer_steps, unwrap
from .accelerate import check_name
from .common import LateMonitor, Monitored, sidecar

require("transformers", "transformers")
from transformers.trainer_callback import (  # noqa: E402
    ExportableState,
    TrainerCallback,
    TrainerControl,
    TrainerState,
)
from transformers.training_args import TrainingArguments  # noqa: E402

StopOn = str | Sequence[str] | Callable[[Event], bool]
_SMALL = ("run_id", "step", "last_step", "t", "segment", "n_appended", "lr_sum")  # of the state, into a JSON file


class SpectralEdgeCallback(Monitored, TrainerCallback, ExportableState):
    """Record the products of parameter updates while ``transformers.Trainer`` trains.

    The monitor is attached when training begins, to the optimizer inside the Trainer's wrapper, and detached when it
    ends; evaluation and prediction are not touched. ``train()`` called again goes on in the same recording with a
    marked seam if the optimizer is still the same, at its step.

    Steps are the optimizer's own. The Trainer's ``global_step``, and with it the N of ``checkpoint-N``, also counts
    steps that a gradient scaler skipped.

    Checkpoints: ``trainer_state.json`` says where the recording was. ``trainer.train(resume_from_checkpoint=...)``
    rewinds the recording in ``out`` to there, whatever ``resume`` says, and goes on: bit for bit with
    ``save_ring=True``, else behind a marked seam, which no window crosses. The ring is found again in the checkpoint
    under ``output_dir``, at its old place, or in ``TrainingArguments(resume_from_checkpoint=...)``. It is deleted
    with its checkpoint. Pushes to the hub are begun before it is written, and may miss it.

    The Trainer tells callbacks of no exception. After one the recording is readable but still open, until
    ``detach()`` or the next ``train()``.

    With ``restore_callback_states_from_checkpoint=True`` the Trainer replaces this object by another one, made from
    what JSON can hold; ``trainer.callback_handler.callbacks`` has it. Callables and probes do not survive that.

    Args:
        log_metrics: Record the numbers that the Trainer logs ("loss", "grad_norm", "eval_loss", ...) at the
            optimizer's step, under the names in its logs. The Trainer's trackers put "train/" before every name that
            does not begin with "eval_" or "test_": ``trainer.log({"spectral_edge/gap_ratio": ...})`` becomes
            "train/spectral_edge/gap_ratio" there.
        save_ring: Also write the ring into each checkpoint, ``checkpoint-N/spectral_edge/<name>.safetensors``:
            ``lags + 1`` times the parameters, with the default window 20 times the weights. Not with several
            processes: there a resumed recording has a seam.
        name: Of that file; two callbacks of one Trainer need two names.
        stop_on: End training, with a checkpoint, at an event: name or names out of
            ``spectraledge.detect.events.DETECTORS``, or a function of the event that says whether to.
        on_event: Called with every ``spectraledge.Event``; starts the detectors.
        **keywords: Those of ``spectraledge.attach``: ``window``, ``every``, ``out``, ``blocks``, ...

    Attributes:
        log_metrics: As given.
        save_ring: As given.
        name: As given.

    Raises:
        SettingError: If a keyword cannot be. ``train()`` raises ``SettingError`` and ``OutputError`` as ``attach``
            does, before the first step; from then on the Trainer is never stopped (``on_error="disable"``).

    Example:
        >>> callback = SpectralEdgeCallback(window=10, every=20, save_ring=True)
        >>> # Trainer(model, args, train_dataset=..., callbacks=[callback]).train()
        >>> # callback.recording.spectra(window=10)
    """

    def __init__(
        self,
        *,
        log_metrics: bool = True,
        save_ring: bool = False,
        name: str = "monitor",
        stop_on: StopOn | None = None,
        on_event: Callable[[Event], object] | None = None,
        **keywords: Any,
    ) -> None:
        check_name(name)
        self.log_metrics, self.save_ring, self.name = bool(log_metrics), bool(save_ring), name
        self._arguments = {"log_metrics": self.log_metrics, "save_ring": self.save_ring, "name": name, **keywords}
        self._arguments |= {k: v for k, v in (("stop_on", stop_on), ("on_event", on_event)) if v is not None}
        self._stop_on = _stop_rule(stop_on)
        self._stop = False
        self._on_event = on_event
        if stop_on is not None and not callable(stop_on):
            keywords["events"] = _with(keywords.get("events", False), _names(stop_on), on_event is not None)
        wants_events = on_event is not None or stop_on is not None
        if on_event is not None and not callable(on_event):
            raise SettingError(f"on_event must be callable with an event; got {on_event!r}.")
        self._late = LateMonitor(on_event=self._see if wants_events else None, **keywords)
        self._lost: list[str] = []
        self._optimizer: torch.optim.Optimizer | None = None
        self._trainer_state: TrainerState | None = None
        self._output_dir = ""

    def detach(self) -> None:
        """Close the recording, where training ended in an exception. Safe to call at any time."""
        self._late.detach()

    # what the Trainer calls

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Attach: the optimizer exists and what is resumed has been loaded."""
        model, optimizer = kwargs["model"], kwargs["optimizer"]
        key = type(self).__name__
        entries: Any = state.stateful_callbacks  # declared as a list, yet always a mapping by now
        if self._lost:
            self._tell_lost()
        if state.global_step == 0:
            self._check_names(entries.get(key))
            saved = self._going_on(optimizer)
        else:
            saved = self._resumed(args, state, entries.get(key))
        # In a state of before this callback was added the Trainer would miss its key, and fail to save.
        entries.setdefault(key, {})
        self._late.attach(model, optimizer, state=saved, step=state.global_step)
        self._optimizer, self._trainer_state = unwrap(optimizer), state
        self._output_dir = args.output_dir or ""
        self._stop = False

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Stop where an event in this step said so."""
        if self._stop:
            self._stop = False
            control.should_training_stop = control.should_save = True

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Record what is logged."""
        if self.log_metrics and logs:
            with self._late.forgiving("did not record what was logged"):
                self._late.log(logs)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Put the ring into the checkpoint that was just written."""
        folder = Path(args.output_dir or "") / f"checkpoint-{state.global_step}"
        if not args.should_save or not folder.is_dir():  # trials of a search are saved elsewhere
            return
        with self._late.forgiving("did not save its ring; a recording resumed from here will have a seam"):
            sidecar(folder, self.name).unlink(missing_ok=True)  # of an earlier training
            if self.save_ring and self._late.running and args.world_size == 1:
                self._late.save(folder, name=self.name)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Close the recording."""
        self._late.detach()

    def state(self) -> dict[str, Any]:
        """What goes into ``trainer_state.json``: the keywords that JSON can hold, and where the recording is."""
        args = {name: os.fspath(v) if isinstance(v, os.PathLike) else v for name, v in self._arguments.items()}
        lost = [name for name, value in args.items() if not _json(value)]
        small = {key: value for key, value in self._late.state().items() if key in _SMALL}
        if small and self._trainer_state is not None:
            folder = Path(self._output_dir) / f"checkpoint-{self._trainer_state.global_step}"
            small["folder"] = os.fspath(folder)
        return {
            "args": {name: value for name, value in args.items() if name not in lost},
            "attributes": {"_lost": lost, "saved": small},
        }

    # where to go on

    def _going_on(self, optimizer: Any) -> dict[str, Any] | None:
        """State of a monitor of before, if this optimizer has made no step since."""
        inner = unwrap(optimizer)
        if self._late.monitor is None or inner is not self._optimizer:
            return None
        state = self._late.state()
        return state if state and optimizer_steps(inner) in (None, state["step"]) else None

    def _resumed(self, args: TrainingArguments, state: TrainerState, entries: Any) -> dict[str, Any] | None:
        """State that belongs to the checkpoint which the Trainer has loaded, with its ring if there is one."""
        with self._late.forgiving("could not tell from trainer_state.json where its recording was; a seam is marked"):
            saved = self._entry(entries)
            if not saved:
                return None
            folder = f"checkpoint-{state.global_step}"
            places = [args.resume_from_checkpoint, Path(args.output_dir or "") / folder, saved.get("folder")]
            for place in places:
                found = self._late.load(place, name=self.name) if isinstance(place, (str, Path)) else None
                # a checkpoint of the same step may be another run's
                if found is not None and all(found.get(key) == saved.get(key) for key in ("run_id", "step", "t")):
                    return found
            return saved
        return None

    def _entry(self, entries: Any) -> dict[str, Any]:
        """The newest that this callback saved: with several of one class the Trainer appends to a list."""
        for entry in reversed(entries if isinstance(entries, list) else [entries or {}]):
            if entry.get("args", {}).get("name") == self.name:
                return dict(entry["attributes"]["saved"])
        return {}

    def _check_names(self, entries: Any) -> None:
        names = [entry["args"].get("name") for entry in entries if entry] if isinstance(entries, list) else []
        if len(set(names)) < len(names):
            raise SettingError(
                f"callbacks of one Trainer must have different names; got {', '.join(map(str, names))}. "
                'Pass name="second" to one.'
            )

    def _tell_lost(self) -> None:
        with self._late.forgiving("goes on without some of its settings"):
            raise SettingError(
                "what the Trainer restores must be held by JSON; "
                f"{', '.join(self._lost)} cannot. Leave restore_callback_states_from_checkpoint off."
            )

    def _see(self, event: Event) -> None:
        if self._stop_on(event):
            self._stop = True
        if self._on_event is not None:
            self._on_event(event)


def _names(stop_on: Any) -> list[str]:
    return [stop_on] if isinstance(stop_on, str) else list(stop_on)


def _stop_rule(stop_on: StopOn | None) -> Callable[[Event], bool]:
    if stop_on is None:
        return lambda event: False
    if callable(stop_on):
        return stop_on
    names, known = _names(stop_on), _known()
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        raise SettingError(
            f"stop_on must name detectors ({', '.join(known)}) or be a function of an event; got {stop_on!r}."
        )
    return lambda event: event.detector in names


def _known() -> list[str]:
    from ..detect.detectors import DETECTORS, GROKKING  # only those who stop on events need them

    return [*DETECTORS, GROKKING]


def _with(events: bool | Sequence[str], names: Sequence[str], all_heard: bool) -> bool | list[str]:
    """Detectors to start: those asked for, those of changes where all are listened to, and ``names``."""
    of_changes = _known()[:-1]
    if events is True or (events is False and all_heard):
        return True if set(names) <= set(of_changes) else [*of_changes, *names]
    return sorted({*(events or ()), *names})


def _json(value: Any) -> bool:
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        return False
    return True
