"""Options that several commands share, and numbers written as people write them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated

import typer

from ..errors import SettingError

Window = Annotated[int, typer.Option(help="Updates in a window.")]
Lags = Annotated[int | None, typer.Option(help="Updates back that are recorded; 2 * window - 1 where not given.")]
Blocks = Annotated[str, typer.Option(help="all, layer, kind, layer_kind, matrix, tensor, projection or head.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace a recording found in --out.")]
Json = Annotated[bool, typer.Option("--json", help="Print the same content as JSON, and nothing else.")]


def whole(name: str, text: str) -> int:
    """A whole number that may be written as 124e6.

    Raises:
        SettingError: If it is none.

    Example:
        >>> whole("parameters", "124e6")
        124000000
    """
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number) or number != int(number) or number < 1:
        raise SettingError(f"{name} must be a whole number of at least 1; got {text}. Write for example 124e6.")
    return int(text) if text.isdecimal() else int(number)


def metrics_note(metrics: Mapping[str, float]) -> str:
    """Metrics in a few words.

    Example:
        >>> metrics_note({"test_accuracy": 0.51234, "lr": 0.001})
        'test_accuracy 0.512  lr 0.001'
    """
    return "  ".join(f"{name} {value:.3g}" for name, value in metrics.items())
