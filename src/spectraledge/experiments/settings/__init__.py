"""The settings of catalogued experiments: names, ranges, defaults and where the defaults come from.

Knows nothing about torch, so that names and ranges can be listed and checked before anything heavy is loaded.
"""

from __future__ import annotations

from .deep_linear import DeepLinearSettings
from .dyck import DyckSettings
from .lm import GPT2Settings, LanguageSettings, SmallLanguageSettings, StoriesSettings
from .modular import ModularSettings, Operation
from .multitask import MultiTaskSettings
from .parse import SettingsT, build_settings, parse_settings
from .quadratic import QuadraticSettings
from .scan import ScanSettings, SmallScanSettings
from .training import OPTIMIZER_DEFAULTS, TrainingSettings
from .two_layer import TwoLayerSettings

__all__ = [
    "OPTIMIZER_DEFAULTS",
    "DeepLinearSettings",
    "DyckSettings",
    "GPT2Settings",
    "LanguageSettings",
    "ModularSettings",
    "MultiTaskSettings",
    "Operation",
    "QuadraticSettings",
    "ScanSettings",
    "SettingsT",
    "SmallLanguageSettings",
    "SmallScanSettings",
    "StoriesSettings",
    "TrainingSettings",
    "TwoLayerSettings",
    "build_settings",
    "parse_settings",
]
