"""The theory on a recording: stability of directions, curvature along them, what they do to the loss.

Works on recordings; knows nothing about torch. Each function returns arrays, a table and a summary.
"""

from __future__ import annotations

from .curvature import Curvature, curvature
from .hierarchy import Hierarchy, NullOrder
from .loss_decomposition import LossReport, loss_decomposition
from .loss_tests import AlphaTest
from .stability import Stability, stability

__all__ = [
    "AlphaTest",
    "Curvature",
    "Hierarchy",
    "LossReport",
    "NullOrder",
    "Stability",
    "curvature",
    "loss_decomposition",
    "stability",
]
