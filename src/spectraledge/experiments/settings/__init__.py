"""The settings of catalogued experiments: names, ranges, defaults and where the defaults come from.

Knows nothing about torch, so that names and ranges can be listed and checked before anything heavy is loaded.
"""

from __future__ import annotations

from .deep_linear import DeepLinearSettings
from .modular import ModularSettings, Operation
from .parse import SettingsT, build_settings, parse_settings
from .quadratic import QuadraticSettings
from .training import OPTIMIZER_DEFAULTS, TrainingSettings

__all__ = [
    "OPTIMIZER_DEFAULTS",
    "DeepLinearSettings",
    "ModularSettings",
    "Operation",
    "QuadraticSettings",
    "SettingsT",
    "TrainingSettings",
    "build_settings",
    "parse_settings",
]
