"""The commands: each reads its options, calls one function of the library and shows what came back.

Imports torch nowhere but inside the commands that compute with it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from .. import __version__
from . import connections
from . import options as o
from .content import RULES, Content, overview, recording_content, spectrum_content
from .evaluate import evaluate
from .grid import grid
from .precursors import precursors
from .progress import Progress
from .render import print_json, print_line, print_overview, print_series, print_spectrum, print_table
from .verify import verify

app = typer.Typer(
    name="spectraledge",
    help="Record the spectrum of parameter updates of a training run, and look at it.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and leave.", is_eager=True)] = False,
) -> None:
    if version:
        typer.echo(f"spectraledge {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command()
def plan(
    checkpoint: Annotated[
        str | None, typer.Argument(help="A checkpoint of the model (safetensors), instead of --parameters.")
    ] = None,
    parameters: Annotated[str | None, typer.Option(help="Trainable entries, for example 124e6.")] = None,
    blocks: Annotated[str, typer.Option(help="Their number, or with a checkpoint the name of a scheme.")] = "",
    window: o.Window = 10,
    every: Annotated[int, typer.Option(help="Optimizer steps between snapshots.")] = 100,
    lags: o.Lags = None,
    step_ms: Annotated[float | None, typer.Option(help="Milliseconds that a training step takes.")] = None,
    device: Annotated[str, typer.Option(help="Where the ring would live.")] = "cpu",
    memory: Annotated[str | None, typer.Option(help="Bytes the ring may take, for example 4e9.")] = None,
    folder: Annotated[str, typer.Option(help="Where its file would be, with --memory.")] = ".",
    json: o.Json = False,
) -> None:
    """What monitoring a model would cost on this machine; with --memory, all ways to keep the ring."""
    from .plan import plan_content, plan_rows, store_rows

    content = plan_content(checkpoint, parameters, blocks, window, every, lags, step_ms, device, memory, folder)
    if json:
        print_json(content)
        return
    print_table(plan_rows(content), "Plan")
    if memory is not None:
        print_table(store_rows(content), content["reason"])


@app.command()
def show(
    path: Annotated[str, typer.Argument(help="Run folder, or recording file.")],
    window: o.Window = 10,
    stride: Annotated[int, typer.Option(help="Updates added up into one row.")] = 1,
    block: Annotated[str, typer.Option(help="Block, or a pattern such as 'layers.0*'.")] = "all",
    rule: Annotated[str | None, typer.Option(help=f"Show one rule for k* only: {', '.join(RULES)}.")] = None,
    csv: Annotated[Path | None, typer.Option(help="Write the table of all windows to this file.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw the singular values over time into this file.")] = None,
    json: o.Json = False,
) -> None:
    """What a recording holds, and the spectrum of its last window."""
    from ..recording import load

    recording = load(path)
    content = recording_content(recording, window=window, stride=stride, block=block, rule=rule)
    if csv is not None:
        content["csv"] = str(recording.to_csv(csv, window=window, stride=stride, block=block))
    if plot is not None:
        from .plot import save_plot

        content["plot"] = str(save_plot(recording, plot, window=window, stride=stride, block=block))
    _print_recording(content, json)


@app.command()
def theory(
    runs: Annotated[list[str], typer.Argument(help="Run folders, or recording files.")],
    window: o.Window = 10,
    block: Annotated[str, typer.Option(help="Block, or a pattern such as 'layers.0*', for stability.")] = "all",
    stride: Annotated[int, typer.Option(help="Updates added up into one row, for stability.")] = 1,
    mode: Annotated[str, typer.Option(help="strict (corrected), author (as published) or both.")] = "strict",
    draws: Annotated[int, typer.Option(help="Surrogate histories of each null.")] = 199,
    seed: Annotated[int, typer.Option(help="Of surrogates and intervals.")] = 0,
    part: Annotated[
        list[str] | None,
        typer.Option(
            help="stability, curvature, loss, flows, gap_flow, dyson, alpha_loop, adiabatic, phases, survival, "
            "krylov, edge or maximality; repeatable; all where not given."
        ),
    ] = None,
    json: o.Json = False,
) -> None:
    """The theory on some runs, part by part, against its nulls."""
    from ..recording import load
    from .theory import print_theory, theory_content

    recordings = {path: load(path) for path in runs}
    with Progress("theory") as progress:
        content = theory_content(
            recordings,
            window=window,
            block=block,
            stride=stride,
            mode=mode,
            n_draws=draws,
            seed=seed,
            parts=part or (),
            progress=progress.update,
        )
    if json:
        print_json(content)
    else:
        print_theory(content)


@app.command(name="list")
def list_(json: o.Json = False) -> None:
    """Experiments and grids of them that can be run by name."""
    from ..experiments import catalogue
    from ..experiments.grid import GRIDS

    rows = [{"name": name, "description": catalogue.entry(name).description} for name in catalogue.names()]
    grids = [
        {"name": grid.name, "runs": len(grid.cells()), "description": grid.description} for grid in GRIDS.values()
    ]
    if json:
        print_json(
            [{"kind": kind, **row} for kind, table in (("experiment", rows), ("grid", grids)) for row in table]
        )
    else:
        print_table(rows, "Experiments: spectraledge run NAME")
        print_table(grids, "Grids: spectraledge grid NAME")


@app.command()
def analyze(
    source: Annotated[
        list[str], typer.Argument(help="A folder of checkpoints, several of them, or owner/name@pattern on the hub.")
    ],
    out: Annotated[Path | None, typer.Option(help="Run folder for the recording.")] = None,
    window: o.Window = 10,
    every: Annotated[
        int | None, typer.Option(help="Only checkpoints this many steps apart; all where not given.")
    ] = None,
    lags: o.Lags = None,
    blocks: o.Blocks = "layer",
    params: Annotated[str | None, typer.Option(help="Only tensors whose names this expression finds.")] = None,
    heads: Annotated[int | None, typer.Option(help="Attention heads, for --blocks head.")] = None,
    step_regex: Annotated[str | None, typer.Option(help=r"Picks the step out of a name: 'step-(\d+)'.")] = None,
    state_key: Annotated[str | None, typer.Option(help="The model's table where a file holds several.")] = None,
    memory: Annotated[str, typer.Option(help="Bytes that may be used, by all jobs together.")] = "2.1e9",
    jobs: Annotated[int | None, typer.Option(help="Parts at once; the number of cores where not given.")] = None,
    engine: Annotated[str, typer.Option(help="local, ray or dask.")] = "local",
    address: Annotated[str | None, typer.Option(help="Of a running Ray or Dask cluster.")] = None,
    drop_cache: Annotated[
        bool, typer.Option("--drop-cache", help="Remove what was downloaded as soon as it is used.")
    ] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first unreadable checkpoint.")] = False,
    overwrite: o.Overwrite = False,
    json: o.Json = False,
) -> None:
    """Record the updates between checkpoints that a run has saved; start it again where it was killed."""
    from ..checkpoints.analyze import analyze as run_analysis
    from ..checkpoints.find import find

    series = find(source[0] if len(source) == 1 else source, every, step_regex=step_regex, state_key=state_key)
    table = series.table()
    if not json:
        print_series(table, f"{len(table)} checkpoints in {series.source}")
        if series.ignored:
            print_line(f"left out: {', '.join(series.ignored)}")
    with Progress("checkpoints") as progress:
        recording = run_analysis(
            series,
            out=out,
            window=window,
            lags=lags,
            blocks=blocks,
            params=params,
            heads=heads,
            memory_bytes=o.whole("memory", memory),
            jobs=jobs,
            engine=engine,
            address=address,
            drop_cache=drop_cache,
            strict=strict,
            overwrite=overwrite,
            progress=progress.update,
            say=(lambda sentence: None) if json else print_line,
        )
    _print_result({"series": table}, recording, window, json)


@app.command()
def run(
    name: Annotated[str, typer.Argument(help="An experiment; `spectraledge list` names them.")],
    seed: Annotated[int | None, typer.Option(help="Of initialisation, data and batches; 42 where not given.")] = None,
    out: Annotated[Path | None, typer.Option(help="Run folder.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="A setting, key=value; may be repeated.")] = None,
    window: o.Window = 10,
    every: Annotated[int, typer.Option(help="Optimizer steps between snapshots.")] = 25,
    lags: o.Lags = None,
    blocks: o.Blocks = "layer",
    decay_products: Annotated[
        bool, typer.Option("--decay-products", help="Also record the exact part of decoupled weight decay.")
    ] = False,
    probe_every: Annotated[
        int | None, typer.Option(help="Optimizer steps between probes of gradients and curvature along the modes.")
    ] = None,
    probe: Annotated[
        list[str] | None, typer.Option("--probe", help="A probe setting, key=value; may be repeated: modes=4.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
    overwrite: o.Overwrite = False,
    checkpoint_every: Annotated[int | None, typer.Option(help="Steps between checkpoints; 0 for none.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Measure 20 steps and say what the run would cost.")
    ] = False,
    json: o.Json = False,
) -> None:
    """Train a catalogued experiment under the monitor."""
    from ..experiments.run import run as run_experiment
    from ..experiments.settings import parse_settings

    settings = parse_settings(set_ or [])
    recorded: dict[str, Any] = {
        "window": window,
        "every": every,
        "lags": lags,
        "blocks": blocks,
        "decay_products": decay_products,
        "probe_every": probe_every,
        "probe": parse_settings(probe or []),
    }
    if dry_run:
        from ..experiments.grid import Cell, plan_grid
        from .grid import print_cost

        chosen = int(settings.pop("seed", "42")) if seed is None else seed
        content = plan_grid([Cell(name.replace("/", "-"), name, chosen, "", settings, recorded)]).as_dict()
        if json:
            print_json(content)
        else:
            print_cost(content)
        return
    with Progress(name) as progress:
        recording = run_experiment(
            name,
            seed=seed,
            out=out,
            settings=settings,
            **recorded,
            resume=resume,
            overwrite=overwrite,
            checkpoint_every=checkpoint_every,
            progress=lambda step, steps, metrics: progress.update(step, steps, o.metrics_note(metrics)),
        )
    _print_result({"experiment": name}, recording, window, json)


@app.command()
def intervene(
    name: Annotated[str, typer.Argument(help="An experiment; `spectraledge list` names them.")],
    out: Annotated[Path, typer.Option(help="Folder of the study; a stopped one goes on.")],
    seeds: Annotated[str, typer.Option(help="As 42-49 or 42,43.")] = "42-49",
    set_: Annotated[list[str] | None, typer.Option("--set", help="A setting, key=value; may be repeated.")] = None,
    kind: Annotated[list[str] | None, typer.Option(help="step (default), momentum, close_gap; repeatable.")] = None,
    position: Annotated[
        list[str] | None, typer.Option(help="A cut j, span or space; repeatable; all of them where not given.")
    ] = None,
    norm: Annotated[list[float] | None, typer.Option(help="Relative norm; repeatable; 1 is the last update.")] = None,
    time: Annotated[list[int] | None, typer.Option(help="Step of a fork; repeatable; 1000, 1500, 2000.")] = None,
    horizon: Annotated[int, typer.Option(help="Steps trained after a change.")] = 500,
    window: o.Window = 10,
    every: Annotated[int, typer.Option(help="Optimizer steps between snapshots.")] = 25,
    evaluate_every: Annotated[int, typer.Option(help="Steps between evaluations; divides the horizon.")] = 100,
    outcome: Annotated[str, typer.Option(help="A loss or accuracy, test_ or train_.")] = "test_loss",
    jobs: Annotated[int, typer.Option(help="Processes.")] = 1,
    json: o.Json = False,
) -> None:
    """Mix two modes of the recent updates at k*, elsewhere and at random, and compare what it costs."""
    from ..experiments.intervene_study import intervention_study
    from ..experiments.settings import parse_settings
    from .intervene import positions_of, print_study, seeds_of, study_content

    listed = seeds_of(seeds)
    with Progress(f"{name}, {len(listed)} seeds") as progress:
        intervention_study(
            name,
            out=out,
            seeds=listed,
            settings=parse_settings(set_ or []),
            kinds=kind or ("step",),
            positions=positions_of(position or []),
            norms=norm or (1.0,),
            times=time or (1000, 1500, 2000),
            horizon=horizon,
            window=window,
            every=every,
            evaluate_every=evaluate_every,
            jobs=jobs,
            progress=lambda done, total: progress.update(done, total, "seeds"),
        )
    content = study_content(out, outcome)
    if json:
        print_json(content)
    else:
        print_study(content)


app.command()(grid)
app.command()(evaluate)
app.command()(precursors)
app.command()(verify)
app.command()(connections.tickets)
app.command()(connections.widths)


@app.command()
def report(
    runs: Annotated[list[str], typer.Argument(help="Run folders, or folders above them.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The page to write.")] = Path("report.html"),
    figures: Annotated[Path | None, typer.Option(help="Also write every figure into this folder.")] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Also judge every prediction, in a table on the page.")
    ] = False,
    window: o.Window = 10,
    json: o.Json = False,
) -> None:
    """One self-contained page of figures on one or several runs."""
    from ..reporting import figures as write_figures
    from ..reporting import report as write_report

    verdicts = None
    if verify:
        from ..predictions import verify as judge

        with Progress("predictions") as progress:
            verdicts = judge(runs, window=window, progress=progress.update)
    content: Content = {"report": str(write_report(runs, out, window=window, verdicts=verdicts))}
    if figures is not None:
        content["figures"] = [str(path) for path in write_figures(runs, figures, window=window) or [figures]]
    if json:
        print_json(content)
    else:
        print_line(f"wrote {content['report']}" + (f" and figures into {figures}" if figures is not None else ""))


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="Run folder, or recording file.")],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder for all tables, or a file for the products alone.")
    ],
    overwrite: o.Overwrite = False,
    json: o.Json = False,
) -> None:
    """Write a recording as Parquet tables."""
    from .export import export_content

    content = export_content(run, out, overwrite=overwrite)
    if json:
        print_json(content)
    else:
        print_table(content["files"], f"Written from {content['run']}")


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder; a half-done demo in it goes on.")] = Path("demo"),
    seed: Annotated[int, typer.Option(help="Of both runs.")] = 42,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Start afresh.")] = False,
    json: o.Json = False,
) -> None:
    """Train a network that groks beside one that cannot, and write a page on both (minutes)."""
    from ..demo import demo as run_demo
    from .demo import display

    with display(out) as show_arms:
        result = run_demo(out, seed=seed, overwrite=overwrite, show=show_arms)
    if json:
        print_json({"runs": result.folders, "report": result.page, "summary": result.summary})
        return
    for line in result.summary:
        print_line(f"- {line}")
    print_line(f"wrote {result.page}: open it in a browser")


def _print_result(before: Content, recording: object, window: int, json: bool) -> None:
    """A finished recording; one too short for a window is still a result, with that said in place of a spectrum."""
    from ..errors import DataError
    from ..recording import Recording

    assert isinstance(recording, Recording)
    content: Content = {**before, **overview(recording), "spectrum": None}
    try:
        content["spectrum"] = spectrum_content(recording, window=window)
    except DataError as error:
        typer.echo(f"no spectrum: {error}", err=True)
    _print_recording(content, json)


def _print_recording(content: Content, json: bool) -> None:
    if json:
        print_json(content)
        return
    print_overview(content)
    if content["spectrum"] is not None:
        print_spectrum(content["spectrum"])
    for what in ("csv", "plot"):
        if what in content:
            print_line(f"wrote {content[what]}")
