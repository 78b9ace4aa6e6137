"""The design of an intervention study: which forks, which changes, how long; checked before anything trains.

Loads no torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import SettingError
from .config import configure

KINDS = ("step", "momentum", "close_gap")
CONTROLS = ("span", "space", "none")
METRICS = ("update", "buffer")


@dataclass(frozen=True)
class Design:
    """What every seed goes through; one ``study.json`` a folder.

    Attributes:
        experiment: Name of the catalogue.
        settings: The experiment's settings other than the seed.
        kinds: Of :meth:`spectraledge.experiments.mixing.Mixer.apply`.
        positions: Cuts j and controls; ``none`` is always among them.
        norms: Relative norms: of the last update (``step``), of the momentum (the others).
        times: Optimizer steps at which the run is forked; multiples of ``every``, from ``window * every`` on.
        horizon: Optimizer steps that a cell trains on.
        window: W.
        every: Optimizer steps a snapshot.
        evaluate_every: Optimizer steps between evaluations within a cell.
        metric: Where momentum is rotated.
    """

    experiment: str
    settings: dict[str, Any]
    kinds: tuple[str, ...]
    positions: tuple[int | str, ...]
    norms: tuple[float, ...]
    times: tuple[int, ...]
    horizon: int
    window: int
    every: int
    evaluate_every: int
    metric: str

    def cells(self) -> list[tuple[str, int | str, float]]:
        """(kind, position, norm) of every cell of a fork; the untouched one first and once."""
        untouched = [("step", "none", 0.0)]
        return untouched + [
            (kind, position, amount)
            for kind in self.kinds
            for amount in self.norms
            for position in self.positions
            if position != "none"
        ]


def make_design(
    name: str,
    settings: Mapping[str, object] | None,
    kinds: Sequence[str],
    positions: Sequence[int | str] | None,
    norms: Sequence[float],
    times: Sequence[int],
    horizon: int,
    window: int,
    every: int,
    evaluate_every: int,
    metric: str,
) -> Design:
    """A checked design; arguments as for ``intervene_study.intervention_study``.

    Raises:
        SettingError: If one of them cannot be.
    """
    table = dict(settings or {})
    if "seed" in table:
        raise SettingError(f"the seed must be given by seeds=; got {table['seed']} in settings. Leave it out there.")
    chosen, _ = configure(name, settings=table, window=window, every=every)
    chosen_positions = [*range(1, window), "span", "space"] if positions is None else list(positions)
    for kind in kinds:
        if kind not in KINDS:
            raise SettingError(f"kinds must be among {', '.join(KINDS)}; got {kind!r}. The default is step.")
    for position in chosen_positions:
        if not (position in CONTROLS or (isinstance(position, int) and 1 <= position < window)):
            raise SettingError(
                f"positions must be cuts in 1..{window - 1} or {', '.join(CONTROLS)}; got {position!r}. "
                "Leave positions out for all of them."
            )
    if metric not in METRICS:
        raise SettingError(f"metric must be update or buffer; got {metric!r}. The default is update.")
    if horizon < 1 or evaluate_every < 1 or horizon % evaluate_every:
        raise SettingError(
            f"horizon must be a multiple of evaluate_every; got {horizon} and {evaluate_every}. Use 500 and 50."
        )
    if not norms or not all(0 < amount < math.inf for amount in norms):
        raise SettingError(f"norms must be positive; got {list(norms)}. 1 is as long as the last update.")
    for time in times:
        if time % every or not window * every <= time <= chosen.steps - horizon:
            raise SettingError(
                f"times must be multiples of every={every} from window * every = {window * every} to "
                f"steps - horizon = {chosen.steps - horizon}; got {time}. A fork needs a full window behind it."
            )
    if not times or not kinds:
        raise SettingError("a study needs a time and a kind; got none. Use times=(1000, 1500, 2000).")
    own = {key: value for key, value in chosen.model_dump(mode="json").items() if key != "seed"}
    return Design(
        name,
        own,
        tuple(kinds),
        tuple(chosen_positions),
        tuple(float(amount) for amount in norms),
        tuple(sorted(set(times))),
        horizon,
        window,
        every,
        evaluate_every,
        metric,
    )
