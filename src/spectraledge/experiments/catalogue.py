"""The experiments by name: what each is, its settings, and how its model and task are built.

Loads no torch until an experiment is built, so that listing names is quick.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..errors import SettingError
from .sentences import nearest
from .settings import (
    DeepLinearSettings,
    DyckSettings,
    GPT2Settings,
    LanguageSettings,
    ModularSettings,
    MultiTaskSettings,
    QuadraticSettings,
    ScanSettings,
    SmallLanguageSettings,
    SmallScanSettings,
    StoriesSettings,
    TrainingSettings,
    TwoLayerSettings,
)

if TYPE_CHECKING:
    from .tasks.base import Experiment


@dataclass(frozen=True)
class Entry:
    """One catalogued experiment.

    Attributes:
        name: "family/variant", or "family" where there is but one.
        description: One sentence.
        settings: Class of its settings.
        build: Model and task from settings; draws the initialisation from torch's default generator.
        fixed: Settings that the name implies.
    """

    name: str
    description: str
    settings: type[TrainingSettings]
    build: Callable[[Any], Experiment]
    fixed: dict[str, object] = field(default_factory=dict)


def names() -> list[str]:
    """All names, in the order of the catalogue."""
    return list(_CATALOGUE)


def entry(name: str) -> Entry:
    """The experiment called ``name``.

    Raises:
        SettingError: If there is none; the nearest name is suggested.

    Example:
        >>> entry("modular/add").fixed
        {'operation': 'add'}
    """
    if name not in _CATALOGUE:
        raise SettingError(f"an experiment must be in the catalogue; got {name}. {nearest(name, _CATALOGUE)}")
    return _CATALOGUE[name]


def _build_modular(settings: ModularSettings) -> Experiment:
    from .tasks.modular import modular_experiment

    return modular_experiment(settings)


def _build_quadratic(settings: QuadraticSettings) -> Experiment:
    from .tasks.quadratic import quadratic_experiment

    return quadratic_experiment(settings)


def _build_deep_linear(settings: DeepLinearSettings) -> Experiment:
    from .tasks.deep_linear import deep_linear_experiment

    return deep_linear_experiment(settings)


def _build_multitask(settings: MultiTaskSettings) -> Experiment:
    from .tasks.multitask import multitask_experiment

    return multitask_experiment(settings)


def _build_dyck(settings: DyckSettings) -> Experiment:
    from .tasks.dyck import dyck_experiment

    return dyck_experiment(settings)


def _build_scan(settings: ScanSettings) -> Experiment:
    from .tasks.scan import scan_experiment

    return scan_experiment(settings)


def _build_language(settings: LanguageSettings) -> Experiment:
    from .tasks.lm import language_experiment

    return language_experiment(settings)


def _build_two_layer(settings: TwoLayerSettings) -> Experiment:
    from .tasks.two_layer import two_layer_experiment

    return two_layer_experiment(settings)


_MODULAR = {
    "add": "a + b mod p; groks near step 3,000 at weight decay 1",
    "sub": "a - b mod p; groks near step 3,500 at weight decay 1",
    "mul": "a * b mod p over 1..p-1; groks near step 3,000 at weight decay 1",
    "x2_y2": "a^2 + b^2 mod p; groks near step 2,600 at weight decay 1",
    "x2_xy_y2": "a^2 + ab + b^2 mod p; memorises, and has not been seen to grok at weight decay 1",
    "x3_xy": "a^3 + ab mod p; memorises, and has not been seen to grok at weight decay 1",
}

_CATALOGUE: dict[str, Entry] = {
    f"modular/{operation}": Entry(
        f"modular/{operation}", words, ModularSettings, _build_modular, {"operation": operation}
    )
    for operation, words in _MODULAR.items()
}
_CATALOGUE |= {
    "multitask/dual": Entry(
        "multitask/dual",
        "a + b and a * b mod p at once, two heads on one trunk; published runs grok by step 16,300 at weight decay 1",
        MultiTaskSettings,
        _build_multitask,
        {"tasks": "dual"},
    ),
    "multitask/tri": Entry(
        "multitask/tri",
        "a + b, a * b and a^2 + b^2 mod p at once; published runs grok by step 30,500 at weight decay 1",
        MultiTaskSettings,
        _build_multitask,
        {"tasks": "tri"},
    ),
    "dyck": Entry(
        "dyck",
        "depth after each bracket of a balanced sequence, 50 sequences trained on; unseen prefixes are scored apart",
        DyckSettings,
        _build_dyck,
    ),
    "scan": Entry(
        "scan",
        "commands to action sequences, 2,048 of SCAN's simple split; 3,979,529 parameters",
        ScanSettings,
        _build_scan,
    ),
    "scan/small": Entry(
        "scan/small",
        "the same task and kind of network at a size that one core trains in minutes",
        SmallScanSettings,
        _build_scan,
    ),
    "lm/small": Entry(
        "lm/small",
        "a language model of about 1 M parameters on any text (--set text=FILE)",
        SmallLanguageSettings,
        _build_language,
    ),
    "lm/stories": Entry(
        "lm/stories",
        "a language model of 51 M parameters with key retrieval (--set text=FILE or hf:roneneldan/TinyStories)",
        StoriesSettings,
        _build_language,
    ),
    "lm/gpt2": Entry(
        "lm/gpt2",
        "a language model of 124 M parameters whose text changes half-way (--set text= shift_text= shift_step=)",
        GPT2Settings,
        _build_language,
    ),
    "two_layer/x2": Entry(
        "two_layer/x2",
        "a + b mod 71 by one hidden layer of squares, full batches; groks near step 140 (use every=1, window=20)",
        TwoLayerSettings,
        _build_two_layer,
        {"activation": "square"},
    ),
    "two_layer/relu": Entry(
        "two_layer/relu",
        "the same with ReLU; groks near step 520, so set steps=800",
        TwoLayerSettings,
        _build_two_layer,
        {"activation": "relu"},
    ),
    "quadratic": Entry(
        "quadratic",
        "a quadratic loss with known Hessian and gradient noise; every quantity has a closed form",
        QuadraticSettings,
        _build_quadratic,
    ),
    "deep_linear": Entry(
        "deep_linear",
        "a deep linear network that learns the singular values of a linear map one after another",
        DeepLinearSettings,
        _build_deep_linear,
    ),
}
