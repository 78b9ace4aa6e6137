"""Ticks and names short enough for an axis."""

from __future__ import annotations

import numpy as np

_POWERS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def shorten(name: str, limit: int = 24) -> str:
    """A name with its middle left out where it is long.

    >>> shorten("encoder.layers.0.attention.out", 16)
    'encoder…tion.out'
    """
    if len(name) <= limit:
        return name
    front = (limit - 1) // 2
    return f"{name[:front]}…{name[len(name) - (limit - 1 - front) :]}"


def log_ticks(low: float, high: float) -> list[float]:
    """Ticks of a logarithmic axis: decades where there are several, else 1-2-5, else round steps.

    >>> log_ticks(0.9, 2e4)
    [1.0, 10.0, 100.0, 1000.0, 10000.0]
    >>> log_ticks(1.0, 6.0)
    [1.0, 2.0, 5.0]
    """
    decades = np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1)
    powers = 10.0**decades
    inside = powers[(powers >= low) & (powers <= high)]
    if len(inside) >= 3:
        return [float(v) for v in inside[:: -(-len(inside) // 6)]]
    fine = np.sort(np.concatenate([powers * m for m in (1, 2, 5)]))
    fine = fine[(fine >= low * (1 - 1e-12)) & (fine <= high * (1 + 1e-12))]
    if len(fine) >= 3:
        return [float(f"{v:.3g}") for v in fine]
    step = 10.0 ** np.floor(np.log10((high - low) / 2))
    step *= next(m for m in (5, 2, 1) if (high - low) / (m * step) >= 2)
    return [float(f"{v:.6g}") for v in np.arange(np.ceil(low / step), np.floor(high / step) + 1) * step]


def tick_text(value: float) -> str:
    """A number on a logarithmic axis.

    >>> tick_text(0.05), tick_text(1e-5), tick_text(2e6)
    ('0.05', '10⁻⁵', '2·10⁶')
    """
    if value == 0 or 1e-3 <= abs(value) < 1e5:
        return f"{value:g}"
    mantissa, exponent = f"{value:e}".split("e")
    power = "10" + str(int(exponent)).translate(_POWERS)
    m = float(mantissa)
    return power if m == 1 else f"{m:g}·{power}"
