"""All predictions by id, and the judgement of runs by all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from importlib import import_module

from ..errors import SettingError
from .context import Context, Mode
from .registry_types import Prediction
from .runs import RunSource, find_runs
from .verdict import Verdict

# One module a theme; each lists its own as PREDICTIONS.
_MODULES = (
    "noise_floor",
    "position",
    "horizon",
    "phases",
    "stability",
    "gap_flow",
    "grokking",
    "loss",
    "companions",
    "commutator",
    "optimizers",
    "trajectory",
    "maximality",
    "regimes",
)


def _collected() -> dict[str, Prediction]:
    found: dict[str, Prediction] = {}
    for name in _MODULES:
        for prediction in import_module(f"{__package__}.{name}").PREDICTIONS:
            found[prediction.id] = prediction
    order = [f"T{i}" for i in range(1, 9)] + [f"C{i}" for i in range(1, 17)] + ["GM", "AR"]
    return {key: found[key] for key in order if key in found}


PREDICTIONS: dict[str, Prediction] = _collected()


def verify(
    runs: RunSource | Iterable[RunSource],
    *,
    ids: Sequence[str] | None = None,
    window: int = 10,
    stride: int = 1,
    block: str = "all",
    draws: int = 99,
    seed: int = 0,
    mode: Mode = "both",
    progress: Callable[[int, int, str], None] | None = None,
) -> list[Verdict]:
    """Judge every prediction on some runs.

    Args:
        runs: Recordings, run folders, or folders above them. What is known of a catalogued run (arm, seed,
            optimizer) is read from it; anyone's own runs are judged by what they hold.
        ids: Which predictions; all where None.
        window: Rows W.
        stride: Updates in a row.
        block: Block or pattern.
        draws: Histories of each null.
        seed: Of draws, intervals and permutations.
        mode: "strict" or "author" leaves the other side out; "both".
        progress: Called as ``progress(done, total, id)``.

    Returns:
        One verdict a prediction, in the order of the registry.

    Raises:
        SettingError: If an id or a setting cannot be.
        DataError: If there is no run.

    Example:
        >>> from spectraledge.predictions import PREDICTIONS
        >>> PREDICTIONS["T1"].id
        'T1'
    """
    chosen = list(PREDICTIONS) if ids is None else list(ids)
    unknown = [key for key in chosen if key not in PREDICTIONS]
    if unknown:
        raise SettingError(f"an id must be one of {', '.join(PREDICTIONS)}; got {unknown[0]}. Leave it out for all.")
    context = Context(window=window, stride=stride, block=block, draws=draws, seed=seed, mode=mode)
    found = find_runs(runs)
    verdicts = []
    for i, key in enumerate(chosen):
        verdicts.append(PREDICTIONS[key](found, context))
        if progress is not None:
            progress(i + 1, len(chosen), key)
    return verdicts
