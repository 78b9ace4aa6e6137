"""spectraledge: the spectrum of parameter updates of a training run, recorded and judged.

The public names, loaded on first use: importing this package imports neither torch nor matplotlib.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

_HOME = {
    "Gap": "recording",
    "Monitor": "stream.monitor",
    "Probe": "stream.probe",
    "Recording": "recording",
    "SpectralEdgeError": "errors",
    "Spectra": "recording",
    "Verdict": "predictions",
    "analyze": "checkpoints.analyze",
    "attach": "_attach",
    "load": "recording",
    "plan": "_attach",
    "plot_block_map": "plots",
    "plot_curvature": "plots",
    "plot_flow_terms": "plots",
    "plot_gap_position": "plots",
    "plot_health": "plots",
    "plot_loss_decomposition": "plots",
    "plot_metrics": "plots",
    "plot_norms": "plots",
    "plot_overlaps": "plots",
    "plot_ratio_profile": "plots",
    "plot_singular_values": "plots",
    "plot_stability": "plots",
    "plot_widths": "plots",
    "report": "reporting.report",
    "run": "experiments.run",
    "verify": "predictions",
}

__all__ = [
    "Gap",
    "Monitor",
    "Probe",
    "Recording",
    "Spectra",
    "SpectralEdgeError",
    "Verdict",
    "__version__",
    "analyze",
    "attach",
    "load",
    "plan",
    "plot_block_map",
    "plot_curvature",
    "plot_flow_terms",
    "plot_gap_position",
    "plot_health",
    "plot_loss_decomposition",
    "plot_metrics",
    "plot_norms",
    "plot_overlaps",
    "plot_ratio_profile",
    "plot_singular_values",
    "plot_stability",
    "plot_widths",
    "report",
    "run",
    "verify",
]

if TYPE_CHECKING:
    from ._attach import attach, plan
    from .checkpoints.analyze import analyze
    from .errors import SpectralEdgeError
    from .experiments.run import run
    from .plots import (
        plot_block_map,
        plot_curvature,
        plot_flow_terms,
        plot_gap_position,
        plot_health,
        plot_loss_decomposition,
        plot_metrics,
        plot_norms,
        plot_overlaps,
        plot_ratio_profile,
        plot_singular_values,
        plot_stability,
        plot_widths,
    )
    from .predictions import Verdict, verify
    from .recording import Gap, Recording, Spectra, load
    from .reporting.report import report
    from .stream.monitor import Monitor
    from .stream.probe import Probe


def __getattr__(name: str) -> object:
    if name in _HOME:
        value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
