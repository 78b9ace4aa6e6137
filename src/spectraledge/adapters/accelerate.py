"""``attach`` for loops around ``accelerate.Accelerator``: unwraps, and goes along with its saved states.

Checked against accelerate 1.15. ``register_for_checkpointing`` is not used, although a ``Monitor`` would fit:
accelerate pickles what is registered, loads it without ``weights_only``, and from then on refuses every folder whose
number of such objects differs, so that a checkpoint could not be loaded with and without a monitor alike. Its hooks
before saving and loading have none of this, and tell the folder.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ..errors import DataError, OutputError, SettingError
from ..stream.monitor import Monitor
from ..stream.steps import unwrap
from .common import LateMonitor, sidecar


def attach(
    accelerator: Any,
    model: torch.nn.Module,
    optimizer: Any,
    *,
    save_ring: bool = False,
    name: str = "monitor",
    **keywords: Any,
) -> Monitor:
    """Record the products of parameter updates in a loop of one's own around an ``Accelerator``.

    Like ``spectraledge.attach``, and besides:

    - ``accelerator.save_state(folder)`` also writes where the recording is, ``folder/spectral_edge/<name>.json``, or
      with ``save_ring=True`` the whole state with the ring, ``<name>.safetensors``. Nothing is pickled.
    - ``accelerator.load_state(folder)`` takes the recording back to there: it goes on bit for bit with the ring, else
      behind a marked seam, which no window crosses. A folder that was saved without a monitor loads as well.

    In a new process attach first, with ``resume="auto"`` to go on in the same ``out``, and then load. For optimizers
    that keep no count of steps (SGD) pass ``step=0``: the loaded state knows better.

    Steps are the optimizer's own: neither micro-batches under ``accelerator.accumulate`` nor steps that a gradient
    scaler skipped count. ``accelerator.optimizer_step_was_skipped`` is not asked: for fused optimizers, which look at
    the infinities themselves, it says False.

    Args:
        accelerator: Whose ``prepare`` made ``optimizer``.
        model: As prepared, or the model inside.
        optimizer: One or a list, as prepared or the torch optimizer inside.
        save_ring: Whether states include the ring: ``lags + 1`` times the parameters, 20 times the weights with
            the default window. Not with several processes: there a resumed recording has a seam.
        name: Of the file; two monitors of one accelerator need two names.
        **keywords: Those of ``spectraledge.attach``.

    Returns:
        The monitor; ``detach()`` it at the end. States saved after that do not include it.

    Raises:
        SettingError: As ``spectraledge.attach``; or if the accelerator has not prepared the optimizer.
        OutputError: As ``spectraledge.attach``.

    Example:
        >>> # model, optimizer, batches = accelerator.prepare(model, optimizer, batches)
        >>> # monitor = attach(accelerator, model, optimizer, window=10, every=20, out="runs/mine")
    """
    check_name(name)
    listed = list(optimizer) if isinstance(optimizer, (list, tuple)) else [optimizer]
    last = _last_prepared(accelerator, [unwrap(one) for one in listed])
    late = LateMonitor(**keywords)
    monitor = late.attach(accelerator.unwrap_model(model), listed)
    states = _States(accelerator, late, monitor, save_ring=bool(save_ring), name=name)
    handles = [
        accelerator.register_save_state_pre_hook(states.save),
        accelerator.register_load_state_pre_hook(states.announce),
        last.register_load_state_dict_post_hook(states.load),  # after the monitor's own
    ]

    def let_go(kind: str, fields: Mapping[str, Any]) -> None:
        if kind == "close":
            for handle in handles:
                handle.remove()

    monitor.on_record(let_go)
    return monitor


def check_name(name: str) -> None:
    """Whether a sidecar can be called so.

    Raises:
        SettingError: If it is no plain name.
    """
    if not isinstance(name, str) or not name or name != Path(name).name or name.startswith("."):
        raise SettingError(f'name must be the stem of a file\'s name; got {name!r}. Use name="monitor".')


class _States:
    """Goes along with ``save_state`` and ``load_state``, and lets none of them fail."""

    def __init__(self, accelerator: Any, late: LateMonitor, monitor: Monitor, *, save_ring: bool, name: str) -> None:
        self.accelerator, self.late, self.monitor = accelerator, late, monitor
        self.save_ring, self.name = save_ring and accelerator.num_processes == 1, name
        self.folder: Path | None = None

    def save(self, models: Sequence[Any], weights: Sequence[Any], folder: str) -> None:
        """Called by ``save_state``, which has made the folder, on all processes."""
        if not self.accelerator.is_main_process:
            return
        with self.late.forgiving("did not save its state; a recording resumed from here will have a seam"):
            ring = sidecar(folder, self.name)
            for old in (ring, ring.with_suffix(".json")):
                old.unlink(missing_ok=True)
            state = self.late.state()
            if state and self.save_ring:
                self.late.save(folder, name=self.name)
            elif state:
                _write_json(ring.with_suffix(".json"), state)

    def announce(self, models: Sequence[Any], folder: str) -> None:
        """Called by ``load_state`` before it loads models and then optimizers."""
        self.folder = Path(folder)

    def load(self, optimizer: torch.optim.Optimizer) -> None:
        """Called once the last optimizer has been loaded; its count of steps is the checkpoint's by now."""
        folder, self.folder = self.folder, None
        if folder is None:  # the user's own loading, which the monitor itself notices
            return
        with self.late.forgiving("does not go on from the saved state; a seam is marked"):
            state = self.late.load(folder, name=self.name)
            path = sidecar(folder, self.name).with_suffix(".json")
            if state is None and path.exists():
                state = _read_json(path)
            if state is not None and self.late.state():
                self.monitor.load_state_dict(state)


def _last_prepared(accelerator: Any, optimizers: Sequence[torch.optim.Optimizer]) -> torch.optim.Optimizer:
    """The one that ``load_state`` loads last.

    Raises:
        SettingError: If the accelerator does not know them all.
    """
    prepared = [unwrap(one) for one in getattr(accelerator, "_optimizers", [])]
    for optimizer in optimizers:
        if not any(optimizer is one for one in prepared):
            raise SettingError(
                f"optimizer must have been prepared by this accelerator; got {type(optimizer).__name__}, "
                "which was not. Call accelerator.prepare first."
            )
    return [one for one in prepared if any(one is optimizer for optimizer in optimizers)][-1]


def _write_json(path: Path, state: Mapping[str, Any]) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(dict(state)))
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise OutputError(f"{path} must be writable; got {error}. Choose another folder.") from error


def _read_json(path: Path) -> dict[str, Any]:
    try:
        state = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise DataError(f"{path} must be a state that was saved beside a checkpoint; {error}.") from error
    if not isinstance(state, dict):
        raise DataError(f"{path} must hold an object; it holds a {type(state).__name__}.")
    return state
