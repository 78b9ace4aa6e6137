"""What stands above the panels: what each run was, what it recorded, when it grokked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..detect.grok import GrokStep, capability_series, grok_steps
from ..errors import DataError
from ..plots.colors import INK
from ..plots.panel import Mark
from ..recording import Recording
from .runs import Run

_NOT_SETTINGS = {
    "segments",
    "block_info",
    "created",
    "package_version",
    "settings",
    "command",
    "experiment",
    "monitor",
}
GROK_MARK = "grok step: first test accuracy ≥ 0.95"


@dataclass(frozen=True)
class Group:
    """Lines of the table of runs: a label and one cell for each run."""

    title: str
    lines: tuple[tuple[str, tuple[str, ...]], ...]
    open: bool = True


def table_groups(runs: Sequence[Run]) -> list[Group]:
    """The table of runs: settings that differ first, then what was recorded, then what is the same."""
    settings = [run_settings(run) for run in runs]
    names = list(dict.fromkeys(name for one in settings for name in one))
    lines = {name: tuple(one.get(name, "—") for one in settings) for name in names}
    differing = tuple((name, cells) for name, cells in lines.items() if len(set(cells)) > 1)
    common = tuple((name, cells) for name, cells in lines.items() if len(set(cells)) == 1)
    groups = [
        Group("Settings that differ", differing),
        Group("Grok step", _columns([grok_lines(run.recording) for run in runs])),
        Group("Recording", _columns([recording_lines(run) for run in runs])),
        Group("Settings" if len(runs) == 1 else "Settings in common", common, open=len(runs) == 1),
    ]
    return [group for group in groups if group.lines]


def run_settings(run: Run) -> dict[str, str]:
    """Everything that is known of how a run was made, as text."""
    meta, config = run.recording.meta, run.config
    table: dict[str, str] = {}
    experiment = config.get("experiment", meta.get("experiment"))
    if experiment is not None:
        table["experiment"] = str(experiment)
    for part in ("settings", "monitor"):
        values = config.get(part, meta.get(part))
        if isinstance(values, Mapping):
            table |= {str(name): _text(value) for name, value in values.items()}
    table |= {name: _text(value) for name, value in meta.items() if name not in _NOT_SETTINGS and name not in table}
    segments = meta.get("segments", [])
    for i, group in enumerate(segments[-1].get("groups") or [] if segments else []):
        if isinstance(group, Mapping):
            words = [
                f"{key} {_text(group[key])}" for key in ("lr", "betas", "momentum", "weight_decay") if key in group
            ]
            table[f"optimizer group {i}"] = ", ".join([str(group.get("class", "")), *words])
    if run.remark:
        table["remark"] = run.remark
    return table


def command(run: Run) -> str:
    """The exact command that made the run; empty where neither config.json nor the header tells."""
    found = run.config.get("command", run.recording.meta.get("command"))
    if isinstance(found, Sequence) and not isinstance(found, str):
        return " ".join(map(str, found))
    return "" if found is None else str(found)


def grok_lines(recording: Recording) -> dict[str, str]:
    """The grok step by every definition, with what limits it."""
    try:
        found = grok_steps(*capability_series(recording.metrics))
    except DataError as error:
        reason = "no test accuracy was logged" if not _has_test(recording) else str(error)
        return {"all definitions": reason}
    return {step.definition.replace(">=", "≥"): _grok_words(step) for step in found}


def grok_marks(recording: Recording) -> tuple[Mark, ...]:
    """The vertical line at the grok step, where there is one."""
    try:
        step = grok_steps(*capability_series(recording.metrics)).first_095.step
    except DataError:
        return ()
    return () if step is None else (Mark(step, GROK_MARK, INK),)


def recording_lines(run: Run) -> dict[str, str]:
    """Sizes, stride, seams and damage."""
    r, s = run.recording, run.recording.summary()
    damage = s["damage"]
    found = [
        f"{damage['corrupt_lines']} corrupt lines" * (damage["corrupt_lines"] > 0),
        f"{damage['lost_rows']} lost rows" * (damage["lost_rows"] > 0),
        f"{damage['rejected_records']} rejected records" * (damage["rejected_records"] > 0),
        "torn tail" * damage["torn_tail"],
        "header lost" * damage["header_lost"],
    ]
    every = s["steps_per_update"]
    uneven = f", {s['uneven_updates']} of other length" if s["uneven_updates"] else ""
    seams = ", ".join(f"{step:,}" for step in r.steps[r.seams][:8]) + (", …" if len(r.seams) > 8 else "")
    return {
        "updates n": f"{s['n_updates']:,}",
        "steps": f"{s['first_step']:,} to {s['last_step']:,}" if s["n_updates"] else "none",
        "steps per update": "—" if every is None else f"{every:,}{uneven}",
        "parameters": f"{s['n_parameters']:,}" if s["n_parameters"] else "unknown",
        "blocks": f"{len([name for name in r.blocks if name != 'all']) or len(r.blocks)}",
        "lags L": f"{s['lags']} (windows up to {s['largest_window']})",
        "momentum": "none" if not s["momentum"] else f"{s['momentum']:g}",
        "seams": f"{s['seams']} (before the updates to {seams})" if s["seams"] else "0",
        "damage": "; ".join(part for part in found if part) or "none",
        "ended in order": "yes" if s["closed"] else "no: still running, or killed",
        "recorded": f"{_when(s['created'])}, by version {r.meta.get('package_version') or 'unknown'}",
    }


def _columns(columns: Sequence[Mapping[str, str]]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    names = list(dict.fromkeys(name for column in columns for name in column))
    return tuple((name, tuple(column.get(name, "—") for column in columns)) for name in names)


def _grok_words(step: GrokStep) -> str:
    if step.step is None:
        return f"not by step {step.last_step:,}"
    if step.interval is None:
        return f"{step.step:,.0f} or before: the first evaluations"
    sign = "±" if step.definition.startswith("steepest") else "−"
    return f"{step.step:,.0f} {sign} {step.interval:,.0f}"


def _when(created: object) -> str:
    """A time stamp to the minute.

    >>> _when("2026-11-24T04:12:22+00:00")
    '2026-11-24 04:12 UTC'
    """
    text = str(created or "at an unknown time")
    return f"{text[:10]} {text[11:16]} UTC" if text.endswith("+00:00") else text


def _has_test(recording: Recording) -> bool:
    return any(name.startswith("test") and "loss" not in name for name in recording.metrics)


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "none"
    if isinstance(value, float):
        return f"{value:g}" if np.isfinite(value) else str(value)
    if isinstance(value, list | tuple):
        return ", ".join(map(_text, value))
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {_text(one)}" for name, one in value.items())
    return str(value)
