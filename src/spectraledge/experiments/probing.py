"""Probes of catalogued experiments: settings by name, and losses and replicas from the task.

Loads no torch until a probe is built.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..errors import SettingError
from ..stream.checks import check_probe_every
from .sentences import setting_sentences

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch.optim import Optimizer

    from ..stream.probe import Probe
    from .settings import TrainingSettings
    from .tasks.base import Experiment


class ProbeSettings(BaseModel):
    """How a catalogued run is probed, on its whole training and validation set.

    Attributes:
        every: Optimizer steps between probes; a multiple of the steps between snapshots.
        modes: Leading modes along which curvature is measured.
        span: Random directions in the span of these.
        random: Random directions in parameter space.
        eigenvalues: Largest eigenvalues of the Hessian.
        curvature: "auto", "difference" or "exact".
        next_gradients: Gradients at the next snapshot too, for the second-order term of the change of loss.
        kernel: Training inputs on whose outputs the tangent kernel is measured; 0 for none. Costs a gradient for
            each output of each.
        replicate: Two further continuations with other batches at each probe, whose difference is the noise.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    every: int = Field(ge=1)
    modes: int = Field(4, ge=0)
    span: int = Field(4, ge=0)
    random: int = Field(2, ge=0)
    eigenvalues: int = Field(0, ge=0)
    curvature: Literal["auto", "difference", "exact"] = "auto"
    next_gradients: bool = True
    kernel: int = Field(0, ge=0)
    replicate: bool = False


def probe_settings(every: int | None, values: Mapping[str, object] | None, snapshots: int) -> ProbeSettings | None:
    """Validated settings of a run's probes; None where no probe is asked for.

    Args:
        every: Optimizer steps between probes.
        values: Further settings by name; text is accepted as from a command line.
        snapshots: Optimizer steps between snapshots.

    Raises:
        SettingError: On an unknown name, a value out of range, settings without ``every``, or one that is no
            multiple of ``snapshots``.
    """
    if every is None:
        if values:
            raise SettingError(
                f"probe settings need the steps between probes; got {', '.join(values)} alone. "
                "Give probe_every (--probe-every 250)."
            )
        return None
    try:
        chosen = ProbeSettings(every=every, **(values or {}))  # type: ignore[arg-type]
    except ValidationError as error:
        raise SettingError(" ".join(setting_sentences(error, ProbeSettings, "a probe"))) from None
    check_probe_every(chosen.every, snapshots)
    return chosen


def build_probe(chosen: ProbeSettings, experiment: Experiment, settings: TrainingSettings) -> Probe:
    """The probe of one run."""
    import torch

    from ..stream.probe import Probe
    from .loop import clip

    task = experiment.task
    train, val = task.probe_losses()

    def replicate(model: torch.nn.Module, optimizers: Sequence[Optimizer], n_steps: int, copy: int) -> None:
        # The task's own generator has moved since the last probe: its state makes each probe's streams its own.
        moment = zlib.crc32(json.dumps(task.state(), sort_keys=True).encode())
        twin = task.replica(1 + copy + 2 * (moment // 4))  # below 2^32, which generators ask for
        parameters = [p for p in model.parameters() if p.requires_grad]
        for _ in range(n_steps):
            model.zero_grad(set_to_none=True)
            twin.loss(model, twin.draw()).backward()
            clip(parameters, settings.clip)
            for optimizer in optimizers:
                optimizer.step()

    fields: dict[str, Any] = chosen.model_dump(exclude={"every", "replicate", "kernel"})
    if chosen.kernel:
        if not hasattr(task, "probe_outputs"):
            raise SettingError(
                f"a tangent kernel needs a task with outputs; {type(task).__name__} has none. Leave out kernel."
            )
        fields["outputs"], fields["output_loss"] = task.probe_outputs(chosen.kernel)
    return Probe(train=train, val=val, replicate=replicate if chosen.replicate else None, **fields)
