"""Checks of arguments that live and offline entry points share."""

from __future__ import annotations

from typing import Any

from ..errors import SettingError


def whole(name: str, value: Any, least: int, cure: str) -> int:
    """``value`` if it is a whole number of at least ``least``.

    Raises:
        SettingError: If it is not; ``cure`` says what to do.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise SettingError(f"{name} must be at least {least}; got {value!r}. {cure}")
    return value


def check_window(window: Any) -> int:
    """A window of at least 2.

    Raises:
        SettingError: If it is not.
    """
    return whole("window", window, 2, "A single update has no gap: use window=10 as in the paper.")


def check_every(every: Any) -> int:
    """A number of steps between snapshots of at least 1.

    Raises:
        SettingError: If it is not.
    """
    return whole("every", every, 1, "every=1 takes a snapshot after each optimizer step.")


def check_lags(window: int, lags: int | None) -> int:
    """Stored updates L; None means ``2 * window - 1``, so that disjoint windows can be compared.

    Raises:
        SettingError: If a window does not fit into ``lags + 1`` updates.

    Example:
        >>> check_lags(10, None)
        19
    """
    if lags is None:
        return 2 * window - 1
    whole("lags", lags, 1, "lags=None keeps 2 * window - 1.")
    if lags < window - 1:
        raise SettingError(
            f"lags must be at least window - 1 = {window - 1}; got {lags}. Use lags=None, or a smaller window."
        )
    return lags


def check_probe_every(steps: int, every: int) -> int:
    """Optimizer steps between probes, which are made at snapshots.

    Raises:
        SettingError: If they are no multiple of the steps between snapshots.
    """
    if steps % every:
        raise SettingError(
            f"probe_every must be a multiple of every, since probes are made at snapshots; got {steps} and {every}. "
            f"Use probe_every={max(1, round(steps / every)) * every}."
        )
    return steps


def choice(name: str, value: Any, allowed: tuple[str, ...]) -> str:
    """``value`` if it is one of ``allowed``.

    Raises:
        SettingError: If it is not.
    """
    if value not in allowed:
        raise SettingError(f"{name} must be one of {', '.join(map(repr, allowed))}; got {value!r}.")
    return str(value)
