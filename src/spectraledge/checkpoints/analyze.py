"""``analyze``: a folder of checkpoints in, the recording of a run out."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from ..errors import DataError, OutputError, SettingError
from ..recording import Recording, RecordingWriter, load
from ..recording.lock import locked_file
from ..recording.log import recording_file
from ..stream.blocks import BlockScheme
from ..stream.checks import check_lags, check_window, whole
from ..stream.parameters import ParameterFilter
from .compute import Told, compute
from .downloads import fetch_all
from .find import find
from .hub import HubSeries
from .onepass import one_pass
from .parallel import make_workers
from .plan import Choices
from .resume import FOLDER, Partial, Say
from .scan import Scan
from .series import Series, Source, common_stride
from .write import Segment, describe, write_recording

Progress = Callable[[int, int, str], None]
GIB = 2**30

logger = logging.getLogger("spectraledge")


def analyze(
    source: Source | Series | HubSeries,
    *,
    out: str | os.PathLike[str] | None = None,
    window: int = 10,  # as in `attach`
    every: int | None = None,
    lags: int | None = None,
    blocks: BlockScheme = "layer",
    params: ParameterFilter | None = None,
    heads: int | Mapping[str, int] | None = None,
    step_regex: str | None = None,
    state_key: str | None = None,
    memory_bytes: int = 2 * GIB,
    jobs: int | None = None,
    engine: str = "local",
    address: str | None = None,
    drop_cache: bool = False,
    strict: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
    say: Say | None = None,
) -> Recording:
    """Record the inner products of the updates between neighbouring checkpoints, as ``attach`` does live.

    The arithmetic is the live monitor's own: checkpoints saved at its steps give its products. Half-precision
    weights are subtracted in float32; each carries a rounding of its own, whose expected size ``error_norm2`` tells,
    so that no mode below it counts as resolved; ``unchanged`` counts the entries that did not move. Buffers are left
    out by rule and tied weights counted once; the header of the recording lists both. Nothing in the files is
    executed.

    The parameters are taken in small parts, each through the whole series, so that every byte is read once and a
    ring stays in the processor's cache. With ``out``, finished parts are kept in ``out/partial/`` until the recording
    is written: a run that was killed goes on when it is started again, and gives the same recording to the bit.

    Args:
        source: A folder of ``step-100.safetensors``, ``checkpoint-100/`` and the like, or a list of files and
            folders, or what ``find_series`` returned. ``"owner/name@pattern"`` names revisions of a repository on the
            Hugging Face hub, as in ``"EleutherAI/pythia-160m@step*"``: only then is a network used.
        out: Run folder for ``recording.jsonl``, written at the end; None keeps the recording in memory.
        window: Rows W of the windows you mean to look at; sets ``lags``.
        every: Use only checkpoints that lie whole multiples of this many steps behind the first; None uses all.
        lags: Stored updates L; None means ``2 * window - 1``.
        blocks: As in ``attach``. Tensors come in the natural order of their names.
        params: Only these: a regular expression searched in names, or a predicate of a name and a tensor (on the
            "meta" device: its shape and dtype are there, its values are not).
        heads: Number of attention heads for ``blocks="head"``.
        step_regex: Picks the step out of a name: ``r"step-(\\d+)"``.
        state_key: Name of the model's table where a checkpoint holds several ("generator").
        memory_bytes: Limit for rings and what is read at a time, of all jobs together.
        jobs: Parts done at once; None takes the number of torch's threads. It changes no bit of the result, nor does
            the engine where all processors are of one kind.
        engine: "local" (threads of this process), "ray" or "dask", whose workers must see the same files.
        address: Of a running Ray or Dask cluster; one on this machine is started where None.
        drop_cache: Remove the revisions of a repository from the cache as soon as they are used, those that this
            call downloaded. All parts are then done in one pass, with the ring in memory or, where ``memory_bytes``
            is less, in ``out/partial/``; a run that is killed begins again.
        strict: Raise on the first checkpoint that cannot be read. Otherwise it is skipped: an event names the file
            and the reason, and the next update is flagged "seam", which no window crosses.
        overwrite: Replace a recording found in ``out``.
        progress: Called as ``progress(done, total, name)`` after each checkpoint of each small part, one call at a
            time, perhaps from another thread.
        say: Called with sentences on what is about to happen: bytes to be downloaded, parts found finished, settings
            that changed; None logs them.

    Returns:
        The recording. ``n_steps`` holds the true number of steps of each update; those that differ from the most
        common one are flagged "uneven". A change of names, shapes or dtypes begins a new segment.

    Raises:
        DataError: If there is no such series, or fewer than two of its checkpoints can be read.
        SettingError: If an argument cannot be, or the memory does not suffice.
        OutputError: If ``out`` cannot be written, holds a recording already, or is being written.
        MissingDependencyError: If the hub's or the engine's library is needed and not installed.

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
    workers = make_workers(jobs, engine, address)
    _check_out(out, overwrite)
    found = find(source, every, step_regex=step_regex, state_key=state_key)
    if drop_cache and not isinstance(found, HubSeries):
        raise SettingError(
            f"drop_cache must be given with a repository on the hub; got {found.source}. Leave it out: files that "
            "were not downloaded are never removed."
        )
    choices = Choices(n_lags, blocks, params, heads, memory_bytes, strict, workers)
    told = Told(progress, say or logger.info)
    folder = None if out is None else recording_file(out).parent
    with Partial(folder) as partial:
        if not isinstance(found, HubSeries):
            series = found
            scanned, segments = compute(series, choices, partial, told)
        elif drop_cache:
            scratch = None if folder is None else folder / FOLDER
            series, scanned, segments = one_pass(found, choices, scratch, told.say, progress)
        else:
            series = fetch_all(found, told.say, progress)
            scanned, segments = compute(series, choices, partial, told)
        recording = _write(series, scanned, segments, out, overwrite, {"window": window, "lags": n_lags})
        partial.close(remove=True)
    return recording


