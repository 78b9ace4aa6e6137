"""C1 to C9: what companion papers and tables say of the gap, one file a claim."""

from __future__ import annotations

from . import (
    companion_decline,
    companion_granger,
    companion_lags,
    companion_layers,
    companion_no_decay,
    companion_shift,
    companion_sketch,
    companion_spread,
    companion_universal,
)
from .registry_types import Prediction

PREDICTIONS: tuple[Prediction, ...] = (
    *companion_spread.PREDICTIONS,
    *companion_lags.PREDICTIONS,
    *companion_sketch.PREDICTIONS,
    *companion_shift.PREDICTIONS,
    *companion_universal.PREDICTIONS,
    *companion_layers.PREDICTIONS,
    *companion_granger.PREDICTIONS,
    *companion_decline.PREDICTIONS,
    *companion_no_decay.PREDICTIONS,
)
