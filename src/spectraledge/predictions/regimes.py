"""."""

from __future__ import annotations

from .registry_types import Prediction

PREDICTIONS: tuple[Prediction, ...] = ()