def _write(
    series: Series,
    scanned: Scan,
    segments: list[Segment],
    out: str | os.PathLike[str] | None,
    overwrite: bool,
    choices: dict[str, int],
) -> Recording:
    """The recording, in its place whole or not at all: a killed process leaves none that lacks its end."""
    if not any(segment.updates for segment in segments):
        raise _no_update(series, scanned)
    stride = common_stride([member.step for stretch in scanned.stretches for member in stretch.members])
    meta = describe(series, scanned, segments) | {"window": choices["window"], "every": stride}
    # the writer closes first, then its file takes its place
    with _beside(out, overwrite) as path, RecordingWriter(path, mode="overwrite", header_meta=meta) as writer:
        write_recording(writer, series, scanned, segments, lags=choices["lags"], every=stride)
        if out is None:
            return Recording.from_log(writer.log())
    return load(out)


@contextmanager
def _beside(out: str | os.PathLike[str] | None, overwrite: bool) -> Iterator[Path | None]:
    """A file to write into, which takes the place of the recording in ``out`` at the end."""
    if out is None:
        yield None
        return
    file = recording_file(out)
    _check_out(out, overwrite)  # hours may have passed
    beside = file.parent / FOLDER / "recording.jsonl"
    with ExitStack() as stack:
        if file.exists():
            stack.enter_context(locked_file(file))  # no running writer is cut off from its file
        yield beside
        try:
            os.replace(beside, file)
        except OSError as error:
            raise OutputError(f"{file} must be writable; got {error.strerror}. Choose another folder.") from error


def _no_update(series: Series, scanned: Scan) -> DataError:
    changes = "; ".join(stretch.reason for stretch in scanned.stretches[1:])
    problems = " ".join(scanned.skipped[i] for i in sorted(scanned.skipped)[:1])
    return DataError(
        f"an update needs two checkpoints that are neighbours of equal structure; {series.source} has none. "
        f"{problems or f'They differ: {changes}.'}"
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
