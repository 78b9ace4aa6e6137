"""A loss as a function of the parameters: value, gradient, and products of its Hessian with vectors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Literal, get_args

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..errors import SettingError

Vector = Mapping[str, torch.Tensor]
Loss = Callable[[torch.nn.Module], torch.Tensor]
Method = Literal["exact", "difference"]

# Gradients carry a relative rounding of some eps, a central difference an error of (step / scale)^2: the two
# balance at eps^(1/3) times the scale on which the Hessian changes. That scale is taken to be a tenth of the
# parameters' norm, and the step may be set by hand.
_SCALE = 0.1


class Objective:
    """A scalar loss of a model, differentiated at the model's current parameters.

    Nothing is written: gradients are taken with ``torch.autograd.grad``, which leaves ``.grad`` and the hooks
    of distributed wrappers alone, and central differences are evaluated on displaced copies that stand in for
    the parameters' memory and are taken out again. Use it inside :func:`undisturbed`.

    Args:
        model: The module.
        parameters: Its tensors by name, the variables.
        loss: Takes the model, returns a scalar tensor. It must be a function of the parameters alone: the same
            batch at every call. Random layers draw the same numbers each time.
        seed: Of these numbers.

    Attributes:
        evaluations: Cost so far in gradient evaluations (one forward and one backward pass).
    """

    def __init__(
        self, model: torch.nn.Module, parameters: Mapping[str, torch.Tensor], loss: Loss, *, seed: int = 0
    ) -> None:
        self.model, self.parameters, self._loss, self._seed = model, dict(parameters), loss, seed
        self.evaluations = 0.0
        self._graph: tuple[torch.Tensor, ...] | None = None

    def value(self) -> float:
        """The loss, at a third of a gradient's cost."""
        self.evaluations += 1 / 3
        with torch.no_grad():
            return float(self._call())

    def gradient(self, *, keep_graph: bool = False) -> tuple[float, dict[str, torch.Tensor]]:
        """The loss and its gradient; parameters that it does not depend on are left out.

        Args:
            keep_graph: Keep what exact Hessian products need, until :meth:`release`.

        Raises:
            SettingError: If the loss is no scalar, or does not depend on any of the parameters.
        """
        self.evaluations += 1
        with sdpa_kernel(SDPBackend.MATH) if keep_graph else ExitStack():  # fused attention has no second derivative
            loss = self._call()
            grads = torch.autograd.grad(
                loss, list(self.parameters.values()), create_graph=keep_graph, allow_unused=True
            )
        if all(g is None for g in grads):
            raise SettingError(
                "a probed loss must depend on the parameters that are monitored; it does on none. "
                "Compute it from the model that is passed in."
            )
        if keep_graph:
            self._graph = grads
        named = zip(self.parameters, grads, strict=True)
        return float(loss.detach()), {name: g.detach() for name, g in named if g is not None}

    def hessian_product(
        self, vector: Vector, *, method: Method = "exact", step: float | None = None
    ) -> dict[str, torch.Tensor]:
        """``H x`` [loss per parameter, times the unit of x].

        Args:
            vector: x by name; a missing name stands for zeros.
            method: "exact" differentiates twice (about two gradient evaluations, and memory for the graph);
                "difference" is ``(g(theta + e x) - g(theta - e x)) / 2e``, two gradient evaluations, and works
                where there is no second derivative: fused attention, compiled models, sharded parameters.
            step: Length ``e |x|`` of the difference [parameter]; by default ``0.03 eps^(1/3)`` times the
                parameters' norm, eps the rounding of their dtype.

        Raises:
            SettingError: If the method is unknown, or differences are asked for in half precision.
            RuntimeError: From torch, where a second derivative does not exist.
        """
        if method not in get_args(Method):
            raise SettingError(f'method must be "exact" or "difference"; got {method!r}. Use "exact" where it works.')
        return self._exact(vector) if method == "exact" else self._difference(vector, step)

    def release(self) -> None:
        """Let go of the graph that exact products keep."""
        self._graph = None

    def _exact(self, vector: Vector) -> dict[str, torch.Tensor]:
        if self._graph is None:
            self.gradient(keep_graph=True)
        assert self._graph is not None
        pairs = [
            (g, vector[name].to(g.dtype))
            for (name, g) in zip(self.parameters, self._graph, strict=True)
            if g is not None and name in vector and g.requires_grad
        ]
        if not pairs:  # a loss that is linear in the parameters
            return {}
        self.evaluations += 2
        outputs, weights = zip(*pairs)
        products = torch.autograd.grad(
            outputs, list(self.parameters.values()), weights, retain_graph=True, allow_unused=True
        )
        return {name: p for name, p in zip(self.parameters, products, strict=True) if p is not None}

    def _difference(self, vector: Vector, step: float | None) -> dict[str, torch.Tensor]:
        coarse = {str(p.dtype) for p in self.parameters.values() if p.element_size() < 4}
        if coarse:
            raise SettingError(
                f"a central difference needs parameters in float32 or float64; got {', '.join(sorted(coarse))}. "
                'Use curvature="exact", or probe a float32 copy.'
            )
        norm = _norm(vector)
        if norm == 0.0:
            return {name: torch.zeros_like(p) for name, p in self.parameters.items()}
        if step is None:
            eps = max(torch.finfo(p.dtype).eps for p in self.parameters.values())
            step = _SCALE * eps ** (1 / 3) * _norm({name: p.detach() for name, p in self.parameters.items()})
        factor = step / norm
        ends = []
        for sign in (1.0, -1.0):
            with self._displaced(vector, sign * factor):
                ends.append(self.gradient()[1])
        return {name: (ends[0][name] - ends[1][name]) / (2 * factor) for name in ends[0] if name in ends[1]}

    @contextmanager
    def _displaced(self, vector: Vector, factor: float) -> Iterator[None]:
        """The parameters stand at ``theta + factor x`` inside; their own memory is not written."""
        originals = {name: p.data for name, p in self.parameters.items()}
        try:
            for name, parameter in self.parameters.items():
                if name in vector:
                    direction = vector[name].to(device=parameter.device, dtype=parameter.dtype)
                    parameter.data = torch.add(originals[name], direction, alpha=factor)
            yield
        finally:
            for name, parameter in self.parameters.items():
                parameter.data = originals[name]

    def _reseed(self) -> None:
        # not torch.manual_seed, which would reach accelerators that are none of this model's
        torch.default_generator.manual_seed(self._seed)
        for device in {p.device for p in self.parameters.values() if p.device.type == "cuda"}:
            torch.cuda.default_generators[device.index].manual_seed(self._seed)

    def _call(self) -> torch.Tensor:
        torch.clear_autocast_cache()  # under autocast, copies of displaced parameters would be kept
        self._reseed()
        loss = self._loss(self.model)
        if not isinstance(loss, torch.Tensor) or loss.numel() != 1:
            given = tuple(loss.shape) if isinstance(loss, torch.Tensor) else type(loss).__name__
            raise SettingError(f"a probed loss must be a scalar tensor; got {given}. Return the mean over the batch.")
        return loss.reshape(())


def _norm(vector: Vector) -> float:
    return float(torch.stack([v.double().square().sum().cpu() for v in vector.values()]).sum().sqrt())
