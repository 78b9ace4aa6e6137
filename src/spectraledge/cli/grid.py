"""The command ``grid``: many runs at once, or what they would cost."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import options as o
from .content import Content
from .progress import Progress
from .render import print_json, print_line, print_table

if TYPE_CHECKING:
    from ..experiments.grid import GridState

_SECONDS = 30.0  # between two plain lines: a grid takes hours


def grid(
    name: Annotated[str, typer.Argument(help="A grid; --list names them.")] = "",
    out: Annotated[Path | None, typer.Option(help="Folder of the grid; a stopped one goes on.")] = None,
    jobs: Annotated[int, typer.Option(help="Runs at once.")] = 1,
    engine: Annotated[str, typer.Option(help="local, ray or dask.")] = "local",
    address: Annotated[str | None, typer.Option(help="Of a running Ray or Dask cluster.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="A setting of all runs, key=value; may be repeated.")
    ] = None,
    only: Annotated[str | None, typer.Option(help="Only runs whose folders fit this pattern: 'add-*-42'.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Measure 20 steps of each kind of run and say what all would cost.")
    ] = False,
    list_: Annotated[bool, typer.Option("--list", help="Name the grids and leave.")] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace runs of other settings; finished ones of these stay.")
    ] = False,
    checkpoint_every: Annotated[int | None, typer.Option(help="Steps between checkpoints; 0 for none.")] = None,
    json: o.Json = False,
) -> None:
    """Train a grid of runs, each in its own process and folder; a stopped grid goes on."""
    from ..errors import SettingError
    from ..experiments.grid import run_grid
    from ..experiments.settings import parse_settings

    if list_:
        _list_grids(json)
        return
    if not name or (out is None and not dry_run):
        raise SettingError(
            "a grid must have a name and a folder; got none of one. "
            "Write for example: spectraledge grid modular-36 --out runs/modular-36 --jobs 2."
        )
    settings = parse_settings(set_ or [])
    if dry_run:
        _dry_run(name, out, settings, only, jobs, json)
        return
    assert out is not None
    with _display(name) as show:
        result = run_grid(
            name,
            out,
            jobs=jobs,
            engine=engine,
            address=address,
            settings=settings,
            only=only,
            overwrite=overwrite,
            checkpoint_every=checkpoint_every,
            progress=show,
        )
    content = {"out": str(result.out), **result.as_dict()}
    if json:
        print_json(content)
    else:
        print_grid(content)
    if result.unfinished:
        typer.echo(f"spectraledge: {result.sentence}", err=True)
        raise typer.Exit(1)


def print_grid(content: Content) -> None:
    """What became of each run, as a table."""
    rows = [
        {
            "run": cell["folder"],
            "experiment": cell["experiment"],
            "arm": cell["arm"],
            "seed": str(cell["seed"]),
            "state": cell["state"] + (" before" if cell["found"] else ""),
            "time": "" if cell["found"] else duration(cell["seconds"]),
            "reason": cell["reason"],
        }
        for cell in content["cells"]
    ]
    print_table(rows, f"{content['name']} in {content['out']}")
    finished = sum(cell["state"] == "finished" for cell in content["cells"])
    print_line(f"{finished} of {len(rows)} finished in {duration(content['seconds'])}; {content['jobs']} at once")


def duration(seconds: float | None) -> str:
    """Hours, minutes and seconds.

    Example:
        >>> duration(3725.4), duration(59.6), duration(None)
        ('1:02:05', '0:01:00', '?')
    """
    if seconds is None:
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def note(state: GridState) -> str:
    """A grid's state in a few words."""
    left = "" if not state.seconds_left else f", at most {duration(state.seconds_left)} left"
    return (
        f"({100 * state.share:.1f} %; of {state.total} runs {state.finished} finished, {state.running} running, "
        f"{state.failed} failed{left})"
    )


@contextmanager
def _display(name: str) -> Iterator[Any]:
    """A bar of all steps on a terminal, a line every half minute elsewhere."""
    told = time.monotonic()

    def show(state: GridState) -> None:
        nonlocal told
        over = state.finished + state.failed == state.total
        # All steps can be done before their processes have ended; the line that tells so is the last.
        later = state.share < 1 and time.monotonic() - told >= _SECONDS
        if sys.stderr.isatty() or over or later:
            told = time.monotonic()
            progress.update(state.steps_done, state.steps, note(state))

    with Progress(f"{name}, steps") as progress:
        yield show


def _list_grids(json: bool) -> None:
    from ..experiments.grid import GRIDS

    rows = [
        {"name": grid.name, "runs": len(grid.cells()), "description": grid.description} for grid in GRIDS.values()
    ]
    if json:
        print_json(rows)
    else:
        print_table(rows, "Grids")


def print_cost(content: Content) -> None:
    """What a grid would cost, as a table."""
    from ..stream.cost import human_bytes

    rows = [
        {
            "experiment": kind["experiment"],
            "measured on": kind["example"],
            "runs": kind["runs"],
            "steps": kind["steps"],
            "ms a step": f"{1e3 * kind['seconds_a_step']:.3g}",
            "ms an evaluation": f"{1e3 * kind['seconds_an_evaluation']:.3g}",
            "time of all": duration(kind["seconds"]),
            "memory of one": human_bytes(kind["memory_bytes"]),
            "recordings": human_bytes(kind["recording_bytes"]),
        }
        for kind in content["kinds"]
    ]
    print_table(rows, f"{content['name']}: {content['runs']} runs, {content['finished']} of them finished")
    print_line(
        f"at most {duration(content['seconds'])} with {content['jobs']} at once, "
        f"{human_bytes(content['memory_bytes'])} of memory, {human_bytes(content['disk_bytes'])} of disk; "
        "runs that grok stop early"
    )
    for folder, sentence in content["refused"].items():
        print_line(f"{folder} cannot be run: {sentence}")


def _dry_run(name: str, out: Path | None, settings: dict[str, str], only: str | None, jobs: int, json: bool) -> None:
    from ..experiments.grid import plan_grid

    with Progress(f"{name}, kinds of runs measured") as progress:
        content = plan_grid(name, out, jobs=jobs, settings=settings, only=only, progress=progress.update).as_dict()
    if json:
        print_json(content)
    else:
        print_cost(content)
