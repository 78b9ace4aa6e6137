"""Run a catalogued experiment: one call, one folder, one recording, exactly repeatable and resumable."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import SettingError
from .config import configure
from .folder import FINISHED, check_folder

if TYPE_CHECKING:
    from ..recording import Recording
    from .loop import Progress


def run(
    name: str,
    *,
    seed: int | None = None,
    out: str | os.PathLike[str] | None = None,
    settings: Mapping[str, object] | None = None,
    window: int = 10,
    every: int = 25,
    lags: int | None = None,
    blocks: str | dict[str, str] = "layer",
    decay_products: bool = False,
    probe_every: int | None = None,
    probe: Mapping[str, object] | None = None,
    resume: bool = False,
    overwrite: bool = False,
    checkpoint_every: int | None = None,
    progress: Progress | None = None,
    **overrides: object,
) -> Recording:
    """Train a catalogued experiment under the monitor.

    The caller's generators, thread count and gradients are left as they were: the run seeds its own. On one
    machine, with equal settings and versions, two runs give bit-equal recordings, and so does a run that was
    killed and resumed.

    Args:
        name: A name of ``spectraledge.experiments.catalogue.names()``, for example "modular/add".
        seed: Of initialisation, data split and batches; 42 where neither this nor the settings say.
        out: Folder for config.json, environment.json, recording.jsonl and checkpoints; memory only where
            None.
        settings: The experiment's settings by name; text is accepted as from a command line.
        window: Updates in a window, at least 2.
        every: Optimizer steps a snapshot. 25 puts about 110 updates before a grok step near 2,900, so that
            even windows of 20 have more than three disjoint ones before it; at 100 there are only 29 updates.
        lags: Updates back that are recorded; 2 * window - 1 where None.
        blocks: How parameters are grouped in the recording.
        decay_products: Also record the exact part of decoupled weight decay (AdamW, Muon), so that its drift
            can be told from the rest.
        probe_every: Optimizer steps between probes of gradients and curvature along the recorded updates, on the
            whole training and validation sets; a multiple of ``every``. None for no probes.
        probe: Further settings of the probes by name: modes, span, random, eigenvalues, curvature,
            next_gradients, replicate; see ``spectraledge.Probe``.
        resume: Go on with the run in ``out``; a finished one returns at once, an empty folder starts.
        overwrite: Replace the run in ``out``.
        checkpoint_every: Steps between checkpoints, the last two kept, one at the end among them; 0 for none.
            Where None, one every 10 evaluations while the run goes on, removed when it has finished.
        progress: Called as ``progress(step, steps, metrics)`` at each evaluation.
        **overrides: Settings by name, as in ``settings``.

    Returns:
        The recording, as ``spectraledge.load(out)`` gives it.

    Raises:
        SettingError: On an unknown name or setting, a value out of range, or a resume with other settings.
        OutputError: If ``out`` holds a recording and neither ``resume`` nor ``overwrite`` is given, or cannot
            be written.
    """
    chosen, config = configure(
        name,
        seed=seed,
        settings=settings,
        window=window,
        every=every,
        lags=lags,
        blocks=blocks,
        decay_products=decay_products,
        probe_every=probe_every,
        probe=probe,
        **overrides,
    )
    if checkpoint_every is not None and checkpoint_every < 0:
        raise SettingError(f"checkpoint_every must be at least 0; got {checkpoint_every}. Use 0 for no checkpoints.")
    if out is None and (resume or overwrite or checkpoint_every):
        raise SettingError(
            "a run that is resumed, replaced or checkpointed must have a folder; got out=None. Give out=."
        )
    folder = None if out is None else Path(out)
    going_on = folder is not None and check_folder(folder, config, resume=resume, overwrite=overwrite)
    if folder is not None and going_on and (folder / FINISHED).exists():
        from ..recording import load

        return load(folder)

    from .session import Session, own_torch

    with own_torch(chosen):
        session = Session(name, chosen, config, folder, checkpoint_every)
        return session.train(going_on=going_on, overwrite=overwrite, progress=progress)
