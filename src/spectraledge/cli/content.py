"""What the commands show, as plain dictionaries: the tables for people and ``--json`` are made of the same content.

Works on recordings; knows nothing about torch or terminals.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, get_args

import numpy as np

from ..detect.grok import capability_series, grok_steps
from ..errors import DataError, SettingError
from ..recording import Recording, Spectra
from ..theory.gap_rules import Rule

Content = dict[str, Any]
RULES: tuple[Rule, ...] = get_args(Rule)


def recording_content(
    recording: Recording, *, window: int, stride: int = 1, block: str = "all", rule: str | None = None
) -> Content:
    """A recording and the spectrum of its last complete window.

    Args:
        recording: What is shown.
        window: Rows W.
        stride: Updates in a row.
        block: Block, or pattern of blocks.
        rule: One rule for k*; None shows all.

    Raises:
        DataError: If there is no complete window.
        SettingError: If an argument cannot be.
    """
    return {
        **overview(recording),
        "spectrum": spectrum_content(recording, window=window, stride=stride, block=block, rule=rule),
    }


def overview(recording: Recording) -> Content:
    """What there is: sizes, blocks, metrics, grok steps where a test accuracy was logged, damage."""
    info = recording.block_info
    return {
        "recording": recording.summary(),
        "blocks": [
            {"name": name, **{key: info.get(name, {}).get(key) for key in ("n_parameters", "layer", "kind")}}
            for name in recording.blocks
            if name != "all" or len(recording.blocks) == 1
        ],
        "grok": grok_content(recording),
    }


def grok_content(recording: Recording) -> list[Content] | None:
    """Grok steps by every definition; None where no test accuracy was logged."""
    try:
        found = grok_steps(*capability_series(recording.metrics))
    except DataError:
        return None
    return [dataclasses.asdict(step) for step in found]


def spectrum_content(
    recording: Recording, *, window: int, stride: int = 1, block: str = "all", rule: str | None = None
) -> Content:
    """Singular values of the last complete window and its gap by every rule.

    Raises:
        DataError: If there are too few updates, or seams and losses leave no window whole.
        SettingError: If the window, stride, block or rule cannot be.
    """
    if rule is not None and rule not in RULES:
        raise SettingError(f"rule must be one of {', '.join(RULES)}; got {rule!r}. Leave it out to see all.")
    spectra = recording.spectra(window, stride, block)
    complete = np.flatnonzero(np.isfinite(spectra.singular_values).all(axis=1))
    if not len(complete):
        raise DataError(
            f"at least one window of {window} updates must be whole; seams, lost or non-finite updates cut all "
            f"{len(spectra.steps)} of them. Use a smaller window."
        )
    last = int(complete[-1])
    tail = _tail(spectra, last)
    ratios = tail.ratios[-1]
    return {
        "window": window,
        "stride": stride,
        "block": tail.block,
        "normalisation": tail.normalisation,
        "step": int(tail.steps[-1]),
        "n_windows": len(spectra.steps),
        "incomplete_after": len(spectra.steps) - 1 - last,
        "floor": float(tail.floor[-1]),
        "p_eff": float(tail.p_eff[-1]),
        "participation_ratio": float(tail.participation_ratio[-1]),
        "modes": [
            {
                "j": j + 1,
                "sigma": float(tail.singular_values[-1, j]),
                "ratio": float(ratios[j]) if j < window - 1 else math.nan,
                "resolved": bool(tail.resolved[-1, j]),
            }
            for j in range(window)
        ],
        "gaps": [_gap_content(tail, name) for name in (RULES if rule is None else (rule,))],
    }


def _gap_content(spectra: Spectra, rule: Any) -> Content:
    gap = spectra.gap(rule)
    return {
        "rule": rule,
        "k_star": int(gap.position[-1]),
        "ratio": float(gap.ratio[-1]),
        "p_value": float(gap.p_value[-1]),
        "width": float(gap.width[-1]),
        "eigen_width": float(gap.eigen_width[-1]),
    }


def _tail(spectra: Spectra, last: int) -> Spectra:
    """The windows up to ``last`` that its effective dimension looks at: p-values of a whole run take seconds."""
    first = max(0, last - spectra.window)
    part = slice(first, last + 1)
    per_window = ("steps", "singular_values", "time_profiles", "floor", "resolved", "gram", "row_correlation")
    return dataclasses.replace(
        spectra,
        **{name: getattr(spectra, name)[part] for name in per_window},
        _band=spectra._band[first : last + spectra.window],
    )


def plain(value: Any) -> Any:
    """The same in types of strict JSON: numbers that are not finite become None.

    Example:
        >>> plain({"a": np.float64("nan"), "b": (1, np.int64(2))})
        {'a': None, 'b': [1, 2]}
    """
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, Sequence | set):
        return [plain(item) for item in value]
    return str(value)
