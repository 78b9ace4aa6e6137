"""Print the tables of docs/theory-on-a-real-run.md from theory.json, which `spectraledge theory ... --json` wrote."""

import json
import math
import sys
from pathlib import Path

content = json.loads((Path(__file__).parent / "theory.json").read_text())
runs = {Path(run["run"]).name: run for run in content["runs"]}
names = list(runs)


def number(x: object) -> str:
    if not isinstance(x, int | float) or isinstance(x, bool):
        return str(x)
    if math.isnan(x):
        return "–"
    return f"{x:.0f}" if abs(x) >= 100 else f"{x:.3g}"


def interval(x: dict) -> str:
    low, high = number(x["low"]), number(x["high"])
    return number(x["value"]) if low == "–" else f"{number(x['value'])} [{low}, {high}]"


def table(title: str, rows: dict[str, list[str]]) -> None:
    sys.stdout.write(f"\n### {title}\n\n| | {' | '.join(names)} |\n|{' --- |' * (len(names) + 1)}\n")
    for name, cells in rows.items():
        sys.stdout.write(f"| {name} | {' | '.join(cells)} |\n")


def each(function) -> list[str]:
    cells = []
    for run in runs.values():
        try:
            cells.append(function(run))
        except (KeyError, TypeError, IndexError):
            cells.append("–")
    return cells


rows = {}
for mode, kinds in (
    ("strict", ("overlap2_lagW", "overlap2_lag1", "dk")),
    ("author", ("dk_dlam", "dk_f", "half_cos")),
):
    for kind in kinds:

        def h(run, mode=mode, kind=kind):
            return run["stability"][mode]["hierarchy"][kind]

        rows[f"{kind}: α dom, gap, sub"] = each(
            lambda run, h=h: ", ".join(number(h(run)[g]) for g in ("dominant", "gap", "subdominant"))
        )
        rows[f"{kind}: margin"] = each(lambda run, h=h: interval(h(run)["margin"]))
        for null in ("norm_matched", "constant_drift"):
            rows[f"{kind}: order holds in {null}, p"] = each(
                lambda run, h=h, null=null: (
                    f"{h(run)['nulls'][null]['ordering_share']:.0%}, {number(h(run)['nulls'][null]['p_value'])}"
                )
            )
        rows[f"{kind}: verdict"] = each(lambda run, h=h: h(run)["verdict"])
table("Alpha hierarchy", rows)

rows = {"probes": each(lambda run: str(run["curvature"]["n_probes"]))}
for prefix, name in (("", "h"), ("preconditioned_", "h̃")):
    for j in range(4):
        rows[f"{name}, mode {j + 1}"] = each(lambda run, p=prefix, j=j: interval(run["curvature"][f"{p}mode"][j]))
    rows[f"{name}, random in the span"] = each(lambda run, p=prefix: interval(run["curvature"][f"{p}span"]))
    rows[f"{name}, random"] = each(lambda run, p=prefix: interval(run["curvature"][f"{p}random"]))
rows["h modes / h random in the span"] = each(lambda run: interval(run["curvature"]["mode_over_span"]))
rows["η s (h̃ + ω), modes 1 to 4"] = each(lambda run: ", ".join(map(number, run["curvature"]["regime"])))
rows["slope of log d on log(h̃ + ω)"] = each(lambda run: interval(run["curvature"]["slope"]))
rows["same, random directions in the span"] = each(lambda run: interval(run["curvature"]["span_slope"]))
rows["slope is −½"] = each(lambda run: run["curvature"]["verdict"])
table("Curvature along the modes", rows)

rows = {}
strict = "strict"
rows["in-sample identity, largest relative error"] = each(lambda run: number(run["loss"][strict]["in_sample_error"]))
rows["coverage: share of ⟨g_val, δ⟩ in the modes"] = each(lambda run: interval(run["loss"][strict]["coverage"]))
for name in next(run["loss"][strict]["forecasts"] for run in runs.values() if run["loss"].get(strict)):
    rows[f"{name}: slope"] = each(lambda run, n=name: interval(run["loss"][strict]["forecasts"][n]["slope"]))
    rows[f"{name}: R²"] = each(lambda run, n=name: interval(run["loss"][strict]["forecasts"][n]["r2_zero"]))
for kind in ("overlap2_lagW", "overlap2_lag1", "dk"):
    rows[f"α ({kind}) improves"] = each(lambda run, k=kind: run["loss"][strict]["alpha"][k]["verdict"])
table("Change of the validation loss over the next update (25 steps)", rows)

rows = {}
flows = {name: run["flows"][""]["rows"] for name, run in runs.items() if run.get("flows", {}).get("")}
order = [
    (r["quantity"], r["horizon"], r["predictor"]) for r in next(iter(flows.values())) if r["windows"] == "probed"
]
for quantity, horizon, predictor in dict.fromkeys(order):
    if predictor == "persistence" or quantity.startswith("lambda"):
        continue

    def cell(run, key=(quantity, horizon, predictor)):
        for r in run["flows"][""]["rows"]:
            if (r["quantity"], r["horizon"], r["predictor"]) == key and r["windows"] == "probed":
                return interval(
                    {"value": r["vs_persistence"], "low": r["vs_persistence_low"], "high": r["vs_persistence_high"]}
                ) + (" *" if r["winner"] else "")
        return "–"

    rows[f"{quantity}, {horizon} ahead: {predictor}"] = each(cell)
table("Forecasts: squared error over persistence, probed windows (* beats persistence and AR(1))", rows)

rows = {}
for form in ("strict", "damping", "printed", "consistent"):

    def coefficients(run, form=form):
        fit = run["gap_flow"][""]["summary"]["fits"][form]
        if fit["status"] != "ok":
            return fit["status"]
        return ", ".join(number(x) for x in fit["coefficients"])

    rows[f"coefficients of T1, T2, T3 ({form})"] = each(coefficients)
shares = ("asymmetry", "damping", "drive", "schedule", "repulsion")
rows["shares: " + ", ".join(shares)] = each(
    lambda run: ", ".join(f"{run['gap_flow']['']['summary']['shares'][s]:.2f}" for s in shares)
)
rows["relaxation time, snapshots"] = each(lambda run: number(run["gap_flow"][""]["summary"]["relaxation_snapshots"]))
rows["Brier score, base rate"] = each(
    lambda run: ", ".join(number(run["gap_flow"][""]["summary"]["brier"][k]) for k in ("score", "reference"))
)
table("Gap flow", rows)
