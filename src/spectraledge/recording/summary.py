"""What a recording holds, in plain types for people and for JSON."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from .recording import Recording


def summarise(recording: Recording) -> dict[str, Any]:
    """See ``Recording.summary``."""
    r, report = recording, recording.report
    segments = r.meta.get("segments", [])
    every = np.unique(r.n_steps, return_counts=True)
    latest = r.products[-1, 0, 0] if r.n_updates else np.nan
    return {
        "path": None if r.path is None else str(r.path),
        "created": r.meta.get("created"),
        "closed": r.closed,
        "n_updates": r.n_updates,
        "first_step": int(r.steps[0]) if r.n_updates else None,
        "last_step": int(r.steps[-1]) if r.n_updates else None,
        "steps_per_update": int(every[0][np.argmax(every[1])]) if r.n_updates else None,
        "uneven_updates": int(r.n_updates - every[1].max()) if r.n_updates else 0,
        "n_parameters": segments[-1].get("n_parameters") if segments else None,
        "blocks": list(r.blocks),
        "lags": r.lags,
        "largest_window": r.lags + 1,
        "segments": len(segments),
        "seams": len(r.seams),
        "momentum": segments[-1].get("momentum") if segments else None,
        "update_dtype": segments[-1].get("update_dtype") if segments else None,
        "flags": dict(Counter(flag for flags in r.flags for flag in flags)),
        "poisoned_updates": int(np.sum(np.nansum(r.nonfinite, axis=1) > 0)) if r.blocks else 0,
        "last_update_norm": float(np.sqrt(latest)) if np.isfinite(latest) else None,
        "last_theta_norm": _finite(np.sqrt(r.theta_norm2[-1, 0])) if r.n_updates else None,
        "metrics": {
            name: {"n": len(values), "last_step": int(steps[-1]), "last": _finite(values[-1])}
            for name, (steps, values) in r.metrics.items()
        },
        "events": len(r.events),
        "damage": {
            "corrupt_lines": report.n_corrupt,
            "torn_tail": report.torn_tail,
            "lost_rows": report.n_lost_rows,
            "rejected_records": report.n_rejected,
            "header_lost": report.header_lost,
        },
        "meta": {
            name: value
            for name, value in r.meta.items()
            if name not in ("segments", "block_info", "created", "package_version")
        },
    }


def _finite(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None
