"""From words and tables to validated settings, or to the sentence that says what is wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

from pydantic import ValidationError

from ...errors import SettingError
from ..sentences import setting_sentences
from .training import TrainingSettings

SettingsT = TypeVar("SettingsT", bound=TrainingSettings)


def parse_settings(pairs: Sequence[str]) -> dict[str, str]:
    """Split ``key=value`` words; types are checked later, by the experiment's own settings.

    Raises:
        SettingError: If a word has no "=" or no key, or a key comes twice with different values.

    Example:
        >>> parse_settings(["weight_decay=0", "betas=0.9,0.98"])
        {'weight_decay': '0', 'betas': '0.9,0.98'}
    """
    values: dict[str, str] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        key, value = key.strip().replace("-", "_"), value.strip()
        if not equals or not key or not value:
            raise SettingError(f"a setting must read key=value; got {pair!r}. Write for example weight_decay=0.")
        if values.get(key, value) != value:
            raise SettingError(
                f"a setting must be given once; got {key}={values[key]} and {key}={value}. Keep one of them."
            )
        values[key] = value
    return values


def build_settings(
    kind: type[SettingsT],
    values: Mapping[str, object],
    *,
    name: str,
    fixed: Mapping[str, object] | None = None,
) -> SettingsT:
    """Validated settings of one experiment.

    Args:
        kind: The experiment's settings class.
        values: What the caller set; text as given on a command line is accepted for every field.
        name: The experiment's name, for messages.
        fixed: Values that the name implies; setting one of them to something else is refused.

    Raises:
        SettingError: On an unknown name (the nearest is suggested), a value out of range, or a fixed value
            changed.

    Example:
        >>> from spectraledge.experiments.settings import ModularSettings
        >>> build_settings(ModularSettings, {"optimizer": "muon"}, name="modular/add").lr
        0.02
    """
    fixed = dict(fixed or {})
    for key, value in fixed.items():
        if key in values and str(values[key]) != str(value):
            raise SettingError(
                f"{key} is fixed by the name {name} to {value}; got {values[key]}. Choose the experiment by its name."
            )
    try:
        return kind(**{**values, **fixed})  # type: ignore[arg-type]
    except ValidationError as error:
        raise SettingError(" ".join(setting_sentences(error, kind, name))) from None
