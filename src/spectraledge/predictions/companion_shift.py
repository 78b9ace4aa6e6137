"""C4: a change of the data shows in the gap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..detect.events import find_events
from ..dynamics.timeline import metric_at
from ..errors import DataError, SettingError
from ..theory.coincidence import event_coincidence
from ..theory.proportions import detector_table
from .context import Array, Context
from .counted import counted, held_out_loss
from .phases import plain_ratio
from .pooled import author_says, each, some
from .registry_types import Prediction
from .runs import Run
from .verdict import AuthorRule, Verdict

WITHIN = 2  # windows' worth of rows after a shift in which an alarm counts
SPREADS = 8.0  # that a jump of a cheap signal stands off its last window, in robust deviations

CHEAP = ("train_loss", "batch_loss", "val_loss", "test_loss", "grad_norm")


@dataclass(frozen=True)
class _Watch:
    """Of one run: (N) rows, whether the detectors alarm in each, whether cheap signals jump, and the shift's row."""

    steps: Array
    alarms: NDArray[np.bool_]
    cheap: dict[str, NDArray[np.bool_]]
    shift: int | None


def _judge(runs: Sequence[Run], context: Context) -> Verdict:
    if all(shift_step(run) is None for run in runs):
        raise DataError(
            "a run must say when its data changed (shift_step among its settings); none does. Train a language model "
            "with a second text, or add shift_step to the recording's metadata."
        )
    found = each(runs, lambda run: _watch(run, context))
    shifted = [(run, x) for run, x in found if x.shift is not None]
    if not shifted:
        raise DataError("the shift must come after six windows of rows and before the last two; in no run it does.")
    within = WITHIN * context.window
    marks = [np.arange(len(x.steps)) == x.shift for _, x in shifted]
    ours = _after([x.alarms for _, x in shifted], marks, within)
    names = sorted({name for _, x in shifted for name in x.cheap})
    rivals = {
        name: _after(
            [x.cheap.get(name, np.zeros(len(x.steps), dtype=bool)) for _, x in shifted], marks, within
        ).precursor_rate
        for name in names
    }
    n, k = len(shifted), ours.n_preceded
    beaten = all(k / n > value for value in rivals.values())
    outcome, interval, p = counted(k, n, ours.expected, ours.p, beaten=beaten)
    # Runs without a shift, looked at over the same rows.
    rows = [x.shift for _, x in shifted if x.shift is not None]
    quiet = [x for _, x in found if x.shift is None and len(x.steps) > max(rows)]
    fired = [bool(np.any(x.alarms[r : r + within + 1])) for x in quiet for r in rows[:1]]
    hit = [bool(np.any(x.alarms[r : r + within + 1])) for (_, x), r in zip(shifted, rows)]
    table = detector_table(hit + fired, [True] * len(hit) + [False] * len(fired))
    best = max(rivals, key=lambda name: rivals[name]) if rivals else "none"
    return Verdict(
        "",
        "",
        "",
        outcome,
        f"a detector of the spectrum alarms within {within} rows of the shift in {k} of {n} runs where alarms at "
        "other "
        f"times would in {100 * ours.expected:.0f} % (p {ours.p:.2g}), in {table.false_alarms} of {table.n_negative} "
        "runs "
        f"without a shift, and a jump of the best cheap signal ({best}) in "
        f"{100 * rivals.get(best, float('nan')):.0f} %.",
        statistic=f"share of shifts with an alarm at most {within} rows after",
        value=k / n,
        interval=interval,
        interval_method=f"Clopper-Pearson over {n} runs",
        n={"runs": n, "runs without a shift": len(quiet), "alarms": ours.n_alarms},
        null="alarms turned in time",
        null_pass_rate=ours.expected,
        p=p,
        baselines={**rivals, "false alarms": table.false_alarm_rate},
        author=_author([run for run, _ in shifted], context),
        raw=[
            {
                "run": run.name,
                "shift": float(x.steps[r]),
                "alarms": [float(s) for s in x.steps[x.alarms]],
            }
            for (run, x), r in zip(shifted, rows)
        ],
    )


def shift_step(run: Run) -> int | None:
    """First step of the other data, where a run says it."""
    settings = run.settings or run.recording.meta
    step = settings.get("shift_step")
    if step is not None:
        return int(step)
    if str(settings.get("shift_text") or "").strip() and settings.get("steps"):
        return int(settings["steps"]) // 2 + 1
    return None


