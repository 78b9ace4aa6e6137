"""One HTML file that holds everything it shows: script, style and numbers. It asks no host for anything."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from ..errors import require
from ..plots.kind import Kind
from ..plots.panel import STEPS, Band, Line, Mark, Panel, Points, legend
from .build import MAX_POINTS, figures_of
from .header import command, table_groups
from .runs import Run

if TYPE_CHECKING:
    from ..predictions.verdict import Verdict

_FULL_RUNS = 4  # with more runs, each gets fewer points, so that the page keeps its size


def render(
    runs: Sequence[Run],
    panels: Sequence[tuple[Kind, list[Panel]]],
    *,
    title: str,
    summary: Sequence[str] | None,
    verdicts: Sequence[Verdict] | None = None,
) -> str:
    """The page.

    Args:
        runs: Runs, one a column.
        panels: Kinds in order, each with one panel a run.
        title: Heading.
        summary: What the runs share and how they differ, in sentences.
        verdicts: What is said of each prediction.

    Raises:
        MissingDependencyError: If plotly or jinja2 is not installed.
    """
    from .. import __version__

    jinja2: Any = require("jinja2", "plot")
    offline: Any = require("plotly.offline", "plot")
    limit = max(200, MAX_POINTS * _FULL_RUNS // max(len(runs), _FULL_RUNS))
    sections, figures = [], {}
    for kind, row in panels:
        built = figures_of(row, limit)
        cells = []
        for i, (panel, figure) in enumerate(zip(row, built)):
            name = f"{kind.key}-{i}"
            if figure is not None:
                figures[name] = {**figure, "steps": kind.x_label == STEPS}
            height = None if figure is None else figure["layout"]["height"]
            cells.append({"id": name, "panel": panel, "height": height, "run": runs[i].name})
        sections.append({"kind": kind, "cells": cells, "legend": _legend(row)})
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(_text("page.html.j2")).render(
        title=title,
        summary=list(summary or []),
        verdicts=_rows(verdicts) if verdicts else [],
        runs=runs,
        groups=table_groups(runs),
        commands=[command(run) for run in runs],
        sections=sections,
        version=__version__,
        created=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        style=jinja2.utils.markupsafe.Markup(_text("page.css")),
        plotly=jinja2.utils.markupsafe.Markup(offline.get_plotlyjs()),
        script=jinja2.utils.markupsafe.Markup(_text("page.js")),
        figures=jinja2.utils.markupsafe.Markup(embed(figures)),
    )


def _rows(verdicts: Sequence[Verdict]) -> list[dict[str, Any]]:
    from ..predictions.rows import verdict_row  # a page without verdicts need not load what judges

    return [{"verdict": verdict, **verdict_row(verdict)} for verdict in verdicts]


def embed(value: Any) -> str:
    """JSON that may stand inside a script element: no text in it can end the element.

    >>> embed({"a": "</script>"})
    '{"a":"\\\\u003c/script>"}'
    """
    return json.dumps(value, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def _legend(panels: Sequence[Panel]) -> list[dict[str, str]]:
    out = []
    for name, layer in legend(panels).items():
        look = {"name": name, "color": layer.color, "shape": "line", "dash": "solid"}
        if isinstance(layer, Band):
            look["shape"] = "band"
        elif isinstance(layer, Points):
            look["shape"] = "point"
        elif isinstance(layer, Mark):
            look |= {"shape": "mark", "dash": layer.dash}
        elif isinstance(layer, Line):
            look["dash"] = layer.dash
        out.append(look)
    return out


def _text(name: str) -> str:
    return (files(__package__) / name).read_text(encoding="utf-8")
