"""One figure into one file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import OutputError, SettingError, require
from ..recording import Recording


def save_plot(recording: Recording, path: Path, *, window: int, stride: int, block: str) -> Path:
    """Draw the singular values over time.

    Raises:
        MissingDependencyError: If matplotlib is not installed.
        SettingError: If the file's ending names no format.
        OutputError: If the file cannot be written.
    """
    matplotlib: Any = require("matplotlib", "plot")
    matplotlib.use("Agg")  # a file is wanted, not a window
    from ..plots import plot_singular_values

    figure = plot_singular_values(recording, window=window, stride=stride, block=block)
    formats = figure.canvas.get_supported_filetypes()
    if path.suffix.lstrip(".").lower() not in formats:
        raise SettingError(
            f"plot must end in one of {', '.join(sorted(formats))}; got {path.name}. Write for example sigma.png."
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path)
    except OSError as error:
        raise OutputError(f"{path} must be writable; got {error.strerror}. Choose another place.") from error
    return path
