"""AdamW on stacked parameters, also where every model has its own learning rate, decay and betas."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import AdamW, Optimizer

from .stack import ParameterStack

_PER_MODEL = ("lr", "weight_decay", "betas", "eps")


class BroadcastAdamW(Optimizer):
    """AdamW on tensors ``(N, ...)`` whose groups hold one value a model.

    Slice n moves as ``torch.optim.AdamW`` with the n-th values would move it, up to rounding.

    Args:
        groups: As torch's, but "lr", "weight_decay", "eps" and both of "betas" are sequences of N numbers.

    Source: Loshchilov and Hutter, arXiv:1711.05101.
    """

    def __init__(self, groups: Sequence[dict[str, Any]]) -> None:
        super().__init__(groups, {})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One update from ``.grad``."""
        for group in self.param_groups:
            for theta in group["params"]:
                if theta.grad is not None:
                    self._update(theta, theta.grad, group)

    def _update(self, theta: Tensor, grad: Tensor, group: dict[str, Any]) -> None:
        state = self.state[theta]
        if not state:
            state["step"] = torch.tensor(0.0)
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(theta), torch.zeros_like(theta)
        state["step"] += 1
        t = float(state["step"])

        def each(values: Sequence[float] | Tensor) -> Tensor:
            # Computed in float64 and rounded once, as torch does with plain numbers.
            column = torch.as_tensor(values, dtype=torch.float64).to(theta.dtype).to(theta.device)
            return column.view(-1, *[1] * (theta.ndim - 1))

        lr, decay, eps = (torch.tensor(group[name], dtype=torch.float64) for name in ("lr", "weight_decay", "eps"))
        beta1, beta2 = (torch.tensor(values, dtype=torch.float64) for values in group["betas"])
        m, v = state["exp_avg"], state["exp_avg_sq"]
        theta.mul_(each(1 - lr * decay))
        m.lerp_(grad, each(1 - beta1))
        v.mul_(each(beta2)).add_(each(1 - beta2) * grad * grad)
        denominator = (v.sqrt() / each((1 - beta2**t).sqrt())).add_(each(eps))
        theta.sub_(each(lr / (1 - beta1**t)) * m / denominator)


class StackedAdamW:
    """Makes the step of N models' AdamWs as one, and lets each of these optimizers look as if it had made its own.

    Hooks on the models' optimizers are called around the step, their learning rates are the ones used, and their
    state is a view of the stacked one: what a monitor or a probe reads is what ``run`` would show it.

    Args:
        stack: Parameters and gradients.
        optimizers: One AdamW a model, over the stack's parameters.
        uniform: Whether the models agree in all numbers, now and at every later step: torch's own AdamW then takes
            the stack, which gives the very bits of N separate ones.
    """

    def __init__(self, stack: ParameterStack, optimizers: Sequence[AdamW], *, uniform: bool) -> None:
        self._stack, self._members = stack, list(optimizers)
        self._inner = self._build(uniform)

    def step(self) -> None:
        """One step of every model."""
        for inner, *groups in zip(self._inner.param_groups, *(member.param_groups for member in self._members)):
            inner["lr"] = groups[0]["lr"] if isinstance(self._inner, AdamW) else [group["lr"] for group in groups]
        for name, value in self._stack.values.items():
            value.grad = self._stack.grads[name]
        for member in self._members:
            for before in member._optimizer_step_pre_hooks.values():
                before(member, (), {})
        self._inner.step()
        if not self._members[0].state:
            self._share_state()
        for member in self._members:
            for after in member._optimizer_step_post_hooks.values():
                after(member, (), {})

    def keep(self, members: Sequence[int], *, uniform: bool) -> None:
        """Go on with these models, after ``stack.keep``; the others keep their state.

        Args:
            members: Those that go on.
            uniform: As at the beginning, of these.
        """
        for member in set(range(len(self._members))) - set(members):
            for state in self._members[member].state.values():
                state.update({key: tensor.clone() for key, tensor in state.items()})
        self._members = [self._members[member] for member in members]
        if not members:
            return
        old = self._inner
        states = [old.state[p] for group in old.param_groups for p in group["params"]]
        self._inner = self._build(uniform)
        for p, state in zip((p for group in self._inner.param_groups for p in group["params"]), states):
            self._inner.state[p] = {key: x if key == "step" else x[list(members)] for key, x in state.items()}
        self._share_state()

    def _build(self, uniform: bool) -> Optimizer:
        by_id = {id(p): name for name, p in self._stack.parameters(0).items()}
        groups = []
        for like in zip(*(member.param_groups for member in self._members)):
            numbers = {key: [group[key] for group in like] for key in _PER_MODEL}
            numbers["betas"] = list(zip(*numbers["betas"]))
            shared = {key: like[0][key] for key in _PER_MODEL}
            params = [self._stack.values[by_id[id(p)]] for p in like[0]["params"]]
            groups.append({"params": params, **(shared if uniform else numbers)})
        return AdamW(groups) if uniform else BroadcastAdamW(groups)

    def _share_state(self) -> None:
        for index, member in enumerate(self._members):
            for name, parameter in self._stack.parameters(index).items():
                state = self._inner.state[self._stack.values[name]]
                # Nothing but the number of steps is the same tensor for all models.
                member.state[parameter] = {key: x if key == "step" else x[index] for key, x in state.items()}
