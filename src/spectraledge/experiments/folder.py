"""The folder of a catalogued run: what started it, and whether it may be started, resumed or replaced."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from ..errors import OutputError, SettingError
from .files import read_json

RECORDING = "recording.jsonl"
CONFIG = "config.json"
ENVIRONMENT = "environment.json"
FINISHED = "finished.json"
CHECKPOINTS = "checkpoints"


def check_folder(out: Path, config: dict[str, Any], *, resume: bool, overwrite: bool) -> bool:
    """Whether there is a run of this configuration to go on with.

    Args:
        out: The run's folder; need not exist.
        config: What this call would write to ``config.json``.
        resume: Go on with what is there.
        overwrite: Replace what is there.

    Returns:
        True where ``out`` holds a run of the same configuration and ``resume`` is asked for.

    Raises:
        SettingError: If both are asked for, or the configurations differ (all differing keys are named).
        OutputError: If a recording is there and neither is asked for, or it was not made by a catalogued run.
    """
    if resume and overwrite:
        raise SettingError("resume and overwrite must not both be asked for; got both. Choose one of them.")
    if overwrite or not (out / RECORDING).exists():
        return False
    if not resume:
        raise OutputError(
            f"{out} must not hold a recording yet; got one. Use resume=True (--resume) to go on with it, "
            "overwrite=True (--overwrite) to replace it, or another out."
        )
    if not (out / CONFIG).exists():
        raise OutputError(
            f"{out} must hold {CONFIG} to be resumed; got a recording without it. "
            "Use overwrite=True (--overwrite) or another out."
        )
    differing = differences(read_json(out / CONFIG), config)
    if differing:
        raise SettingError(
            f"a resumed run must keep its settings; got other values of {', '.join(differing)}. "
            f"Give those of {out / CONFIG}, or start in another folder."
        )
    return True


def differences(there: dict[str, Any], here: dict[str, Any]) -> list[str]:
    """Keys whose values differ between two configurations, as ``key (there, here)``.

    What does not change the run (the command's spelling, the package's version) is not compared.
    """
    before, now = _flat(there), _flat(here)
    return [
        f"{key.rpartition('.')[2]} ({before.get(key, 'not there')} there, {now.get(key, 'not there')} here)"
        for key in sorted(before.keys() | now.keys())
        if before.get(key, ...) != now.get(key, ...)
    ]


def clear(out: Path) -> None:
    """Remove what an earlier run left besides its recording, which its writer replaces."""
    (out / FINISHED).unlink(missing_ok=True)
    shutil.rmtree(out / CHECKPOINTS, ignore_errors=True)


def _flat(config: dict[str, Any]) -> dict[str, Any]:
    table = {"experiment": config.get("experiment")}
    for part in ("settings", "monitor", "probe"):
        table |= {f"{part}.{key}": value for key, value in (config.get(part) or {}).items()}
    return table
