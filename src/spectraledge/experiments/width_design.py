"""The design of a width study: which widths, how the rest grows with them; checked before anything trains.

Loads no torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import SettingError
from .config import configure
from .settings import ModularSettings

PARAMETRISATIONS = ("standard", "mup")
GROWING = ("d_model", "heads", "d_hidden")


@dataclass(frozen=True)
class WidthDesign:
    """What every seed goes through; one ``study.json`` a folder.

    Attributes:
        study: "widths".
        experiment: Name of the catalogue.
        settings: Of the base model, without the seed; its ``d_model`` is the base width.
        widths: Values of ``d_model``.
        parametrisations: ``standard``, ``mup``.
        first: First optimizer step at which a window that counts may end.
        last: Last one.
        window: W.
        every: Optimizer steps a snapshot.
    """

    study: str
    experiment: str
    settings: dict[str, Any]
    widths: tuple[int, ...]
    parametrisations: tuple[str, ...]
    first: int
    last: int
    window: int
    every: int

    def cells(self) -> list[tuple[int, str]]:
        """(width, parametrisation) of every run of a seed."""
        return [(width, chosen) for width in self.widths for chosen in self.parametrisations]

    def ratio(self, width: int) -> float:
        """m, width over base width."""
        return width / int(self.settings["d_model"])

    def settings_at(self, width: int) -> dict[str, Any]:
        """Settings with ``d_model``, ``heads`` and ``d_hidden`` all ``ratio`` times those of the base.

        Raises:
            SettingError: If one of them is then no whole number.
        """
        base = int(self.settings["d_model"])
        grown = {key: int(self.settings[key]) * width for key in GROWING}
        uneven = [key for key, value in grown.items() if value % base]
        if uneven or width < 1:
            raise SettingError(
                f"widths must make d_model, heads and d_hidden whole multiples of the base's; got width {width} for "
                f"d_model={base} heads={self.settings['heads']} d_hidden={self.settings['d_hidden']}. "
                f"Use multiples of {base // int(self.settings['heads'])}, the width of a head."
            )
        return {**self.settings, **{key: value // base for key, value in grown.items()}}


def make_width_design(
    name: str,
    settings: Mapping[str, object],
    widths: Sequence[int],
    parametrisation: str | Sequence[str],
    steps: int,
    step_range: tuple[int, int] | None,
    window: int,
    every: int,
    evaluate_every: int,
) -> WidthDesign:
    """A checked design; arguments as for ``width_study.width_study``.

    Raises:
        SettingError: If one of them cannot be.
    """
    for key in ("steps", "eval_every", "stop_after_grok"):
        if key in settings:
            raise SettingError(
                f"runs must have equal lengths and evaluations; got {key} among the settings. "
                "Give steps= and evaluate_every=."
            )
    fixed = {"steps": steps, "eval_every": evaluate_every, "stop_after_grok": None}
    chosen, _ = configure(name, settings={**settings, **fixed}, window=window, every=every)
    if not isinstance(chosen, ModularSettings):
        raise SettingError(f"a width study must be of a modular experiment; got {name}. Use modular/add.")
    arms = (parametrisation,) if isinstance(parametrisation, str) else tuple(parametrisation)
    if not arms or not all(arm in PARAMETRISATIONS for arm in arms):
        raise SettingError(f"parametrisation must be among standard, mup; got {list(arms)}. Leave it out for both.")
    if "mup" in arms and chosen.optimizer != "adamw":
        raise SettingError(f"mup must be trained by adamw; got optimizer={chosen.optimizer}. Use optimizer=adamw.")
    distinct = tuple(sorted({int(width) for width in widths}))
    if len(distinct) < 2:
        raise SettingError(f"a slope needs two widths; got {list(distinct)}. Use widths=(64, 128, 256).")
    first, last = step_range or (max(steps // 2, 2 * window * every), steps)
    if not 2 * window * every <= first <= last <= steps:
        raise SettingError(
            f"step_range must lie between 2 * window * every = {2 * window * every} and steps = {steps}; got "
            f"{first}..{last}. A_rel needs two windows behind its first step."
        )
    own = {key: value for key, value in chosen.model_dump(mode="json").items() if key != "seed"}
    design = WidthDesign("widths", name, own, distinct, tuple(dict.fromkeys(arms)), first, last, window, every)
    for width in distinct:
        configure(name, settings=design.settings_at(width), window=window, every=every)
    return design
