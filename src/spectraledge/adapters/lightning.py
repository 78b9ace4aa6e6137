"""A callback for Lightning: ``Trainer(callbacks=[SpectralEdge(...)])`` and nothing else changes.

Works with ``lightning.pytorch`` and with ``pytorch_lightning``. The class derives from the ``Callback`` of the one
that is loaded already; of ``lightning.pytorch`` if both or none are. Trainers call callbacks by the names of their
methods, so that the class runs in a trainer of the other package as well.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import SettingError, require
from ..recording import Event
from .common import LateMonitor, Monitored

if TYPE_CHECKING:
    from lightning.pytorch import Callback, LightningModule, Trainer
else:
    _PACKAGES = ("lightning.pytorch", "pytorch_lightning")
    _loaded = [name for name in _PACKAGES if name in sys.modules]
    try:
        Callback = require((_loaded or _PACKAGES)[0], "lightning").Callback
    except ImportError:
        if _loaded:
            raise
        Callback = require(_PACKAGES[1], "lightning").Callback

_NO_RING = (
    "save_ring needs one process, whose checkpoint holds all updates; there are {}, each with a part of them. "
    "A resumed recording will have a seam."
)


class SpectralEdge(Monitored, Callback):
    """Record the inner products of parameter updates while a Lightning trainer trains.

    Attaches in ``on_train_start``, when the optimizers exist and a checkpoint has been restored, and closes the
    recording in ``on_train_end`` or on an exception. Validating, testing, predicting and the tuner's trials attach
    nothing. Training is bit for bit what it would be without it.

    **Steps** are the optimizer's own, in ``every`` as in the recording: one for each group of accumulated batches,
    none where a gradient scaler skips. ``trainer.global_step`` is another number: it also counts skipped steps, and
    those of all optimizers together. With several optimizers (manual optimization) one step is complete once all have
    stepped, or before one of them steps twice: two players that take turns make one step a turn; with five steps
    of the one to one of the other, the five count.

    **Checkpoints** hold a few numbers of this callback, and with ``save_ring=True`` the stored updates too. Then
    ``fit(ckpt_path=...)`` goes on with the same recording as if nothing had happened; without them a seam is
    marked that no window crosses. ``resume`` and ``overwrite`` need not change for it. A second ``fit`` of the same
    trainer goes on behind the first, with a seam, since Lightning makes new optimizers (with ``out=None`` it starts
    a recording of its own). The ring is inside the checkpoint and not in a file of its own, because callbacks are
    not told a checkpoint's path: so it is written with it, renamed and deleted with it, and never belongs to
    another one.

    **Metrics** that the module logs, means of epochs and latest values of batches, are recorded when a
    validation or an epoch of training ends, each measurement once. Of ``self.log("loss", ..., on_step=True,
    on_epoch=True)`` come ``loss_step`` and ``loss_epoch``.

    Args:
        log_metrics: Whether to record the module's metrics.
        on_event: Called with every ``Event`` that a detector reports; starts the detectors.
        save_ring: Whether checkpoints hold the stored updates, ``lags + 1`` times the parameters [bytes in float32:
            4 (lags + 1) P]. Not with several processes: there a resumed recording has a seam.
        name: Tells the states of several of these callbacks apart in a checkpoint; None takes the name of the
            folder ``out``.
        **keywords: Of ``spectraledge.attach``: ``window``, ``every``, ``lags``, ``out``, ``blocks``, ``params``,
            ``events``, ``on_error``, ...

    Attributes:
        monitor: Of the training that runs, or ran last; None before.

    Raises:
        SettingError: If a keyword cannot be. What only shows with the model (memory, sharded parameters, a folder in
            use) is raised before the first step of training; from then on, only with ``on_error="raise"``.
        MissingDependencyError: On import, if Lightning is not installed.

    Example:
        >>> callback = SpectralEdge(window=10, every=50, out="runs/mine")
        >>> callback.state_key
        "SpectralEdge{'name': 'mine'}"
    """

    def __init__(
        self,
        *,
        log_metrics: bool = True,
        on_event: Callable[[Event], object] | None = None,
        save_ring: bool = False,
        name: str | None = None,
        **keywords: Any,
    ) -> None:
        super().__init__()
        self._late = LateMonitor(on_event=on_event, **keywords)
        self._log_metrics = bool(log_metrics)
        self._save_ring = bool(save_ring)
        self._name = name if name is not None else _name(keywords)
        self._restored: dict[str, Any] | None = None
        self._logged: dict[str, Any] = {}

    # state in checkpoints

    @property
    def state_key(self) -> str:
        """Key of this callback's state in a checkpoint."""
        return self._generate_state_key(name=self._name)

    def state_dict(self) -> dict[str, Any]:
        """For the checkpoint; called by the trainer."""
        if self._restored is not None:  # saved between restoring and the start of training
            return self._restored
        return self._late.state(ring=self._save_ring)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """From the checkpoint; called by the trainer, before the optimizers have theirs."""
        self._restored = dict(state_dict) if "step" in state_dict else None

    # hooks, in the order of their calls

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Forget what an evaluation may have restored; a checkpoint to train from is restored after this."""
        self._restored = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Attach."""
        optimizers = list(trainer.optimizers)
        if not any(group["params"] for optimizer in optimizers for group in optimizer.param_groups):
            raise SettingError(
                "configure_optimizers must return the optimizers that step; it returned none. "
                "With optimizers made elsewhere, call spectraledge.attach where they are made."
            )
        state, self._restored = self._restored, None
        if state is None and trainer.ckpt_path is None and trainer.global_step > 0:
            state = self._late.state() or None  # ``fit`` again: the trainer's counts go on, and so do ours
        if self._save_ring and trainer.world_size > 1:
            self._save_ring = False
            if trainer.is_global_zero:
                warnings.warn(_NO_RING.format(trainer.world_size), RuntimeWarning, stacklevel=2)
        steps = trainer.global_step if len(optimizers) == 1 else None
        self._late.attach(pl_module, optimizers, state=state, step=steps)
        self._logged = {}

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Record what the module logged in its own ``on_train_epoch_end``, which comes after ours."""
        self._record_metrics(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Record metrics."""
        if not trainer.sanity_checking:
            self._record_metrics(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Record metrics."""
        self._record_metrics(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Record metrics and close the recording."""
        self._record_metrics(trainer)
        self._late.detach()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Close the recording; a checkpoint that is saved after this still gets the state."""
        self._late.detach()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Close the recording, should nothing have done it yet."""
        if stage == "fit":
            self._late.detach()
        self._restored = None

    def _record_metrics(self, trainer: Trainer) -> None:
        """Record the metrics that have been measured since they were recorded last.

        On every rank alike, as reading ``callback_metrics`` may reduce them over ranks.
        """
        if self._log_metrics and self._late.running:
            with self._late.forgiving("did not record the metrics"):
                metrics = dict(trainer.callback_metrics)
                self._late.log(_measured_since(metrics, self._logged))
                self._logged = metrics


def _measured_since(metrics: Mapping[str, Any], before: Mapping[str, Any]) -> dict[str, Any]:
    """Those that are not the very measurements in ``before``.

    ``callback_metrics`` keeps what was measured long ago. A tensor at the same address with the same value is the
    same measurement: ``before`` holds on to its memory, so no other can be there. An equal value measured anew is at
    another address, and is recorded. What is logged per step and per epoch stands there three times; ``loss``, which
    is now the one and now the other, is left out, ``loss_step`` and ``loss_epoch`` are kept.
    """
    forked = {name for name in metrics if f"{name}_step" in metrics or f"{name}_epoch" in metrics}
    return {n: v for n, v in metrics.items() if n not in forked and not _same(v, before.get(n))}


def _same(one: Any, other: Any) -> bool:
    if other is None or one.data_ptr() != other.data_ptr():
        return False
    return bool(((one == other) | (one.isnan() & other.isnan())).all())


def _name(keywords: Mapping[str, Any]) -> str:
    """Of a monitor that was given none."""
    out = keywords.get("out")
    if out is not None:
        return Path(out).name
    return ", ".join(f"{key}={keywords[key]}" for key in ("window", "every", "blocks") if key in keywords)
