"""Content on a terminal: tables for people, or JSON and nothing else."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from .content import Content, plain

_WIDTH = 118  # where standard output is no terminal: files and pipes should not wrap tables at 80
_MOST_BLOCKS = 24
_SERIES_HEAD, _SERIES_TAIL = 20, 10


def print_json(content: Any) -> None:
    """Write content as strict JSON."""
    json.dump(plain(content), sys.stdout, indent=2, allow_nan=False)
    sys.stdout.write("\n")


def console() -> Console:
    """Standard output, made when used: a test or a pipe may have replaced it."""
    return Console(file=sys.stdout, width=None if sys.stdout.isatty() else _WIDTH, highlight=False, soft_wrap=False)


def print_table(rows: Sequence[Mapping[str, Any]], title: str = "", columns: Sequence[str] = ()) -> None:
    """One table; the columns are the keys of the first row where none are named."""
    if not rows:
        return
    columns = columns or list(rows[0])
    table = Table(title=escape(title) or None, title_justify="left", title_style="bold")
    for name in columns:
        number = all(isinstance(row.get(name), int | float | None) for row in rows)
        table.add_column(escape(name), justify="right" if number else "left", overflow="fold")
    for row in rows:
        table.add_row(*(escape(cell(row.get(name))) for name in columns))
    console().print(table)


def print_line(text: str) -> None:
    """One line of words."""
    console().print(escape(text), soft_wrap=True)


def print_overview(content: Content) -> None:
    """What a recording holds."""
    summary = content["recording"]
    print_line(str(summary["path"] or "recording in memory"))
    steps = f"steps {cell(summary['first_step'])} to {cell(summary['last_step'])}"
    print_line(
        f"{summary['n_updates']} updates, {steps}, "
        f"{cell(summary['steps_per_update'])} steps an update, {cell(summary['n_parameters'])} parameters, "
        f"{summary['lags']} lags (windows up to {summary['largest_window']}), {summary['update_dtype']}"
    )
    told = {
        "segments": summary["segments"] if summary["segments"] > 1 else 0,
        "seams": summary["seams"],
        "events": summary["events"],
        **{f"updates flagged {flag}": n for flag, n in summary["flags"].items()},
        **{name.replace("_", " "): n for name, n in summary["damage"].items()},
    }
    remarks = [f"{name}: {'yes' if n is True else n}" for name, n in told.items() if n]
    print_line(f"remarks: {', '.join(remarks)}" if remarks else "no seams, no damage")
    if not summary["closed"]:
        print_line("the run has not ended in order, or is still going on")
    if summary["meta"].get("origin") == "checkpoints":
        _print_origin(summary["meta"])
    blocks = content["blocks"]
    print_table(blocks[:_MOST_BLOCKS], "Blocks")
    if len(blocks) > _MOST_BLOCKS:
        print_line(f"and {len(blocks) - _MOST_BLOCKS} more blocks (--json lists all)")
    print_table([{"metric": name, **values} for name, values in summary["metrics"].items()], "Metrics")
    if content["grok"]:
        print_table(content["grok"], "Grok step, by definition")


def _print_origin(meta: Content) -> None:
    """What an analysis of checkpoints left out, as its header says."""
    tied = [f"{kept} = {' = '.join(others)}" for kept, others in meta.get("tied", {}).items()]
    print_line(
        f"from {meta.get('n_checkpoints')} checkpoints in {meta.get('dtype')}; buffers and integers left out: "
        f"{len(meta.get('left_out', []))}; tied weights counted once: {', '.join(tied) or 'none'}"
    )
    for skipped in meta.get("skipped", []):
        print_line(f"skipped step {skipped['step']}: {skipped['reason']}")


def print_series(rows: Sequence[Mapping[str, Any]], title: str) -> None:
    """Checkpoints before they are read; of a long series both ends and whatever has a problem."""
    middle = range(_SERIES_HEAD, len(rows) - _SERIES_TAIL)
    hidden = {i for i in middle if rows[i]["problem"] is None} if len(middle) > 1 else set()
    print_table([row for i, row in enumerate(rows) if i not in hidden], title)
    if hidden:
        print_line(f"and {len(hidden)} readable checkpoints between them (--json lists all)")


def print_spectrum(spectrum: Content) -> None:
    """The last window's singular values and gaps."""
    title = (
        f"Spectrum of the window of {spectrum['window']} updates that ends at step {spectrum['step']} "
        f"(block {spectrum['block']}, stride {spectrum['stride']}, {spectrum['normalisation']})"
    )
    modes = [
        {"j": m["j"], "sigma_j": m["sigma"], "sigma_j/sigma_j+1": m["ratio"], "resolved": m["resolved"]}
        for m in spectrum["modes"]
    ]
    print_table(modes, title)
    print_table(spectrum["gaps"], "Largest gap k*, by rule (p-value against noise of the same norms)")
    if spectrum["incomplete_after"]:
        print_line(f"{spectrum['incomplete_after']} later windows are cut by seams or lost updates")
    if plain(spectrum["p_eff"]) is None:
        print_line("no p-value: the dimension of the noise is not known; it takes more lags or a larger stride")


def cell(value: Any) -> str:
    """A value for people.

    Example:
        >>> cell(1234567), cell(0.123456789), cell(None), cell(True)
        ('1,234,567', '0.12346', '-', 'yes')
    """
    value = plain(value)
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.5g}"
    if isinstance(value, list):
        return ", ".join(cell(item) for item in value)
    return str(value)


def rate(k: int, n: int, ends: Sequence[float]) -> str:
    """A proportion with its interval.

    >>> rate(3, 4, (0.19, 0.99))
    '3/4 (0.19-0.99)'
    """
    return f"{k}/{n} ({two(ends[0])}-{two(ends[1])})"


def two(x: float) -> str:
    """Two decimals, or a dash.

    >>> two(0.954), two(float("nan"))
    ('0.95', '-')
    """
    return f"{x:.2f}" if x == x else "-"
