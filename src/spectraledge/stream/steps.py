"""When a training step has really been made: counting over one or several optimizers.

Owns the hooks on the optimizers; knows nothing about rings or recordings.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from ..errors import SettingError
from .ranks.tensors import local


def unwrap(optimizer: Any) -> torch.optim.Optimizer:
    """The torch optimizer inside a wrapper such as Accelerate's.

    Raises:
        SettingError: If there is none.
    """
    seen: set[int] = set()
    while not isinstance(optimizer, torch.optim.Optimizer) or type(optimizer).__name__ == "AcceleratedOptimizer":
        inner = getattr(optimizer, "optimizer", None)
        if inner is None or id(inner) in seen:
            raise SettingError(
                f"optimizer must be a torch.optim.Optimizer, or a list of them; got {type(optimizer).__name__}."
            )
        seen.add(id(inner))
        optimizer = inner
    return optimizer


def optimizer_steps(optimizer: torch.optim.Optimizer) -> int | None:
    """Steps made according to the optimizer's own state; None where it keeps no count."""
    counts = [state["step"] for state in optimizer.state.values() if isinstance(state, dict) and "step" in state]
    return max((int(local(c) if isinstance(c, torch.Tensor) else c) for c in counts), default=None)


def keeps_count(optimizer: torch.optim.Optimizer) -> bool:
    """Whether the optimizer's state holds, or will hold, a count of steps."""
    if optimizer.state:
        return optimizer_steps(optimizer) is not None
    without = (torch.optim.SGD, torch.optim.Muon, torch.optim.LBFGS)
    return type(optimizer).__module__.startswith("torch.optim") and not isinstance(optimizer, without)


class StepCounter:
    """Calls back before each optimizer step and once after each completed training step.

    A training step is complete once every optimizer has stepped, or before one of them steps twice. Steps that
    a gradient scaler skips are not counted: unfused optimizers are then not called at all, fused ones carry
    ``found_inf``, and before a snapshot the count is compared with the optimizer's own.

    Args:
        optimizers: Unwrapped optimizers.
        start: Count to start from; None reads the optimizers' own.
        before: Called with an optimizer before it steps.
        stepped: Called with an optimizer after it has stepped.
        completed: Called with the new count after a completed training step.
        reloaded: Called after an optimizer has loaded a state.
    """

    def __init__(
        self,
        optimizers: Sequence[torch.optim.Optimizer],
        *,
        start: int | None,
        before: Callable[[torch.optim.Optimizer], None],
        stepped: Callable[[torch.optim.Optimizer], None],
        completed: Callable[[int], None],
        reloaded: Callable[[], None],
    ) -> None:
        self.optimizers = list(optimizers)
        self._before, self._stepped, self._completed = before, stepped, completed
        self._pending: set[int] = set()
        self._scaled = False  # whether a gradient scaler has handed its findings to an optimizer
        self.count = self.own_count() or 0 if start is None else start
        self._own_offset = self.count - (self.own_count() or 0)
        self._handles: list[Any] = []
        # a compiled optimizer step would otherwise trace the hooks; dynamo is loaded by any optimizer anyway
        pre, post = torch.compiler.disable(self._pre), torch.compiler.disable(self._post)
        for optimizer in self.optimizers:
            self._handles += [
                optimizer.register_step_pre_hook(pre),
                optimizer.register_step_post_hook(post),
                optimizer.register_load_state_dict_post_hook(lambda _: reloaded()),
            ]

    def own_count(self) -> int | None:
        """Largest count in the optimizers' own states."""
        counts = [c for c in map(optimizer_steps, self.optimizers) if c is not None]
        return max(counts, default=None)

    def reconcile(self) -> int:
        """The count, corrected downwards where the optimizer's own state says that steps were skipped.

        A state on an accelerator is asked only where a gradient scaler has been at work: to read it is to wait.
        """
        if len(self.optimizers) == 1 and (self._scaled or not _counts_on_accelerator(self.optimizers[0])):
            own = self.own_count()
            if own is not None:
                self.count = min(self.count, own + self._own_offset)
        return self.count

    def restart(self, count: int) -> None:
        """Go on from ``count``, which the optimizers' own state is now taken to mean."""
        self.count = count
        self._own_offset = count - (self.own_count() or 0)
        self._pending.clear()

    def remove(self) -> None:
        """Take the hooks off."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def _pre(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        self._scaled = self._scaled or getattr(optimizer, "found_inf", None) is not None
        if _skips(optimizer):
            return
        if id(optimizer) in self._pending:
            self._complete()
        self._before(optimizer)

    def _post(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        if _skips(optimizer):
            return
        self._stepped(optimizer)
        self._pending.add(id(optimizer))
        if len(self._pending) == len(self.optimizers):
            self._complete()

    def _complete(self) -> None:
        self._pending.clear()
        self.count += 1
        self._completed(self.count)


def _counts_on_accelerator(optimizer: torch.optim.Optimizer) -> bool:
    steps = (state.get("step") for state in optimizer.state.values() if isinstance(state, dict))
    return any(isinstance(step, torch.Tensor) and step.device.type != "cpu" for step in steps)


def _skips(optimizer: torch.optim.Optimizer) -> bool:
    """Whether a fused optimizer, called by a gradient scaler that found infinities, makes no step."""
    found_inf = getattr(optimizer, "found_inf", None)
    return isinstance(found_inf, torch.Tensor) and bool(local(found_inf).sum() > 0)
