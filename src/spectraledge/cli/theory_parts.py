"""The further parts of ``theory``: flows, adiabatic parameter, phases, survival, Krylov count, edge, maximality.

Each is a function of a recording whose result has ``rows`` for people and ``summary`` for programs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from inspect import signature
from typing import Any

from ..recording import Recording
from .content import Content
from .render import print_line, print_table

Part = Callable[..., Any]

TITLES = {
    "flows": "Forecasts out of sample: squared error over that of persistence (* beats persistence and AR(1))",
    "gap_flow": "Gap flow: regression of the forward change on its terms (1, 1, 1 if it holds); 1/gamma in snapshots",
    "dyson": "Level repulsion: spacing ratios and avoided crossings against surrogates",
    "alpha_loop": "Alpha (disjoint windows) and gap: what each says of the other's future",
    "adiabatic": "Adiabatic parameter: windows, and where they lie in the null of drift and noise",
    "phases": "Three phases of the gap ratio: two breaks against fewer, and against surrogates of the schedule",
    "survival": "Survival of the dominant span",
    "krylov": "Krylov count of active modes against k*",
    "edge": "Edge of stability",
    "maximality": "Does the collapse of the gap at k* cost progress that collapses elsewhere do not?",
}
_INTERVAL = {"": "value", "_low": "low", "_high": "high"}
MODED = ("adiabatic", "phases", "krylov")


def part_functions() -> dict[str, Part]:
    """The parts by name, in the order in which they are shown."""
    from ..dynamics.adiabatic import adiabatic
    from ..dynamics.edge import edge
    from ..dynamics.feedback import alpha_loop_tests
    from ..dynamics.flows import compare_flows
    from ..dynamics.gap_dynamics import gap_flow_terms
    from ..dynamics.horizon import krylov
    from ..dynamics.maximality import maximality
    from ..dynamics.phases import phases
    from ..dynamics.repulsion import dyson_tests
    from ..dynamics.survival import survival

    return {
        "flows": compare_flows,
        "gap_flow": gap_flow_terms,
        "dyson": dyson_tests,
        "alpha_loop": alpha_loop_tests,
        "adiabatic": adiabatic,
        "phases": phases,
        "survival": survival,
        "krylov": krylov,
        "edge": edge,
        "maximality": maximality,
    }


def options_of(part: str, window: int, block: str, stride: int, seed: int) -> dict[str, Any]:
    """Arguments of one part beside the recording."""
    given = {"window": window, "block": block, "stride": stride, "seed": seed}
    accepted = signature(part_functions()[part]).parameters
    return {name: value for name, value in given.items() if name in accepted}


def made_part(part: str, recording: Recording, mode: str | None, options: Mapping[str, Any]) -> Content:
    """Summary and rows of one part."""
    result = part_functions()[part](recording, **options, **({} if mode is None else {"mode": mode}))
    summary, rows = result.summary(), result.rows()
    if part == "gap_flow":  # its own rows are one a probe
        rows = _gap_flow_rows(summary)
    return {"summary": summary, "rows": rows}


def _gap_flow_rows(summary: Content) -> list[dict[str, Any]]:
    """One row a form of the flow: coefficients of its terms in a regression, each 1 if the form holds."""
    shares, brier = summary["shares"], summary["brier"]
    common: dict[str, Any] = {
        "shares T1, T2, T3": ", ".join(f"{shares[name]:.2g}" for name in ("asymmetry", "damping", "drive")),
        "1/gamma": summary["relaxation_snapshots"],
        "Brier, base rate": f"{brier['score']:.2g}, {brier['reference']:.2g}",
    }
    rows: list[dict[str, Any]] = []
    for form, fit in summary["fits"].items():
        row: dict[str, Any] = {"form": form, "n": f"{fit['n']} ({fit['status']})"}
        for i, (value, low, high) in enumerate(zip(fit["coefficients"], fit["low"], fit["high"])):
            row[f"T{i + 1} [95 %]"] = f"{value:.2g} [{low:.2g}, {high:.2g}]" if value == value else "-"
        rows.append({**row, "R^2": fit["r_squared"], **(common if not rows else dict.fromkeys(common, ""))})
    return rows


def _shown(part: str, rows: Sequence[Content], n_windows: int) -> list[dict[str, Any]]:
    """Rows for people: forecasts side by side, survival at a few distances, long rows cut to what is read."""
    if part == "survival":
        rows = [row for row in rows if row["lag"] in (1, n_windows) or row is rows[-1]]
    if part == "flows":
        return _forecasts(rows)
    if part == "phases":
        return [_phase_row(row) for row in rows]
    if part == "maximality":
        names = ("outcome", "effect", "p_value", "smallest_p", "n_events", "n_unmatched", "n_other", "verdict")
        rows = [{name: row[name] for name in names} for row in rows]
    return [_packed(row) for row in rows]


def _forecasts(rows: Sequence[Content]) -> list[dict[str, Any]]:
    """One row a quantity and horizon; on the probed windows only, where the flows are there to compare."""
    windows = "probed" if any(row["windows"] == "probed" for row in rows) else "all"
    table: dict[tuple[Any, ...], dict[str, Any]] = {}
    names = dict.fromkeys(_predictor(row) for row in rows if row["predictor"] != "persistence")
    for row in rows:
        if row["windows"] != windows or row["predictor"] == "persistence" or row["quantity"].startswith("lambda"):
            continue
        where = (row["quantity"], row["horizon"])
        start = {"of": where[0], "ahead": where[1], "n": row["n"], **dict.fromkeys(names, "-")}
        value = row["vs_persistence"]
        if value == value:
            table.setdefault(where, start)[_predictor(row)] = _ratio(value) + "*" * bool(row["winner"])
    return list(table.values())


def _predictor(row: Content) -> str:
    name = str(row["predictor"]).removeprefix("signal_").removeprefix("gap_")
    short = {"rank2_first_order": "rank 2", "rank2_realised": "its row known", "exact_rank2": "exact"}
    return {**short, "consistent": "consist."}.get(name, name)


def _ratio(value: float) -> str:
    return f"{value:.0f}" if value >= 10 or value < 1e-3 else f"{value:.2g}"


def _phase_row(row: Content) -> dict[str, Any]:
    names = ("rows", "position", "three_phases", "n_breaks")
    kept = {name: row[name] for name in names if name in row}
    found = [row[name] for name in ("break_1", "break_2") if isinstance(row.get(name), float)]
    breaks = ", ".join(f"{step:.0f}" for step in found if step == step)
    return kept | {"breaks": breaks, "schedule p": row.get("schedule_p"), "verdict": row.get("verdict")}


def print_parts(runs: Sequence[Content], labels: Mapping[str, str]) -> None:
    """One table a part, the runs below each other."""
    for part, title in TITLES.items():
        rows: list[dict[str, Any]] = []
        lines: list[str] = []
        for run in runs:
            for mode, found in run.get(part, {}).items():
                if found is None:
                    continue
                who = {"run": labels[run["run"]]} | ({"mode": mode} if mode else {})
                rows += [{**who, **row} for row in _shown(part, found["rows"], found["summary"].get("window", 10))]
                summary = found["summary"]
                if isinstance(summary.get("verdict"), str):
                    lines.append(f"{labels[run['run']]}: {part}: {summary['verdict']}")
                if part == "edge" and summary["n_probes"]:
                    ratio = _packed({f"x{end}": summary["ratio"][n] for end, n in _INTERVAL.items()})["x"]
                    lines.append(
                        f"{labels[run['run']]}: edge: sharpness in the optimizer's metric over its limit {ratio}"
                    )
                lines += [f"{labels[run['run']]}: {part}: {note}" for note in summary.get("notes", ())]
        if rows:
            print_table(rows, title)
        for line in dict.fromkeys(lines):
            print_line(line)


def _packed(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row with its intervals in one cell each."""
    out: dict[str, Any] = {}
    for name, value in row.items():
        stem = name.removesuffix("_low").removesuffix("_high")
        if stem != name and stem in row:
            continue
        low, high = row.get(f"{name}_low"), row.get(f"{name}_high")
        short = f"{value:.3g}" if isinstance(value, float) else value
        if isinstance(value, float) and isinstance(low, float) and isinstance(high, float) and low == low:
            out[name] = f"{short} [{low:.3g}, {high:.3g}]"
        else:
            out[name] = "-" if isinstance(value, float) and value != value else short
    return out
