"""Run many catalogued experiments at once: as one computation where that is faster, one by one where not."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ...errors import SettingError
from ..config import configure
from ..folder import FINISHED, check_folder
from ..run import run
from ..settings import TrainingSettings

if TYPE_CHECKING:
    from ...recording import Recording
    from .train import BatchProgress

BatchedCell = tuple[str, Mapping[str, object], "str | os.PathLike[str] | None"]


def run_batched(
    cells: Sequence[BatchedCell],
    *,
    size: int | None = None,
    resume: bool = False,
    overwrite: bool = False,
    progress: BatchProgress | None = None,
    **monitor: Any,
) -> list[Recording]:
    """Train catalogued experiments of one kind, several models as one computation.

    Each run has its own seed, data, batches, operation, learning rate, decay, clipping and length, and its own
    folder with the files that ``run`` writes, checkpoints apart. Models of a batch must have equal parameters and
    batch shapes and share device, dtype, threads, optimizer, accumulation and ``decay_norms``.

    Arithmetic is shared, so the last bits differ from those of ``run``, as they do between thread counts: one step
    from equal states agrees to rounding, a long run only in distribution. For bit-repeatable runs use ``run``.

    **A batch is not resumed in the middle**: a run that did not finish starts again.

    Args:
        cells: (name in the catalogue, settings by name, the seed among them, folder or None for memory only).
        size: Models in one computation; None measures (``choose_batch_size``) and goes one by one where that is
            as fast, 1 always does.
        resume: Finished runs are loaded, unfinished ones start again.
        overwrite: Replace the runs in the folders.
        progress: Called as ``progress(number, step, steps, metrics)`` at each evaluation of run ``number``.
        **monitor: As for ``run``: window, every, lags, blocks, decay_products, probe_every, probe.

    Returns:
        The recordings, in the order of ``cells``.

    Raises:
        SettingError: On an unknown name or setting, a value out of range, or runs that cannot be one computation.
        OutputError: If a folder holds a recording and neither ``resume`` nor ``overwrite`` is given.

    Example:
        >>> tiny = {"p": 7, "d_model": 8, "d_hidden": 8, "heads": 2, "steps": 20, "batch_size": 8, "eval_every": 10}
        >>> cells = [("modular/add", {**tiny, "seed": seed}, None) for seed in (1, 2)]
        >>> [r.n_updates for r in run_batched(cells, size=2, window=3, every=4)]
        [5, 5]
    """
    if size is not None and size < 1:
        raise SettingError(f"size must be at least 1; got {size}. Use size=None to have it measured.")
    folders = [None if out is None else Path(out) for _, _, out in cells]
    given = [folder.resolve() for folder in folders if folder is not None]
    if len(set(given)) < len(given):
        twice = next(folder for folder in given if given.count(folder) > 1)
        raise SettingError(f"each run must have a folder of its own; got {twice} twice. Name it after arm and seed.")
    found: dict[int, Recording] = {}
    waiting: list[_Waiting] = []
    for number, ((name, values, _), folder) in enumerate(zip(cells, folders)):
        chosen, config = configure(name, settings=values, **monitor)
        going_on = folder is not None and check_folder(folder, config, resume=resume, overwrite=overwrite)
        if folder is not None and going_on and (folder / FINISHED).exists():
            from ...recording import load

            found[number] = load(folder)
        else:
            waiting.append(_Waiting(number, name, values, chosen, config, folder))
    if waiting and size is None:
        from .choice import choose_batch_size

        size = choose_batch_size(waiting[0].name, waiting[0].values, len(waiting))
    for first in range(0, len(waiting), size or 1):
        part = waiting[first : first + (size or 1)]
        if size == 1:
            found |= _by_itself(part[0], progress, resume=resume, overwrite=overwrite, monitor=monitor)
        else:
            found |= _together(part, progress, overwrite=overwrite or resume)
    return [found[number] for number in range(len(cells))]


class _Waiting(NamedTuple):
    """A run to be made."""

    number: int
    name: str
    values: Mapping[str, object]
    settings: TrainingSettings
    config: dict[str, Any]
    folder: Path | None


def _by_itself(
    one: _Waiting, progress: BatchProgress | None, *, resume: bool, overwrite: bool, monitor: Mapping[str, Any]
) -> dict[int, Recording]:
    told = None if progress is None else partial(progress, one.number)
    kept = one.folder is not None
    recording = run(
        one.name,
        settings=one.values,
        out=one.folder,
        progress=told,
        resume=resume and kept,
        overwrite=overwrite and kept,
        **monitor,
    )
    return {one.number: recording}


def _together(part: Sequence[_Waiting], progress: BatchProgress | None, *, overwrite: bool) -> dict[int, Recording]:
    from .member import Member
    from .train import train_together

    def told(index: int, step: int, steps: int, metrics: Mapping[str, float]) -> None:
        if progress is not None:
            progress(part[index].number, step, steps, metrics)

    members = [Member(one.name, one.settings, one.config, one.folder) for one in part]
    train_together(members, overwrite=overwrite, progress=told)
    return {one.number: member.recording for one, member in zip(part, members)}
