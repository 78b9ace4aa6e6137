"""The predictions of arXiv:2603.28964 and its companions, each judged on recorded runs.

Works on recordings; knows nothing about torch or about how a run was made. A prediction is a function from runs to a
``Verdict``: what the author's rule says, how often it says the same on noise, and what a test that can fail says.
"""

from __future__ import annotations

from .registry import PREDICTIONS, verify
from .registry_types import Prediction
from .runs import Run, find_runs
from .verdict import Verdict

__all__ = ["PREDICTIONS", "Prediction", "Run", "Verdict", "find_runs", "verify"]
