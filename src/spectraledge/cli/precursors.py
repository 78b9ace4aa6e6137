"""The command ``precursors``: what announces grokking, made on some seeds and judged once on others."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from . import options as o
from .progress import Progress
from .render import print_json, print_line, print_table, rate

if TYPE_CHECKING:
    from ..detect.precursors.final import Comparison, Final, Judged
    from ..detect.precursors.protocol import Verdict
    from ..detect.precursors.search import Search


def precursors(
    development: Annotated[Path | None, typer.Argument(help="Folder of runs to make rules on.")] = None,
    freeze: Annotated[Path | None, typer.Option(help="Write the chosen rules to this file.")] = None,
    final: Annotated[
        Path | None, typer.Option(help="Folder of runs of other seeds, to judge frozen rules on.")
    ] = None,
    rules: Annotated[Path | None, typer.Option(help="Frozen rules; those of the package where not given.")] = None,
    best: Annotated[int, typer.Option(help="Candidates shown.")] = 15,
    draws: Annotated[int, typer.Option(help="Resamples of seeds behind intervals.")] = 2000,
    plot: Annotated[Path | None, typer.Option(help="Draw the outcome into this file.")] = None,
    json: o.Json = False,
) -> None:
    """Search for what precedes grokking on development runs, or judge frozen rules on final ones."""
    from ..detect.precursors.final import judge_final
    from ..detect.precursors.frozen import freeze as fix
    from ..detect.precursors.frozen import load_frozen
    from ..detect.precursors.rules import Judging
    from ..detect.precursors.runs import load_runs
    from ..detect.precursors.search import search
    from ..detect.precursors.shipped import shipped_file
    from ..errors import SettingError

    if (development is None) == (final is None):
        given = "neither" if final is None else "both"
        raise SettingError(
            f"either runs to make rules on or --final runs to judge them on must be given; got {given}. "
            "Write `spectraledge precursors FOLDER --freeze FILE`, then `spectraledge precursors --final FOLDER`."
        )
    with Progress("runs") as progress:
        if development is not None:
            judging = Judging()
            runs, left_out = load_runs(
                development, horizon=judging.horizon, progress=lambda done, n: progress.update(done, n, "read")
            )
            found = search(runs, judging, progress=lambda done, n: progress.update(done, n, "statistics"))
        else:
            frozen = load_frozen(rules or shipped_file())
            assert final is not None
            runs, left_out = load_runs(
                final,
                horizon=frozen.judging.horizon,
                refused=frozen.seeds,
                progress=lambda done, n: progress.update(done, n, "read"),
            )
            outcome = judge_final(frozen, runs, n_boot=draws)
    if development is not None:
        if freeze is not None:
            fix(found).save(freeze)
        content = search_content(found, left_out, best)
        if json:
            print_json(content)
        else:
            print_search(content, freeze)
        return
    content = final_content(outcome, left_out)
    if plot is not None:
        from ..plots.precursors import plot_precursors

        plot_precursors(outcome, frozen).savefig(plot, dpi=150)
        content["plot"] = str(plot)
    if json:
        print_json(content)
    else:
        print_final(content)


def search_content(found: Search, left_out: dict[str, str], best: int) -> dict[str, Any]:
    """Rules on development runs, every seed by rules made on the others, best first."""
    from ..detect.precursors.criterion import CRITERION, merit

    ranked = sorted(found.entries.values(), key=lambda e: merit(e, found.judging), reverse=True)
    candidates = [e for e in ranked if e.group == "candidate"][:best]
    others: dict[str, Any] = {}
    for entry in ranked:
        if entry.group != "candidate":
            others.setdefault(entry.rule.statistic, entry)
    rows = [
        {
            "rule": entry.rule.name,
            "group": entry.group,
            **_verdict(entry.held_out),
            "in_sample_sensitivity": entry.in_sample.table.sensitivity,
            "in_sample_false_alarms": entry.in_sample.table.false_alarms,
            "at_start": entry.at_start,
            "threshold": entry.rule.threshold,
            "cells": entry.held_out.cells,
        }
        for entry in [*candidates, *others.values()]
    ]
    return {
        "runs": len(found.runs),
        "seeds": sorted({run.seed for run in found.runs}),
        "rules_tried": len(found.entries),
        "criterion": CRITERION,
        "winner": found.winner,
        "best_baseline": found.best_baseline,
        "rules": rows,
        "unavailable": found.unavailable,
        "left_out": left_out,
    }


def final_content(outcome: Final, left_out: dict[str, str]) -> dict[str, Any]:
    """Frozen rules on final runs."""
    return {
        "runs": [
            {"name": run.name, "cell": run.cell, "seed": run.seed, "event": run.event, "end": run.end}
            for run in outcome.runs
        ],
        "winner": outcome.winner,
        "rules": [_judged(one) for one in outcome.judged.values()],
        "comparisons": [_comparison(one) for one in outcome.comparisons],
        "alarms": {
            name: dict(zip((run.name for run in outcome.runs), one.verdict.alarms.tolist()))
            for name, one in outcome.judged.items()
        },
        "accuracy_at_alarm": {
            name: _by_cell(outcome, one.accuracy[one.verdict.hits], one.verdict.hits)
            for name, one in outcome.judged.items()
        },
        "unavailable": outcome.unavailable,
        "left_out": left_out,
    }


def _by_cell(outcome: Final, values: np.ndarray, chosen: np.ndarray) -> dict[str, float]:
    """Median of the values of each cell."""
    cells = np.array([run.cell for run in outcome.runs])[chosen]
    return {str(cell): float(np.median(values[cells == cell])) for cell in np.unique(cells)}


def _verdict(verdict: Verdict) -> dict[str, Any]:
    t, leads = verdict.table, verdict.leads
    return {
        "hits": t.hits,
        "positives": t.n_positive,
        "sensitivity": t.sensitivity,
        "sensitivity_interval": list(t.sensitivity_interval),
        "false_alarms": t.false_alarms,
        "negatives": t.n_negative,
        "false_alarm_interval": list(t.false_alarm_interval),
        "median_lead": leads.median,
        "lead_interval": [leads.low, leads.high],
        "lead_share": leads.share,
    }


def _judged(one: Judged) -> dict[str, Any]:
    return {
        "rule": one.name,
        "group": one.group,
        "threshold": one.threshold,
        **_verdict(one.verdict),
        "areas": {f"{margin:g}": area for margin, area in one.areas.items()},
        "cells": one.verdict.cells,
    }


def _comparison(one: Comparison) -> dict[str, Any]:
    return {
        "baseline": one.baseline,
        "only_winner": one.only_winner,
        "only_baseline": one.only_baseline,
        "p": one.p,
        "warning": one.warning,
        "warning_interval": [one.low, one.high],
    }


def print_search(content: dict[str, Any], freeze: Path | None) -> None:
    """For people."""
    print_line(content["criterion"])
    print_table(
        [_row(row) | {"at once": row["at_start"]} for row in content["rules"]],
        f"{content['runs']} runs, seeds {', '.join(map(str, content['seeds']))}, {content['rules_tried']} rules; "
        "each seed by rules made on the others",
    )
    print_line(f"chosen: {content['winner']}; best baseline: {content['best_baseline']}")
    if freeze is not None:
        print_line(f"frozen in {freeze}")
    for name, reason in content["left_out"].items():
        print_line(f"left out: {name} ({reason})")


def print_final(content: dict[str, Any]) -> None:
    """For people."""
    print_table(
        [_row(row) | _areas(row) for row in content["rules"]],
        f"{len(content['runs'])} runs that no rule was made on; chosen rule: {content['winner']}",
    )
    print_table(
        [
            {
                "against": row["baseline"],
                "only chosen": row["only_winner"],
                "only baseline": row["only_baseline"],
                "p (McNemar)": f"{row['p']:.2g}",
                "earlier by [steps]": f"{row['warning']:.0f} ({_whole(row['warning_interval'])})",
            }
            for row in content["comparisons"]
        ],
        "Run by run; a run not found counts as a warning of 0 steps",
    )
    accuracy = content["accuracy_at_alarm"].get(content["winner"], {})
    positive = {run["cell"] for run in content["runs"] if run["event"] is not None}
    cells = sorted({run["cell"] for run in content["runs"]}, key=lambda cell: (cell not in positive, cell))
    print_table(
        [
            {
                "cell": cell,
                "": "groks" if cell in positive else "cannot",
                **{row["rule"]: _count(row["cells"].get(cell)) for row in content["rules"][:4]},
                "test accuracy then": f"{accuracy[cell]:.3f}" if cell in positive and cell in accuracy else "",
            }
            for cell in cells
        ],
        "Alarms by cell: found in time, or false; with the test accuracy at alarms of the chosen rule (median)",
    )
    for name in content["unavailable"]:
        print_line(f"not available: {name}")
    for name, reason in content["left_out"].items():
        print_line(f"left out: {name} ({reason})")


def _row(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "rule": row["rule"],
        "group": row["group"],
        "found": rate(row["hits"], row["positives"], row["sensitivity_interval"]),
        "false alarms": rate(row["false_alarms"], row["negatives"], row["false_alarm_interval"]),
        "median lead": f"{_finite(row['median_lead'], math.nan):.0f} ({_whole(row['lead_interval'])})",
    }


def _areas(row: dict[str, Any]) -> dict[str, Any]:
    return {f"AUC -{margin}": f"{area:.2f}" for margin, area in row["areas"].items()}


def _count(pair: tuple[int, int] | None) -> str:
    return "-" if pair is None else f"{pair[0]}/{pair[1]}"


def _whole(ends: list[float]) -> str:
    return " to ".join(f"{end:.0f}" if math.isfinite(end) else "?" for end in ends)


def _finite(x: float, otherwise: float) -> float:
    return x if math.isfinite(x) else otherwise
