"""The command ``verify``: every prediction of the paper on some runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import OutputError
from . import options as o
from .progress import Progress
from .render import print_json, print_line, print_table

if TYPE_CHECKING:
    from ..predictions import Verdict


def verify(
    runs: Annotated[list[str], typer.Argument(help="Run folders, or folders above them.")],
    id_: Annotated[
        list[str] | None, typer.Option("--id", help="A prediction, T1 to AR; repeatable; all if none.")
    ] = None,
    mode: Annotated[str, typer.Option(help="strict (our tests), author (the published rules) or both.")] = "both",
    window: o.Window = 10,
    stride: Annotated[int, typer.Option(help="Updates added up into one row.")] = 1,
    block: Annotated[str, typer.Option(help="Block, or a pattern such as 'layers.0*'.")] = "all",
    draws: Annotated[int, typer.Option(help="Histories of each null.")] = 99,
    seed: Annotated[int, typer.Option(help="Of draws, intervals and permutations.")] = 0,
    markdown: Annotated[Path | None, typer.Option(help="Also write the table to this file, in Markdown.")] = None,
    json: o.Json = False,
) -> None:
    """Judge every prediction of the paper on your runs: the author's rule, ours, nulls and baselines."""
    from ..predictions import verify as judge
    from ..predictions.rows import as_markdown

    with Progress("predictions") as progress:
        verdicts = judge(
            runs,
            ids=id_,
            window=window,
            stride=stride,
            block=block,
            draws=draws,
            seed=seed,
            mode=mode,  # type: ignore[arg-type]
            progress=progress.update,
        )
    if markdown is not None:
        try:
            markdown.write_text(as_markdown(verdicts), encoding="utf-8")
        except OSError as error:
            raise OutputError(f"{markdown} must be writable; got {error.strerror}. Choose another file.") from error
    if json:
        print_json([verdict.as_dict() for verdict in verdicts])
    else:
        print_verdicts(verdicts, mode)


def print_verdicts(verdicts: Sequence[Verdict], mode: str = "both") -> None:
    """The table, the reasons below it, and the commands for what is missing."""
    from ..predictions.rows import verdict_row

    rows = [verdict_row(verdict) for verdict in verdicts]
    left_out = {"strict": {"author's rule", "on its nulls"}, "author": {"ours", "value", "null", "baseline"}}
    hidden = {"statistic", *left_out.get(mode, ())}  # what was measured is said below, at full width
    columns = [name for name in rows[0] if name not in hidden] if rows else []
    print_table(rows, f"{len(rows)} predictions", columns)
    for verdict in verdicts:
        measured = f" [{verdict.statistic}]" if verdict.statistic else ""
        print_line(f"{verdict.id}  {verdict.claim}{measured}  {verdict.outcome}: {verdict.reason}")
    missing = [verdict for verdict in verdicts if verdict.command and verdict.outcome == "not tested"]
    for verdict in missing:
        print_line(f"to test {verdict.id}: {verdict.command}")
