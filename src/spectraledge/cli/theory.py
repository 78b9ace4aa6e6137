"""What ``theory`` shows: the theory on the recordings of some runs, side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..dynamics import curvature, loss_decomposition, stability
from ..errors import DataError, SettingError
from ..recording import Recording
from .content import Content
from .render import cell, print_line, print_table
from .theory_parts import MODED, TITLES, made_part, options_of, print_parts

MODES = ("strict", "author", "both")
PARTS = ("stability", "curvature", "loss", *TITLES)


def theory_content(
    recordings: Mapping[str, Recording],
    *,
    window: int = 10,
    block: str = "all",
    stride: int = 1,
    mode: str = "strict",
    k: int | None = None,
    n_draws: int = 199,
    seed: int = 0,
    parts: Sequence[str] = (),
    progress: Callable[[int, int, str], None] | None = None,
) -> Content:
    """Stability, curvature and the loss decomposition of every run.

    Args:
        recordings: Name of a run to its recording.
        window: Rows W of the windows of stability; curvature and loss use the windows that were probed.
        block: Block or pattern, for stability; probes speak of all parameters together.
        stride: Updates in a row, for stability.
        mode: ``strict``, ``author`` or ``both``.
        k: Modes kept in the loss decomposition.
        n_draws: Surrogate histories of each null.
        seed: Of draws and intervals.
        parts: Which parts; all of ``PARTS`` where empty.
        progress: ``progress(done, total, name)`` after each run.

    Returns:
        ``runs``: for each its ``run``, ``stability`` and ``loss`` by mode, ``curvature``, the further parts by mode
        ("" where there is but one) with ``summary`` and ``rows``, and ``missing``: sentences on the parts that are
        None.

    Raises:
        SettingError: If an argument cannot be.
    """
    if mode not in MODES:
        raise SettingError(f"mode must be one of {', '.join(MODES)}; got {mode!r}. The default is strict.")
    unknown = set(parts) - set(PARTS)
    if unknown:
        raise SettingError(f"parts must be among {', '.join(PARTS)}; got {min(unknown)}. Leave them out for all.")
    chosen = [part for part in PARTS if not parts or part in parts]
    runs = []
    for i, (name, recording) in enumerate(recordings.items()):
        missing: dict[str, None] = {}  # in order, each sentence once
        run: Content = {"run": name, "stability": {}, "curvature": None, "loss": {}}
        if "stability" in chosen:
            run["stability"] = {
                m: _summary(missing, stability, recording, window, block, stride, n_draws, seed, m)
                for m in _modes(mode)
            }
        if "curvature" in chosen:
            run["curvature"] = _summary(missing, curvature, recording, seed=seed)
        if "loss" in chosen:
            run["loss"] = {m: _summary(missing, loss_decomposition, recording, k, m, seed=seed) for m in _modes(mode)}
        for part in chosen:
            if part in TITLES:
                options = options_of(part, window, block, stride, seed)
                modes: Sequence[str | None] = _modes(mode) if part in MODED else (None,)
                run[part] = {m or "": _tried(missing, made_part, part, recording, m, options) for m in modes}
        runs.append({**run, "missing": list(missing)})
        if progress is not None:
            progress(i + 1, len(recordings), name)
    return {"window": window, "block": block, "stride": stride, "mode": mode, "n_draws": n_draws, "runs": runs}


def _modes(mode: str) -> tuple[str, ...]:
    return MODES[:2] if mode == "both" else (mode,)


def _summary(missing: dict[str, None], make: Callable[..., Any], *arguments: Any, **options: Any) -> Content | None:
    """Summary of a result, or None with the reason added to ``missing``."""
    result = _tried(missing, make, *arguments, **options)
    return None if result is None else result.summary()


def _tried(missing: dict[str, None], make: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """The result, or None with the reason added to ``missing``."""
    try:
        return make(*arguments, **options)
    except DataError as error:
        missing[str(error)] = None
        return None


def print_theory(content: Content) -> None:
    """The same as tables for people."""
    runs = content["runs"]
    labels = {run["run"]: label for run, label in zip(runs, _labels([run["run"] for run in runs]))}
    if len(runs) > 1:
        for name, label in labels.items():
            print_line(f"{label}: {name}")
    if any(run["stability"] for run in runs):
        _print_hierarchy(runs, labels)
        _print_modes(runs, labels)
    columns = [(labels[run["run"]], run["curvature"]) for run in runs if run["curvature"] is not None]
    if columns:
        print_table(_side_by_side(columns, _curvature_rows), "Curvature along the modes, means over probes")
    for mode in ("strict", "author"):
        found = [(labels[r["run"]], r["loss"][mode]) for r in runs if r["loss"].get(mode) is not None]
        if found:
            print_table(
                _side_by_side(found, _loss_rows),
                f"Loss decomposition ({mode}): coverage, and calibration of forecasts",
            )
    print_parts(runs, labels)
    for run in runs:
        for sentence in run["missing"]:
            print_line(f"{labels[run['run']]}: {sentence}")
        for note in dict.fromkeys(_notes(run)):
            print_line(f"{labels[run['run']]}: {note}")


def _print_hierarchy(runs: Sequence[Content], labels: Mapping[str, str]) -> None:
    rows, nulls = [], []
    for run in runs:
        for found in run["stability"].values():
            for kind, h in ({} if found is None else found["hierarchy"]).items():
                who = {"run": labels[run["run"]], "alpha": kind}
                groups = {name: h[name] for name in ("dominant", "gap", "subdominant")}
                rows.append(
                    {**who, "k*": h["k_star"], **groups, "margin": _interval(h["margin"]), "verdict": h["verdict"]}
                )
                for name, null in h["nulls"].items():
                    nulls.append(
                        {
                            **who,
                            "null": name,
                            "margin on its windows": _short(h["matched_margin"]),
                            "margin 5, 50, 95 %": ", ".join(_short(x) for x in null["margin"]),
                            "order holds in": null["ordering_share"],
                            "p": null["p_value"],
                        }
                    )
    print_table(rows, "Does alpha fall around k*: dominant > gap > subdominant?")
    print_table(nulls, "The same in surrogates: noise of the same norms; noise and a constant drift")


def _print_modes(runs: Sequence[Content], labels: Mapping[str, str]) -> None:
    rows = []
    for run in runs:
        for mode, found in run["stability"].items():
            for m in [] if found is None else found["modes"][:4]:
                rows.append(
                    {
                        "run": labels[run["run"]],
                        "mode": mode,
                        "j": m["j"],
                        "sin bound": m["bound"],
                        "vacuous": m["vacuous"],
                        "sin lag 1": m["rotation"],
                        "sin lag W": m["rotation_far"],
                        "tightness": m["tightness"],
                        "span vacuous": m["span_vacuous"],
                    }
                )
    print_table(rows, "Rotation of the leading modes and its bounds, medians over windows")


def _side_by_side(
    columns: Sequence[tuple[str, Content]], rows_of: Callable[[Content], dict[str, str]]
) -> list[dict[str, str]]:
    cells = {label: rows_of(content) for label, content in columns}
    names = dict.fromkeys(name for rows in cells.values() for name in rows)
    return [{"quantity": name, **{label: rows.get(name, "-") for label, rows in cells.items()}} for name in names]


def _curvature_rows(c: Content) -> dict[str, str]:
    rows = {"probes": cell(c["n_probes"])}
    for prefix, name in (("", "h"), ("preconditioned_", "h~ = v P^-1 H v")):
        rows |= {f"{name}, mode {j + 1}": _interval(x) for j, x in enumerate(c[f"{prefix}mode"])}
        rows[f"{name}, random in the span"] = _interval(c[f"{prefix}span"])
        rows[f"{name}, random"] = _interval(c[f"{prefix}random"])
    return rows | {
        "h modes / h random": _interval(c["mode_over_random"]),
        "h modes / h span": _interval(c["mode_over_span"]),
        "h mode 1 / top eigenvalue": _interval(c["mode_1_over_top"]),
        "share of modes with h < 0": cell(c["negative_share"]),
        "top eigenvalues": cell(c["eigenvalues"]) or "-",
        "lr x top eigenvalue of P^-1 H": cell(c["lr_times_top"]),
        "eta s (h~ + omega), by mode": cell(c["regime"]),
        "slope of log d on log(h~ + omega)": _interval(c["slope"]),
        "  of random directions in the span": _interval(c["span_slope"]),
        "  expected at rest, white noise": cell(c["expected_slope"]["white"]),
        "  expected at rest, noise like H": cell(c["expected_slope"]["proportional"]),
        "slope is -1/2": c["verdict"],
    }


def _loss_rows(c: Content) -> dict[str, str]:
    rows = {
        "probes": cell(c["n_probes"]),
        "modes kept": cell(c["k"]),
        "in-sample identity, largest relative error": cell(c["in_sample_error"]),
        "share of <g_val, next update> in the modes": _interval(c["coverage"]),
        "share of ||g_val||^2 in the modes": cell(c["gradient_coverage"]),
        "  by chance": cell(c["chance_coverage"]),
        "probes in the calibration": f"{c['calibration_n']} ({c['calibration_status']})",
    }
    for name, fit in c["forecasts"].items():
        rows[f"{name}: slope"] = _interval(fit["slope"])
        rows[f"{name}: R^2 against no change"] = _interval(fit["r2_zero"])
    for kind, test in c["alpha"].items():
        rows[f"{kind}: R^2 gained by alpha, best scales"] = _interval(test["r2_gain"])
        nested = test["nested_difference"]
        why = test["reason"] and "no nested test"
        rows[f"{kind}: error saved ahead, Wald p"] = (
            f"{_interval(nested)}, p = {cell(test['wald_p'])}" if nested is not None else why or "-"
        )
        rows[f"{kind}: alpha improves"] = test["verdict"]
    return rows


def _notes(run: Content) -> list[str]:
    parts = [*run["stability"].values(), run["curvature"], *run["loss"].values()]
    return [note for part in parts if part is not None for note in part["notes"]]


def _labels(names: Sequence[str]) -> list[str]:
    """Last parts of the paths, where these tell the runs apart."""
    last = [name.rstrip("/").split("/")[-1] for name in names]
    return last if len(set(last)) == len(last) else [f"{i + 1} {name}" for i, name in enumerate(last)]


def _interval(x: Mapping[str, float]) -> str:
    value = cell(x["value"])
    return value if cell(x["low"]) == "-" else f"{_short(x['value'])} [{_short(x['low'])}, {_short(x['high'])}]"


def _short(value: float) -> str:
    return "-" if cell(value) == "-" else f"{value:.3g}"
