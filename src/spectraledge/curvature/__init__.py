"""Gradients and curvature of a loss at the current parameters, measured without altering anything."""

from __future__ import annotations

from .lanczos import Eigenvalues, lanczos
from .objective import Objective
from .preconditioner import inverse_preconditioner, step_direction
from .undisturbed import undisturbed

__all__ = [
    "Eigenvalues",
    "Objective",
    "inverse_preconditioner",
    "lanczos",
    "step_direction",
    "undisturbed",
]
