"""``analyze``: a folder of checkpoints in, the recording of a run out."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from ..errors import DataError, OutputError, SettingError
from ..recording import Recording, RecordingWriter, load
from ..recording.log import recording_file
from ..stream.blocks import Blocks, BlockScheme, make_blocks
from ..stream.checks import check_lags, check_window, whole
from ..stream.cost import free_memory, human_bytes
from ..stream.parameters import ParameterFilter
from .groups import Group, make_groups
from .rows import stretch_rows
from .scan import Member, Scan, Stretch, Unreadable, scan
from .series import Series, Source, common_stride, find_series
from .structure import Structure
from .tied import tied_names
from .write import Segment, describe, write_recording

Progress = Callable[[int, int, str], None]
GIB = 2**30


def analyze(
    source: Source | Series,
    *,
    out: str | os.PathLike[str] | None = None,
    window: int = 10,  # as in `attach`
    every: int | None = None,
    lags: int | None = None,
    blocks: BlockScheme = "layer",
    params: ParameterFilter | None = None,
    heads: int | Mapping[str, int] | None = None,
    step_regex: str | None = None,
    memory_bytes: int = 2 * GIB,
    strict: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Recording:
    """Record the inner products of the updates between neighbouring checkpoints, as ``attach`` does live.

    The arithmetic is the live monitor's own: checkpoints saved at its steps give its products. Half-precision
    weights are subtracted in float32; each then carries a rounding of its own, and ``unchanged`` counts the entries
    that did not move. Buffers are left out by rule and tied weights counted once; the header of the recording lists
    both. Files are read through safetensors alone; nothing in them is executed.

    Args:
        source: A folder of ``step-100.safetensors``, ``checkpoint-100/`` and the like, or a list of files and
            folders, or what ``find_series`` returned.
        out: Run folder for ``recording.jsonl``, written at the end; None keeps the recording in memory.
        window: Rows W of the windows you mean to look at; sets ``lags``.
        every: Use only checkpoints that lie whole multiples of this many steps behind the first; None uses all.
        lags: Stored updates L; None means ``2 * window - 1``.
        blocks: As in ``attach``. Tensors come in the natural order of their names.
        params: Only these: a regular expression searched in names, or a predicate of a name and a tensor (on the
            "meta" device: its shape and dtype are there, its values are not).
        heads: Number of attention heads for ``blocks="head"``.
        step_regex: Picks the step out of a name: ``r"step-(\\d+)"``.
        memory_bytes: Limit for the ring and what is read at a time. A larger model is taken in parts, one pass over
            the series each.
        strict: Raise on the first checkpoint that cannot be read. Otherwise it is skipped: an event names the file
            and the reason, and the next update is flagged "seam", which no window crosses.
        overwrite: Replace a recording found in ``out``.
        progress: Called as ``progress(done, total, name)`` after each checkpoint that was read.

    Returns:
        The recording. ``n_steps`` holds the true number of steps of each update; those that differ from the most
        common one are flagged "uneven". A change of names, shapes or dtypes begins a new segment.

    Raises:
        DataError: If there is no such series, or fewer than two of its checkpoints can be read.
        SettingError: If an argument cannot be, or the memory does not suffice.
        OutputError: If ``out`` cannot be written or holds a recording already.

    Example:
        >>> import tempfile, torch, spectraledge as se
        >>> from safetensors.torch import save_file
        >>> generator = torch.Generator().manual_seed(0)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for step in (0, 100, 200, 300):
        ...         save_file({"layer.weight": torch.randn(4, 3, generator=generator)},
        ...                   f"{folder}/step-{step}.safetensors")
        ...     recording = se.analyze(folder, window=3)
        >>> recording.steps, recording.spectra(window=3).singular_values.shape
        (array([100, 200, 300]), (1, 3))
    """
    check_window(window)
    n_lags = check_lags(window, lags)
    whole("memory_bytes", memory_bytes, 1, "Use memory_bytes=2 * 2**30 for 2 GiB.")
    _check_out(out, overwrite)
    series = source if isinstance(source, Series) else find_series(source, step_regex=step_regex)
    if every is not None:
        series = series.thinned(every)
    choices = _Choices(n_lags, blocks, params, heads, memory_bytes, strict)
    scanned, segments = _compute(series, choices, progress)
    if not any(segment.rows for segment in segments):
        raise _no_update(series, scanned)
    stride = common_stride([member.step for stretch in scanned.stretches for member in stretch.members])
    meta = describe(series, scanned, segments) | {"window": window, "every": stride}
    with RecordingWriter(out, mode="overwrite" if overwrite else "new", header_meta=meta) as writer:
        write_recording(writer, series, scanned, segments, lags=n_lags, every=stride)
        if out is None:
            return Recording.from_log(writer.log())
    return load(out)


@dataclass(frozen=True)
class _Choices:
    lags: int
    scheme: BlockScheme
    params: ParameterFilter | None
    heads: int | Mapping[str, int] | None
    memory_bytes: int
    strict: bool


def _compute(series: Series, choices: _Choices, progress: Progress | None) -> tuple[Scan, list[Segment]]:
    """All rows. A checkpoint that fails only when its weights are read is struck out and the work begins again, as
    some of its products may have been added already."""
    bad: dict[int, str] = {}
    while True:
        scanned = scan(series, choices.params, bad, strict=choices.strict)
        try:
            return scanned, _segments(scanned, choices, progress)
        except Unreadable as error:
            if choices.strict:
                raise error.reason from error
            bad[error.index] = str(error)


def _segments(scanned: Scan, choices: _Choices, progress: Progress | None) -> list[Segment]:
    plans = [_plan(stretch, choices) for stretch in scanned.stretches]
    total = sum(len(plan.groups) * len(plan.stretch.members) for plan in plans)
    done = 0

    def tick(member: Member) -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, total, member.checkpoint.path.name)

    segments = []
    for plan in plans:
        entries = plan.entries.entries
        rows = stretch_rows(plan.stretch.members, entries, plan.blocks, plan.groups, choices.lags, tick)
        segments.append(
            Segment(plan.stretch, plan.entries, plan.blocks, plan.tied, n_passes=len(plan.groups), rows=rows)
        )
    return segments


@dataclass(frozen=True)
class _Plan:
    stretch: Stretch
    entries: Structure
    blocks: Blocks
    groups: list[Group]
    tied: dict[str, list[str]]


def _plan(stretch: Stretch, choices: _Choices) -> _Plan:
    tied = tied_names(stretch)
    once = stretch.structure.without({name for names in tied.values() for name in names})
    shapes = {name: entry.shape for name, entry in once.entries.items()}
    blocks = make_blocks(shapes, choices.scheme, choices.heads)
    groups = make_groups(blocks, once.entries, choices.lags, choices.memory_bytes)
    _check_memory(max(group.n_bytes for group in groups), choices)
    return _Plan(stretch, once, blocks, groups, tied)


def _no_update(series: Series, scanned: Scan) -> DataError:
    changes = "; ".join(stretch.reason for stretch in scanned.stretches[1:])
    problems = " ".join(scanned.skipped[i] for i in sorted(scanned.skipped)[:1])
    return DataError(
        f"an update needs two checkpoints that are neighbours of equal structure; {series.source} has none. "
        f"{problems or f'They differ: {changes}.'}"
    )


def _check_memory(n_bytes: int, choices: _Choices) -> None:
    free = free_memory(torch.device("cpu"))
    if free is not None and n_bytes > free / 4:
        raise SettingError(
            f"the ring must fit in a quarter of the free memory; with lags={choices.lags} it would take "
            f"{human_bytes(n_bytes)} and {human_bytes(free)} are free. "
            f"Set memory_bytes={free // 4} or less: the series is then read in several passes."
        )


def _check_out(out: str | os.PathLike[str] | None, overwrite: bool) -> None:
    """Before hours of reading, what the writer would say behind them."""
    if out is None:
        return
    file = recording_file(out)
    try:
        if file.exists() and file.stat().st_size and not overwrite:
            raise OutputError(
                f"{file.parent} must not hold a recording yet; it holds one of {file.stat().st_size} bytes. "
                "Use overwrite=True to replace it, or another folder."
            )
        file.parent.mkdir(parents=True, exist_ok=True)
        writable = os.access(file.parent, os.W_OK)
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(f"{out} must be a folder that can be written; got {error.strerror}.") from error
    if not writable:
        raise OutputError(f"{file.parent} must be writable; it is not. Choose another folder.")
