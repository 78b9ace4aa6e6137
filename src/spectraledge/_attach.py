"""``attach``: two lines in a training loop."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from .errors import SettingError
from .recording import RecordingWriter
from .stream.blocks import BlockScheme
from .stream.checks import check_every, check_lags, check_probe_every, check_window, choice, whole
from .stream.cost import Plan, make_plan
from .stream.kernel import load_kernel
from .stream.monitor import Monitor, Settings
from .stream.parameters import ParameterFilter
from .stream.probe import Probe
from .stream.steps import keeps_count, unwrap


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
    backend: str = "auto",
    on_error: str = "disable",
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
        events: Look for events while the run goes on and record them: True for all detectors, or their names
            (``spectraledge.detect.events.DETECTORS``). ``monitor.on_event(callback)`` also starts them.
        resume: ``"auto"`` goes on with a recording found in ``out``; load model and optimizer states first, then
            ``monitor.load(...)`` if the ring was saved. ``"never"`` refuses one.
        overwrite: Replace a recording found in ``out``.
        step: Optimizer steps made so far, where the optimizer's state does not tell (SGD).
        store: ``"device"``, or ``"host"`` to keep the ring in main memory.
        backend: ``"auto"``, ``"torch"`` or ``"compiled"``.
        on_error: ``"disable"`` warns once and lets training go on if monitoring fails; ``"raise"`` raises.
        metadata: Anything JSON can hold, kept in the header.

    Returns:
        The monitor: ``log(**metrics)``, ``detach()``, ``recording``, ``save(path)``, ``load(path)``, ``plan``.
        Also a context manager.

    Raises:
        SettingError: If an argument cannot be, the model has no trainable parameter or a sharded one, or the ring
            would take more than a quarter of the free memory.
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
    settings = Settings(
        window=check_window(window),
        every=check_every(every),
        lags=check_lags(window, lags),
        blocks=blocks,
        params=params,
        heads=heads,
        decay_products=bool(decay_products),
        store=choice("store", store, ("device", "host")),
        backend=choice("backend", backend, ("auto", "torch", "compiled")),
        on_error=choice("on_error", on_error, ("disable", "raise")),
        probe=probe,
        probe_every=_check_probe(probe, probe_every, every, window, check_lags(window, lags)),
        events=events if isinstance(events, bool) else tuple(events),
    )
    choice("resume", resume, ("never", "auto"))
    if resume == "auto" and overwrite:
        raise SettingError('resume="auto" and overwrite=True exclude each other; got both. Choose one.')
    if not isinstance(model, torch.nn.Module):
        raise SettingError(f"model must be a torch.nn.Module; got {type(model).__name__}.")
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

    return Monitor(model, optimizers, settings, open_writer, step=step)


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
) -> Plan:
    """What monitoring would cost on this machine: memory, time a snapshot, bytes a record.

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

    Raises:
        SettingError: If an argument cannot be.
    """
    whole("n_parameters", n_parameters, 1, "Give the number of trainable entries.")
    whole("n_blocks", n_blocks, 1, "One block is the whole vector.")
    check_window(window)
    check_every(every)
    backend = "compiled" if torch.device(device).type == "cpu" and load_kernel() is not None else "torch"
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
    )


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