def _watch(run: Run, context: Context) -> _Watch:
    recording, window, stride = run.recording, context.window, context.stride
    steps = recording.steps[stride - 1 :: stride].astype(np.float64)
    step = shift_step(run)
    shift = None if step is None else int(np.searchsorted(steps, step))
    if shift is not None and not 6 * window <= shift < len(steps) - window:
        raise DataError(
            f"a shift must come after {6 * window} rows and {window} before the end; that of {run.name} comes at row "
            f"{shift} of {len(steps)}. Record more often."
        )
    try:
        events = find_events(recording, window=window, block=context.block, stride=stride)
    except SettingError as error:
        raise DataError(str(error)) from error
    alarms = np.isin(steps, [event.step for event in events])
    cheap = {name: _jumps(metric_at(recording, name, steps, how="last"), window) for name in CHEAP}
    norm = recording.band(context.block, stride=stride)[: len(steps), 0]
    with np.errstate(divide="ignore", invalid="ignore"):
        cheap["norm of updates"] = _jumps(np.log(norm), window)
    return _Watch(steps, alarms, {name: x for name, x in cheap.items() if x.any()}, shift)


def _jumps(x: Array, window: int) -> NDArray[np.bool_]:
    """Values that stand off the median of the last two windows before by more than eight robust deviations."""
    out = np.zeros(len(x), dtype=bool)
    for i in range(2 * window, len(x)):
        past = x[i - 2 * window : i]
        past = past[np.isfinite(past)]
        if len(past) < window:
            continue
        centre = np.median(past)
        spread = 1.4826 * np.median(np.abs(past - centre))
        out[i] = bool(abs(x[i] - centre) > SPREADS * max(spread, 1e-12))
    return out & np.isfinite(x)


def _after(alarms, marks, within: int):  # type: ignore[no-untyped-def]
    """Coincidence of shifts with alarms that come after: time runs backwards."""
    return event_coincidence([a[::-1] for a in alarms], [m[::-1] for m in marks], within, delay=0)


def _author(runs: Sequence[Run], context: Context) -> AuthorRule:
    window, found, values, rates = context.window, [], [], []
    for run in some(runs):
        spectra, at = context.spectra(run), context.whole(run)
        steps = spectra.steps[at].astype(np.float64)
        try:
            loss = held_out_loss(run, steps)
        except DataError:
            continue
        row = float(np.median(run.recording.n_steps)) * context.stride
        step = float(shift_step(run) or 0)
        ratio = plain_ratio(spectra.singular_values[at], spectra.floor[at])
        distance = _turn(ratio[None], loss, steps, step, window)[0]
        found.append(bool(distance <= row))
        values.append(float(distance))
        try:
            drawn = context.null_singular_values(run, "norm_matched")
        except DataError:
            continue
        m = min(drawn.shape[1], len(steps))
        with np.errstate(divide="ignore", invalid="ignore"):
            null = np.nanmax(drawn[:, :m, :-1] / drawn[:, :m, 1:], axis=2)
        if step <= steps[m - 1]:
            rates.append(float(np.mean(_turn(null, loss[:m], steps[:m], step, window) <= row)))
    return author_says(found, values, float(np.mean(rates)) if rates else float("nan"))


def _turn(ratio: Array, loss: Array, steps: Array, shift: float, window: int) -> Array:
    """(D) steps from the shift to the nearest change of sign of the sliding correlation of R and loss."""
    n = ratio.shape[1] - window + 1
    if n < 2:
        return np.full(len(ratio), np.inf)
    index = np.arange(n)[:, None] + np.arange(window)
    a, b = ratio[:, index], loss[index]
    a, b = a - a.mean(axis=-1, keepdims=True), b - b.mean(axis=-1, keepdims=True)
    sign = np.sign((a * b).sum(axis=-1))
    turned = sign[:, 1:] * sign[:, :-1] < 0
    distance = np.abs(steps[window:] - shift)
    return np.asarray(np.where(turned, distance, np.inf).min(axis=1))


PREDICTIONS: tuple[Prediction, ...] = (
    Prediction(
        "C4",
        "A change of the training data shows in the gap at once.",
        "arXiv:2603.15678 (section 4.3), cited by arXiv:2603.28964",
        "runs whose data change at a known step, recorded often enough before and after",
        "spectraledge run lm/small --set text=FILE --set shift_text=OTHER",
        "the sliding correlation of gap ratio and validation loss turns its sign within one snapshot of the shift",
        "within 200 steps of 17,800, the date known beforehand; confirmed",
        _judge,
    ),
)
