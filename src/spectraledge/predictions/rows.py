"""Verdicts as rows of a table: in few words, the same on a terminal, on a page and in Markdown."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from .verdict import Verdict


def verdict_row(verdict: Verdict) -> dict[str, Any]:
    """One line of the table, in few words."""
    author = verdict.author
    ran = author.outcome != "not applicable"
    baseline = _closest(verdict)
    return {
        "id": verdict.id,
        "author's rule": f"{author.outcome} ({author.passed} of {author.n})" if ran else "-",
        "on its nulls": _percent(author.null_pass_rate),
        "ours": verdict.outcome,
        "value": f"{_number(verdict.value)}{_interval(verdict)}".strip() or "-",
        "statistic": f"{verdict.statistic} {_number(verdict.value)}{_interval(verdict)}".strip() or "-",
        "n": ", ".join(f"{_count(n)} {what}" for what, n in verdict.n.items()) or "-",
        "null": _null(verdict),
        "baseline": baseline,
    }


def as_markdown(verdicts: Sequence[Verdict]) -> str:
    """The table with claims and reasons, for a README or a record."""
    names = ["id", "claim", "author's rule", "on its nulls", "ours", "statistic", "n", "null", "baseline", "why"]
    lines = [f"| {' | '.join(names)} |", f"|{' --- |' * len(names)}"]
    for verdict in verdicts:
        cells = {**verdict_row(verdict), "claim": verdict.claim, "why": verdict.reason}
        lines.append(f"| {' | '.join(str(cells[name]).replace('|', '/') for name in names)} |")
    return "\n".join(lines) + "\n"


def _closest(verdict: Verdict) -> str:
    known = {name: value for name, value in verdict.baselines.items() if math.isfinite(value)}
    if not known:
        return "-"
    best = max(known, key=lambda name: abs(known[name]))
    return f"{best} {_number(known[best])}"


def _null(verdict: Verdict) -> str:
    words = [verdict.null] if verdict.null else []
    if math.isfinite(verdict.null_pass_rate):
        words.append(f"passes {_percent(verdict.null_pass_rate)}")
    if math.isfinite(verdict.p):
        words.append(f"p {verdict.p:.2g}")
    return ", ".join(words) or "-"


def _interval(verdict: Verdict) -> str:
    low, high = verdict.interval
    return f" [{_number(low)}, {_number(high)}]" if math.isfinite(low) or math.isfinite(high) else ""


def _number(value: float) -> str:
    return f"{value:.3g}" if math.isfinite(value) else ""


def _percent(value: float) -> str:
    return f"{100 * value:.0f} %" if math.isfinite(value) else "-"


def _count(value: float) -> str:
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:.3g}"
