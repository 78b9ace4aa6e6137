"""The design of a ticket study: which masks, from which step, how long; checked before anything trains.

Loads no torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import SettingError
from .config import configure

# What a mask is chosen by, in the order of their random streams.
KINDS = ("dense", "v1", "magnitude", "random", "random_magnitude", "magnitude_as_v1")
MASKED = ("matrices", "all")


@dataclass(frozen=True)
class TicketDesign:
    """What every seed goes through; one ``study.json`` a folder.

    Attributes:
        study: "tickets".
        experiment: Name of the catalogue.
        settings: The experiment's settings other than the seed.
        at_step: Optimizer step whose last window gives v_1 and whose weights give the magnitudes.
        fractions: Shares of the masked tensors' entries that are kept.
        kinds: Of masks, without the dense run.
        masked: ``matrices`` or ``all`` tensors.
        steps: Optimizer steps that a rewound network trains.
        window: W.
        every: Optimizer steps a snapshot.
        evaluate_every: Optimizer steps between evaluations of a rewound network.
    """

    study: str
    experiment: str
    settings: dict[str, Any]
    at_step: int
    fractions: tuple[float, ...]
    kinds: tuple[str, ...]
    masked: str
    steps: int
    window: int
    every: int
    evaluate_every: int

    def cells(self) -> list[tuple[str, float]]:
        """(kind, fraction) of every network that is trained again; the dense one first and once."""
        return [("dense", 1.0), *((kind, fraction) for fraction in self.fractions for kind in self.kinds)]


def make_ticket_design(
    name: str,
    settings: Mapping[str, object],
    at_step: int,
    fraction: float | Sequence[float],
    kinds: Sequence[str],
    masked: str,
    steps: int,
    window: int,
    every: int,
    evaluate_every: int,
) -> TicketDesign:
    """A checked design; arguments as for ``ticket_study.ticket_study``.

    Raises:
        SettingError: If one of them cannot be.
    """
    chosen, _ = configure(name, settings=settings, window=window, every=every)
    fractions = (fraction,) if isinstance(fraction, int | float) else tuple(fraction)
    if not fractions or not all(0.0 < f < 1.0 for f in fractions):
        raise SettingError(f"fraction must lie in (0, 1); got {list(fractions)}. Use 0.1 and 0.3.")
    if not kinds or not all(kind in KINDS[1:] for kind in kinds):
        raise SettingError(f"kinds must be among {', '.join(KINDS[1:])}; got {list(kinds)}. Leave them out.")
    if masked not in MASKED:
        raise SettingError(f"masked must be matrices or all; got {masked!r}. The default is matrices.")
    if at_step % every or not window * every <= at_step <= chosen.steps:
        raise SettingError(
            f"at_step must be a multiple of every={every} from window * every = {window * every} to the run's "
            f"steps = {chosen.steps}; got {at_step}. v_1 needs a full window behind it."
        )
    if steps < 1 or evaluate_every < 1 or steps % evaluate_every:
        raise SettingError(
            f"steps must be a multiple of evaluate_every; got {steps} and {evaluate_every}. Use 4000 and 100."
        )
    own = {key: value for key, value in chosen.model_dump(mode="json").items() if key != "seed"}
    # Each once, in the order given.
    distinct = tuple(dict.fromkeys(float(f) for f in fractions))
    used = tuple(dict.fromkeys(kinds))
    return TicketDesign("tickets", name, own, at_step, distinct, used, masked, steps, window, every, evaluate_every)
