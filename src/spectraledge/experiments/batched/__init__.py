"""Many small models trained at once, as one batched computation, where that is measured to be faster.

``run_batched`` trains them into a folder each; ``choose_batch_size`` says how many at once pay on a device.
"""

from __future__ import annotations

from .choice import choose_batch_size, step_seconds
from .run import run_batched

__all__ = ["choose_batch_size", "run_batched", "step_seconds"]
