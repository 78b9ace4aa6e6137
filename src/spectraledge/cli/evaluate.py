"""The command ``evaluate``: which signal announces grokking, at which false-alarm rate."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ..errors import DataError, SettingError
from . import options as o
from .progress import Progress
from .render import print_json, print_line, print_table, rate, two

if TYPE_CHECKING:
    from ..detect.evaluation import Area, Evaluation, SignalResult
    from ..detect.leads import OperatingRow
    from ..detect.subjects import Subject
    from ..predictions.runs import Run


def evaluate(
    runs: Annotated[list[str], typer.Argument(help="Run folders, or folders above them.")],
    event: Annotated[str, typer.Option(help="What is announced: grok95, grok98x3, grok90 or half.")] = "grok95",
    train_seeds: Annotated[
        str, typer.Option(help="Seeds to learn sides and thresholds on, such as 42 or 42,137; or 'each'.")
    ] = "42",
    window: o.Window = 10,
    draws: Annotated[int, typer.Option(help="Resamples of runs behind intervals.")] = 2000,
    seed: Annotated[int, typer.Option(help="Of the resamples.")] = 0,
    json: o.Json = False,
) -> None:
    """Rank detectors, published rules and cheap baselines by how well they tell runs that will grok from others."""
    from ..detect.evaluate import evaluate as judge
    from ..predictions.runs import find_runs

    seeds = _seeds(train_seeds)
    with Progress("runs") as progress:
        subjects, left_out = subjects_of(find_runs(runs), event)
        found = judge(subjects, train_seeds=seeds, window=window, n_boot=draws, seed=seed, progress=progress.update)
    if json:
        print_json({"event": event, **found.as_dict(), "left_out": left_out})
    else:
        print_evaluation(found, event, left_out)


def subjects_of(runs: Sequence[Run], event: str = "grok95") -> tuple[list[Subject], dict[str, str]]:
    """Runs as subjects, and the reason for each one that is left out.

    A placebo has no event, whatever its accuracy on labels drawn at random. A run that is not over and has not had
    the event yet may still have it, and is neither.

    Args:
        runs: As found.
        event: A key of ``detect.subjects.EVENTS``.

    Raises:
        SettingError: For another event.
    """
    from ..detect.subjects import Subject, event_step

    subjects, left_out = [], {}
    for run in runs:
        try:
            step = event_step(run.recording, event)
        except DataError:
            left_out[run.name] = "no test accuracy was logged"
            continue
        if run.arm == "placebo":
            step = None
        if not run.recording.n_updates:
            left_out[run.name] = "nothing was recorded"
        elif step is not None and step > run.recording.steps[-1]:
            left_out[run.name] = "the event comes after the last update"
        elif step is None and not run.recording.closed:
            left_out[run.name] = "not over, and without the event so far"
        else:
            group = (run.experiment or "event") if step is not None else _group(run)
            subjects.append(Subject(run.name, run.recording, group, step, run.seed))
    return subjects, left_out


def _group(run: Run) -> str:
    return {"placebo": "placebo", "no-decay": "no decay", "decay": "never grokking"}.get(run.arm, "no event")


def _seeds(text: str) -> list[int] | Literal["each"]:
    if text.strip() == "each":
        return "each"
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise SettingError(
            f"--train-seeds must be seeds such as 42 or 42,137, or 'each'; got {text!r}. Name seeds of your runs."
        ) from None


def print_evaluation(found: Evaluation, event: str, left_out: dict[str, str]) -> None:
    """The findings, the tables behind them, and what is not in them."""
    for sentence in found.sentences:
        print_line(sentence)
    held = "in sample" if found.split.kind == "in sample" else "held out"
    print_table(
        [_auc_row(signal, found) for signal in found.signals],
        f"AUC at matched time, event {event}, {held}; 95 % intervals over runs",
    )
    print_table(
        [_group_row(signal) for signal in found.signals], f"AUC against each group of runs without the event, {held}"
    )
    print_table(
        [_alarm_row(signal, row) for signal in found.signals for row in signal.operating if row.label != "10 %"],
        f"Alarms, {held}: thresholds for 5 % of false alarms in training, and those that signals come with",
    )
    if any(_differ(signal) for signal in found.signals):
        print_line("thresholds for 10 % are other ones for some signals: --json has them")
    for name, reason in found.unavailable.items():
        print_line(f"not available: {name} ({reason})")
    for name, reason in left_out.items():
        print_line(f"left out: {name} ({reason})")


def _auc_row(signal: SignalResult, found: Evaluation) -> dict[str, Any]:
    row: dict[str, Any] = {
        "signal": signal.name,
        "kind": "outcome" if signal.outcome else signal.kind,
        "side": signal.direction,
        "train": two(signal.train_auc),
        "AUC": _area(signal.auc),
    }
    for before, area in signal.auc_before.items():
        row[f"-{before * found.interval:g}"] = _area(area) if before == 1 else two(area.value)
    return row


def _group_row(signal: SignalResult) -> dict[str, Any]:
    return {"signal": signal.name} | {group: _area(area) for group, area in signal.auc_by_group.items()}


def _alarm_row(signal: SignalResult, row: OperatingRow) -> dict[str, Any]:
    t, lead = row.table, row.lead
    return {
        "signal": signal.name,
        "threshold": row.label,
        "sensitivity": rate(t.hits, t.n_positive, t.sensitivity_interval),
        "false alarms": rate(t.false_alarms, t.n_negative, t.false_alarm_interval),
        "median lead": f"{_whole(lead.median)} ({_whole(lead.low)} to {_whole(lead.high)})",
        "closer than clock": f"{_whole(signal.timing.gain)} steps" if row.label == "5 %" else "",
    }


def _differ(signal: SignalResult) -> bool:
    """Whether the two tuned thresholds are different ones; with fewer than ten training runs they are the same."""
    tuned = [row.thresholds for row in signal.operating if row.label != "fixed"]
    return len(set(tuned)) > 1


def _whole(x: float) -> str:
    return f"{x:.0f}" if math.isfinite(x) else "?"


def _area(area: Area) -> str:
    if math.isnan(area.low):
        return two(area.value)  # too few runs for an interval
    return f"{two(area.value)} ({two(area.low)}-{two(area.high)})"
