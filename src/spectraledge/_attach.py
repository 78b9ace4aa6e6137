"""``attach``: two lines in a training loop."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from .errors import SettingError
from .recording import RecordingWriter
from .recording.reader import recording_file
from .stream.blocks import BlockScheme, make_blocks
from .stream.checks import check_every, check_lags, check_probe_every, check_window, choice, whole
from .stream.choose import Candidate, candidates, pick, reason, timed
from .stream.cost import Plan, make_plan
from .stream.kernel import load_kernel
from .stream.monitor import Monitor, Settings
from .stream.parameters import ParameterFilter, head_counts, trainable
from .stream.probe import Probe
from .stream.ranks.group import world_size
from .stream.sketch import DEFAULT_SIZE, check_size
from .stream.steps import keeps_count, unwrap
from .stream.store import PRECISIONS, STORES, check_sketch

logger = logging.getLogger("spectraledge")


def attach(
    model: torch.nn.Module,
    optimizer: Any,
    *,
    window: int = 10,  # arXiv:2603.28964, language models and modular arithmetic
    every: int = 100,
    lags: int | None = None,
    out: str | os.PathLike[str] | None = None,
    blocks: BlockScheme = "layer",
    params: ParameterFilter | None = None,
    heads: int | Mapping[str, int] | None = None,
    decay_products: bool = False,
    probe: Probe | None = None,
    probe_every: int | None = None,
    events: bool | Sequence[str] = False,
    resume: str = "never",
    overwrite: bool = False,
    step: int | None = None,
    store: str = "device",
    precision: str = "full",
    memory: float | None = None,
    sketch_size: int = DEFAULT_SIZE,
    sketch_check: int = 0,
    backend: str = "auto",
    on_error: str = "disable",
    sinks: Any = None,
    ranks: str = "all",
    rank_timeout: float | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> Monitor:
    """Record the inner products of parameter updates from here on; the training loop stays as it is.

    After every ``every`` optimizer steps the update since the last snapshot is multiplied with the last ``lags``
    updates, block by block. Parameters, gradients, optimizer state, random numbers and loss are bit for bit what
    they would be without it.

    Args:
        model: The module that is trained. Every trainable tensor counts once (tied weights once, buffers never).
        optimizer: Its optimizer, or a list of them (Muon and AdamW, two players of a game): a step is complete
            once all have stepped, or before one steps twice. Accelerate's wrapper is unwrapped.
        window: Rows W of the windows you mean to look at; sets ``lags``.
        every: Optimizer steps between snapshots.
        lags: Stored updates L; None means ``2 * window - 1``, so that disjoint windows can be compared. Any
            window up to L + 1 can be derived later. Memory is ``(L + 1)`` times the parameters.
        out: Run folder; the recording grows in ``out/recording.jsonl``. None keeps it in memory.
        blocks: ``"all"``, ``"layer"``, ``"kind"``, ``"layer_kind"``, ``"matrix"``, ``"tensor"``,
            ``"projection"``, ``"head"``, a mapping from names to regular expressions, or a callable from a
            tensor's name and shape to a block name. Any union is available later.
        params: Monitor only these: a regular expression searched in names, or a predicate of name and tensor.
        heads: Number of attention heads for ``blocks="head"`` where modules do not say it.
        decay_products: Also record the exact part of decoupled weight decay (AdamW, Muon); one more vector.
        probe: Also measure gradients and curvature along the recorded updates; see ``Probe``.
        probe_every: Optimizer steps between probes, a multiple of ``every``; None means ``window * every``.
        events: Look for events while the run goes on and record them: True for all detectors of changes, or names
            (``spectraledge.detect.events.DETECTORS``, and "grokking", which foretells it from the head's updates).
            ``monitor.on_event(callback)`` also starts those of changes.
        resume: ``"auto"`` goes on with a recording found in ``out``; load model and optimizer states first, then
            ``monitor.load(...)`` if the ring was saved. ``"never"`` refuses one.
        overwrite: Replace a recording found in ``out``.
        step: Optimizer steps made so far, where the optimizer's state does not tell (SGD).
        store: Where the updates are kept: ``"device"``, with the parameters; ``"host"``, in main memory; ``"file"``,
            in a file of ``out`` that goes with the process; or ``"sketch"``, as ``sketch_size`` numbers a block,
            whose products are estimates and which takes no memory of the parameters' size (no probes then).
        precision: ``"full"``, or ``"bfloat16"`` for updates in half the memory; what rounding takes off each is
            measured and kept (``recording.error_norm2``), and raises the floor below which nothing is resolved.
        memory: Budget of the ring [bytes]: the first of full precision, bfloat16, a file and a sketch that fits is
            chosen, and the log says which and why. Instead of ``store`` and ``precision``.
        sketch_size: m, a power of 2; singular values are within a factor ``1 +- (sqrt(window) + 3) / sqrt(m)``.
        sketch_check: Windows, from the start, beside which an exact ring measures the error of the sketch.
        backend: ``"auto"``, ``"torch"`` or ``"compiled"``.
        on_error: ``"disable"`` warns once and lets training go on if monitoring fails; ``"raise"`` raises.
        sinks: Trackers to show the numbers in, by name (``"tensorboard:DIR"``, ``"wandb"``, ``"mlflow"``,
            ``"trackio"``, ``"jsonl:FILE"``) or as objects; ``spectraledge.sinks.connect`` has more choices.
        ranks: Where ``torch.distributed`` is initialised: ``"all"`` ranks train one model, and each must attach, at
            the same place of the program; or ``"alone"``, where each trains a model of its own.
        rank_timeout: Seconds for which ranks wait for each other; None means 600.
        metadata: Anything JSON can hold, kept in the header.

    Returns:
        The monitor: ``log(**metrics)``, ``detach()``, ``recording``, ``save(path)``, ``load(path)``, ``plan``.
        Also a context manager.

    Raises:
        SettingError: If an argument cannot be, the model has no trainable parameter, the ranks contradict each other,
            or the ring would take more than a quarter of the free memory.
        OutputError: If ``out`` cannot be written or holds a recording already.

    Example:
        >>> import spectraledge as se
        >>> _ = torch.manual_seed(0)
        >>> model = torch.nn.Linear(8, 2)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> monitor = se.attach(model, optimizer, window=4, every=1)
        >>> for _ in range(12):
        ...     optimizer.zero_grad()
        ...     model(torch.randn(16, 8)).square().mean().backward()
        ...     _ = optimizer.step()
        >>> monitor.detach()
        >>> monitor.recording.spectra(window=4).singular_values.shape
        (9, 4)
    """
    if not isinstance(model, torch.nn.Module):
        raise SettingError(f"model must be a torch.nn.Module; got {type(model).__name__}.")
    if _check_memory(memory) is not None:
        if (store, precision) != ("device", "full"):
            raise SettingError(
                f"memory= chooses store and precision; got memory={memory:g} with store={store!r} and "
                f"precision={precision!r}. Leave either out."
            )
        chosen = _choose(
            float(memory or 0), trainable(model, params), blocks, head_counts(model) if heads is None else heads,
            window=window, lags=check_lags(window, lags), decay=bool(decay_products), folder=out,
            sketch_size=check_size(sketch_size), probes=probe is not None,
        )  # fmt: skip
        store, precision, sketch_size = chosen.store, chosen.precision, chosen.sketch_size or sketch_size
    settings = Settings(
        window=check_window(window),
        every=check_every(every),
        lags=check_lags(window, lags),
        blocks=blocks,
        params=params,
        heads=heads,
        decay_products=bool(decay_products),
        store=store,
        backend=choice("backend", backend, ("auto", "torch", "compiled")),
        on_error=choice("on_error", on_error, ("disable", "raise")),
        probe=probe,
        probe_every=_check_probe(probe, probe_every, every, window, check_lags(window, lags)),
        events=events if isinstance(events, bool) else tuple(events),
        ranks=choice("ranks", ranks, ("all", "alone")),
        rank_timeout=_check_timeout(rank_timeout),
        **_ring_settings(store, precision, sketch_size, sketch_check, out, probe),
    )
    choice("resume", resume, ("never", "auto"))
    if resume == "auto" and overwrite:
        raise SettingError('resume="auto" and overwrite=True exclude each other; got both. Choose one.')
    optimizers = _optimizers(optimizer)
    mode = "overwrite" if overwrite else "resume" if resume == "auto" else "new"
    meta = {
        **(dict(metadata) if metadata else {}),
        "window": window,
        "every": every,
        "model": type(model).__name__,
    }

    def open_writer() -> RecordingWriter:
        writer = RecordingWriter(out, mode=mode, header_meta=meta)
        if writer.resumed is not None:
            try:
                _check_step_known(writer.resumed.records, optimizers, step)
            except SettingError:
                writer.close()
                raise
        return writer

    monitor = Monitor(model, optimizers, settings, open_writer, step=step)
    if sinks is not None:
        from .sinks import connect  # most runs show nothing anywhere

        try:
            connect(monitor, sinks)
        except BaseException:
            monitor.detach()
            raise
    return monitor


def plan(
    n_parameters: int,
    *,
    n_blocks: int = 1,
    window: int = 10,
    every: int = 100,
    lags: int | None = None,
    decay_products: bool = False,
    device: str = "cpu",
    itemsize: int = 4,
    probe: Probe | None = None,
    probe_every: int | None = None,
    store: str = "device",
    precision: str = "full",
    sketch_size: int = DEFAULT_SIZE,
    memory: float | None = None,
    folder: str | os.PathLike[str] | None = None,
) -> Plan:
    """What monitoring would cost on this machine: memory, time a snapshot, bytes a record.

    With ``memory`` or another store than the default the time is measured, on a small ring of that kind.

    Args:
        n_parameters: Trainable entries P.
        n_blocks: Blocks B.
        window: W.
        every: Steps between snapshots.
        lags: L; None means ``2 * window - 1``.
        decay_products: Whether the decay part is recorded.
        device: Where the ring would live.
        itemsize: Bytes an entry of the ring: 4, or 8 for float64 parameters.
        probe: What would be probed, if anything.
        probe_every: Steps between probes; None means ``window * every``.
        store: As in ``attach``.
        precision: As in ``attach``.
        sketch_size: As in ``attach``.
        memory: Budget of the ring [bytes]; chooses store and precision, see ``plan_stores`` for all of them.
        folder: Where a file would be; without it none is considered.

    Raises:
        SettingError: If an argument cannot be, or nothing fits into the budget.
    """
    whole("n_parameters", n_parameters, 1, "Give the number of trainable entries.")
    whole("n_blocks", n_blocks, 1, "One block is the whole vector.")
    check_window(window)
    check_every(every)
    choice("store", store, STORES)
    choice("precision", precision, PRECISIONS)
    append_ms = None
    if memory is not None or (store, precision) != ("device", "full"):
        found = plan_stores(
            n_parameters, n_blocks=n_blocks, window=window, lags=lags, decay_products=decay_products, device=device,
            itemsize=itemsize, memory=memory, sketch_size=sketch_size, folder=folder, probe=probe, measure=False,
        )  # fmt: skip
        if memory is not None:
            one = pick(found, memory)
        else:
            one = Candidate(store, precision, sketch_size if store == "sketch" else None, 0, 0, "")
        store, precision, sketch_size = one.store, one.precision, one.sketch_size or sketch_size
        n_lags = check_lags(window, lags)
        options: dict[str, Any] = {"decay": decay_products, "device": device, "itemsize": itemsize, "folder": folder}
        append_ms = timed([one], n_parameters, n_lags, **options)[0].append_ms
    on_device = torch.device(device).type == "cpu" or store in ("host", "file")
    backend = "compiled" if on_device and load_kernel() is not None else "torch"
    return make_plan(
        n_parameters,
        n_blocks,
        check_lags(window, lags),
        every=every,
        decay=decay_products,
        itemsize=itemsize,
        device=device,
        backend=backend,
        probe=probe,
        probe_every=_check_probe(probe, probe_every, every, window, check_lags(window, lags)),
        store=store,
        precision=precision,
        sketch_size=sketch_size if store == "sketch" else None,
        append_ms=append_ms,
    )


def plan_stores(
    n_parameters: int,
    *,
    n_blocks: int = 1,
    window: int = 10,
    lags: int | None = None,
    decay_products: bool = False,
    device: str = "cpu",
    itemsize: int = 4,
    memory: float | None = None,
    sketch_size: int = DEFAULT_SIZE,
    folder: str | os.PathLike[str] | None = None,
    probe: Probe | None = None,
    measure: bool = True,
) -> list[Candidate]:
    """All ways to keep the ring, in the order in which ``memory=`` tries them: bytes, error, milliseconds.

    Args:
        n_parameters: Trainable entries P.
        n_blocks: Blocks B.
        window: W.
        lags: L; None means ``2 * window - 1``.
        decay_products: Whether the decay part is recorded.
        device: Where the parameters would be.
        itemsize: Bytes an entry of the ring: 4, or 8 for float64 parameters.
        memory: Budget [bytes]; says of each whether it fits.
        sketch_size: Largest m of a sketch.
        folder: Where a file would be; without it none is considered.
        probe: What would be probed, if anything: a sketch cannot serve it.
        measure: Whether to time each on a small ring; about a second in all.

    Raises:
        SettingError: If an argument cannot be.

    Example:
        >>> [c.name for c in plan_stores(1_000_000, measure=False)]
        ['device, full', 'device, bfloat16', 'sketch of 16,384']
    """
    whole("n_parameters", n_parameters, 1, "Give the number of trainable entries.")
    whole("n_blocks", n_blocks, 1, "One block is the whole vector.")
    n_lags = check_lags(check_window(window), lags)
    found = candidates(
        n_parameters, n_blocks, n_lags, memory=_check_memory(memory), window=window, decay=decay_products,
        itemsize=itemsize, device=device, sketch_size=check_size(sketch_size), folder=folder,
        probes=probe is not None,
    )  # fmt: skip
    if not measure:
        return found
    return timed(found, n_parameters, n_lags, decay=decay_products, device=device, itemsize=itemsize, folder=folder)


def _check_timeout(seconds: float | None) -> float | None:
    if seconds is not None and not 0 < seconds < float("inf"):
        raise SettingError(f"rank_timeout must be a number of seconds above 0; got {seconds!r}. Use None for 600.")
    return seconds


def _check_memory(memory: float | None) -> float | None:
    if memory is None:
        return None
    if isinstance(memory, bool) or not isinstance(memory, (int, float)) or not 0 < memory < float("inf"):
        raise SettingError(f"memory must be a number of bytes above 0; got {memory!r}. Write for example memory=4e9.")
    return memory


def _choose(
    memory: float,
    tensors: Mapping[str, Any],
    scheme: BlockScheme,
    heads: int | Mapping[str, int] | None,
    *,
    folder: str | os.PathLike[str] | None,
    **options: Any,
) -> Candidate:
    """The first ring that the budget allows; one line of log says which and why."""
    # sizes of whole parameters, of sharded ones too: all ranks choose alike
    n = sum(t.numel() * (2 if t.is_complex() else 1) for t in tensors.values())
    double = any(t.dtype in (torch.float64, torch.complex128) for t in tensors.values())
    n_blocks = len(make_blocks({name: tuple(t.shape) for name, t in tensors.items()}, scheme, heads).names)
    device = next(iter(tensors.values())).device
    if world_size() > 1:
        folder = None  # the room on its disk need not be the same for all
    found = candidates(
        n, n_blocks, memory=memory, itemsize=8 if double else 4, device=device, folder=folder, **options
    )
    chosen = pick(found, memory)
    logger.info("%s", reason(chosen, found, memory))
    return chosen


def _ring_settings(
    store: str,
    precision: str,
    sketch_size: int,
    sketch_check: int,
    out: str | os.PathLike[str] | None,
    probe: Probe | None,
) -> dict[str, Any]:
    """Settings of a ring that is not the default one."""
    choice("store", store, STORES)
    choice("precision", precision, PRECISIONS)
    check_size(sketch_size)
    whole("sketch_check", sketch_check, 0, "It counts windows.")
    if store == "file" and out is None:
        raise SettingError('store="file" needs a folder for its file; got none. Give out=, the run folder.')
    check_sketch(store, precision, checked=sketch_check > 0)
    if store == "sketch" and probe is not None:
        raise SettingError(
            "probes need the updates themselves, which a sketch does not keep; got both. "
            'Use store="host" or store="file".'
        )
    if precision == "full" and store in ("device", "host"):
        return {}
    folder = None if out is None else recording_file(out).parent
    return {"precision": precision, "sketch_size": sketch_size, "sketch_check": sketch_check, "folder": folder}


def _check_probe(probe: Probe | None, probe_every: int | None, every: int, window: int, lags: int) -> int:
    if probe is None:
        if probe_every is not None:
            raise SettingError(
                f"probe_every needs a probe; got probe_every={probe_every} alone. "
                "Pass probe=spectraledge.Probe(train=..., val=...)."
            )
        return 0
    if not isinstance(probe, Probe):
        raise SettingError(f"probe must be a spectraledge.Probe; got {type(probe).__name__}.")
    if lags < window:
        raise SettingError(
            f"probes need the whole window in the ring, lags >= window; got {lags} and {window}. "
            "Use lags=None, which keeps 2 * window - 1."
        )
    steps = window * every if probe_every is None else whole("probe_every", probe_every, 1, "It counts steps.")
    return check_probe_every(steps, every)


def _optimizers(optimizer: Any) -> list[torch.optim.Optimizer]:
    listed: Sequence[Any] = optimizer if isinstance(optimizer, (list, tuple)) else [optimizer]
    if not listed:
        raise SettingError("optimizer must be a torch optimizer or a list of them; got an empty list.")
    return [unwrap(o) for o in listed]


def _check_step_known(records: Sequence[Mapping[str, Any]], optimizers: Sequence[Any], step: int | None) -> None:
    has_rows = any(r["kind"] == "row" for r in records)
    if step is None and has_rows and not any(map(keeps_count, optimizers)):
        raise SettingError(
            "to resume, the step must be known; "
            f"{' and '.join(type(o).__name__ for o in optimizers)} keep no count of steps. Pass step=."
        )
