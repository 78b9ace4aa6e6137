"""The commands ``tickets`` and ``widths``: two studies of connections to other theories, and their contrasts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import options as o
from .content import Content
from .intervene import OUTCOMES, seeds_of
from .progress import Progress
from .render import cell, print_json, print_line, print_table

Name = Annotated[str, typer.Argument(help="An experiment; `spectraledge list` names them.")]
Out = Annotated[Path, typer.Option(help="Folder of the study; a stopped one goes on.")]
Seeds = Annotated[str, typer.Option(help="As 42-49 or 42,43.")]
Set = Annotated[list[str] | None, typer.Option("--set", help="A setting, key=value; may be repeated.")]
Every = Annotated[int, typer.Option(help="Optimizer steps between snapshots.")]
Evaluate = Annotated[int, typer.Option(help="Optimizer steps between evaluations; divides --steps.")]
Jobs = Annotated[int, typer.Option(help="Processes.")]


def tickets(
    name: Name,
    out: Out,
    seeds: Seeds = "42-49",
    set_: Set = None,
    at_step: Annotated[int, typer.Option(help="Step at which the masks are chosen.")] = 1500,
    fraction: Annotated[list[float] | None, typer.Option(help="Share kept; repeatable; 0.1 and 0.3.")] = None,
    kind: Annotated[
        list[str] | None,
        typer.Option(help="v1, magnitude, random, magnitude_as_v1 (all default), random_magnitude; repeatable."),
    ] = None,
    masked: Annotated[str, typer.Option(help="matrices, or all tensors.")] = "matrices",
    steps: Annotated[int, typer.Option(help="Optimizer steps that a rewound network trains.")] = 4000,
    window: o.Window = 10,
    every: Every = 25,
    evaluate_every: Evaluate = 100,
    outcome: Annotated[str, typer.Option(help="A loss or accuracy, test_ or train_.")] = "test_loss",
    jobs: Jobs = 1,
    json: o.Json = False,
) -> None:
    """Train lottery tickets chosen by |v_1|, by weight and at random from the start, and compare them."""
    from ..errors import SettingError
    from ..experiments.settings import parse_settings
    from ..experiments.ticket_study import ticket_study

    if outcome not in OUTCOMES:
        raise SettingError(f"outcome must be one of {', '.join(OUTCOMES)}; got {outcome}. The default is test_loss.")
    listed = seeds_of(seeds)
    chosen = {"kinds": kind} if kind else {}
    with Progress(f"{name}, {len(listed)} seeds") as progress:
        ticket_study(
            name,
            out=out,
            seeds=listed,
            settings=parse_settings(set_ or []),
            at_step=at_step,
            fraction=fraction or (0.1, 0.3),
            masked=masked,
            steps=steps,
            window=window,
            every=every,
            evaluate_every=evaluate_every,
            jobs=jobs,
            progress=lambda done, total: progress.update(done, total, "seeds"),
            **chosen,
        )
    content = tickets_content(out, outcome)
    if json:
        print_json(content)
    else:
        print_tickets(content)


def widths(
    name: Name,
    out: Out,
    seeds: Seeds = "42-49",
    set_: Set = None,
    width: Annotated[list[int] | None, typer.Option(help="A d_model; repeatable; 64, 128 and 256.")] = None,
    parametrisation: Annotated[
        list[str] | None, typer.Option(help="standard or mup; repeatable; both where not given.")
    ] = None,
    steps: Annotated[int, typer.Option(help="Optimizer steps of every run.")] = 2000,
    first: Annotated[int | None, typer.Option(help="First step at which windows count; the middle.")] = None,
    last: Annotated[int | None, typer.Option(help="Last such step; the end.")] = None,
    window: o.Window = 10,
    every: Every = 25,
    evaluate_every: Annotated[int, typer.Option(help="Optimizer steps between evaluations.")] = 100,
    jobs: Jobs = 1,
    json: o.Json = False,
) -> None:
    """Train at several widths, with and without mu-P, and fit R, k* and A_rel on log width."""
    from ..experiments.settings import parse_settings
    from ..experiments.width_study import width_study

    listed = seeds_of(seeds)
    with Progress(f"{name}, {len(listed)} seeds") as progress:
        width_study(
            name,
            out=out,
            widths=width or (64, 128, 256),
            parametrisation=parametrisation or ("standard", "mup"),
            seeds=listed,
            settings=parse_settings(set_ or []),
            steps=steps,
            step_range=None if first is None and last is None else (first or steps // 2, last or steps),
            window=window,
            every=every,
            evaluate_every=evaluate_every,
            jobs=jobs,
            progress=lambda done, total: progress.update(done, total, "seeds"),
        )
    content = widths_content(out)
    if json:
        print_json(content)
    else:
        print_widths(content)


def tickets_content(out: Path, outcome: str, *, seed: int = 0) -> Content:
    """Contrasts of a ticket study, by both readings.

    Raises:
        SettingError: If the outcome is unknown.
        DataError: If the folder holds no ticket study, or nothing to compare.
    """
    import numpy as np

    from ..experiments.paired import READINGS
    from ..experiments.ticket_effects import ticket_effects
    from ..experiments.ticket_study import read_tickets

    rows = read_tickets(out)
    contrasts = [
        {"reading": reading, **vars(found)}
        for reading in READINGS
        for found in ticket_effects(rows, outcome=outcome, reading=reading, rng=np.random.default_rng(seed))
    ]
    return {"study": str(out), "outcome": outcome, "tickets": len(rows), "contrasts": contrasts}


def print_tickets(content: Content) -> None:
    """The contrasts as a table."""
    rows = [
        {
            "kept": cell(c["fraction"]),
            "reading": c["reading"],
            "comparison": c["comparison"],
            "mean": cell(c["mean"]),
            "95 % interval": _interval(c),
            "p": cell(c["p_value"]),
            "overlap": cell(c["overlap"]),
            "seeds": c["n_seeds"],
        }
        for c in content["contrasts"]
    ]
    print_table(rows, f"Effect on {content['outcome']}: {content['tickets']} tickets of {content['study']}")
    print_line("a loss: negative means that the first is better; overlap: of the second's entries with those of v1")


def widths_content(out: Path, *, seed: int = 0) -> Content:
    """Runs and slopes of a width study.

    Raises:
        DataError: If the folder holds no width study, or too few runs for a slope.
    """
    import numpy as np

    from ..experiments.width_effects import width_effects
    from ..experiments.width_study import read_widths

    rows = read_widths(out)
    effects = [vars(found) for found in width_effects(rows, rng=np.random.default_rng(seed))]
    kept = ("seed", "width", "parametrisation", "n_parameters", "n_windows", "ratio", "k_star", "a_rel", "p_eff")
    return {"study": str(out), "runs": [{key: row[key] for key in kept} for row in rows], "effects": effects}


def print_widths(content: Content) -> None:
    """The slopes as a table."""
    rows = [
        {
            "quantity": c["quantity"],
            "parametrisation": c["parametrisation"],
            "slope on log width": cell(c["slope"]),
            "95 % interval": _interval(c),
            "p": cell(c["p_value"]),
            "n": c["n"],
            "widths": c["n_widths"],
        }
        for c in content["effects"]
    ]
    print_table(rows, f"Medians at matched steps: {len(content['runs'])} runs of {content['study']}")
    print_line("of logarithms the slope is the exponent of width; n: runs, for the difference seeds")


def _interval(contrast: Content) -> str:
    return f"{cell(contrast['low'])} .. {cell(contrast['high'])}"
