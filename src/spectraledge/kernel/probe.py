"""A model's outputs on a fixed batch as a function of its parameters alone.

Owns the promise that looking changes nothing: the model's parameters, gradients, buffers and training flags,
and torch's random generators, are as before after every call.
"""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.attention import SDPBackend, sdpa_kernel

from spectraledge.curvature.undisturbed import undisturbed
from spectraledge.errors import DataError, SettingError

Outputs = Callable[[torch.nn.Module], torch.Tensor]
Parameters = dict[str, torch.Tensor]
ParameterChoice = str | Callable[[str, torch.Tensor], bool] | None


class _Call(torch.nn.Module):
    """A function of a model as a module, so that ``torch.func.functional_call`` can swap the parameters."""

    def __init__(self, model: torch.nn.Module, function: Callable[[torch.nn.Module], Any]) -> None:
        super().__init__()
        self.model = model
        self._function = (function,)  # in a tuple: a function that is itself a module must not be registered

    def forward(self) -> Any:
        return self._function[0](self.model)


class OutputProbe:
    """f(theta): the outputs of ``model`` on a batch that ``outputs`` holds fixed, flattened to N numbers.

    Args:
        model: The module. It is evaluated with other tensors in the place of its parameters and is never
            written to.
        outputs: Function of the model that returns a real tensor of any shape, for instance
            ``lambda model: model(inputs)``. OutputProbe outputs are usually (n, C): n inputs, C outputs each.
        params: Which trainable parameters are theta: a regular expression searched in their names, or a
            predicate of name and tensor; None takes all. Tied tensors count once.
        training: Evaluate in training mode. By default dropout is off and normalisation uses its running
            statistics, so that f is a function.
        seed: Of torch's generators at every evaluation: dropout in training mode draws the same mask each time.

    Attributes:
        parameters: Detached theta by name, in model order; shares memory with the model.
        n_parameters: P.

    Raises:
        SettingError: If no parameter is left, or one is complex or not a floating-point tensor.

    >>> layer = torch.nn.Linear(2, 1, bias=False).double()
    >>> OutputProbe(layer, lambda model: model(torch.eye(2, dtype=torch.float64))).shape
    (2, 1)
    """

    def __init__(
        self,
        model: torch.nn.Module,
        outputs: Outputs,
        *,
        params: ParameterChoice = None,
        training: bool = False,
        seed: int = 0,
    ) -> None:
        self.model = model
        self.training = training
        self.seed = seed
        self.parameters = _chosen(model, params)
        self.n_parameters = sum(t.numel() for t in self.parameters.values())
        self._call = _Call(model, outputs)
        self._shape: tuple[int, ...] | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the outputs before flattening; evaluates the model once."""
        if self._shape is None:
            self.values()
        assert self._shape is not None
        return self._shape

    @property
    def n_outputs(self) -> int:
        """N, the number of probe outputs."""
        return math.prod(self.shape)

    def __call__(self, theta: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """f(theta), shape (N,); differentiable by ``torch.func``. To be called within :meth:`quiet`."""
        out = self.evaluate(self._call, theta)
        if not isinstance(out, torch.Tensor) or not out.is_floating_point():
            kind = out.dtype if isinstance(out, torch.Tensor) else type(out).__name__
            raise SettingError(
                f"outputs(model) must return one real tensor; got {kind}. Return logits or predictions."
            )
        self._shape = tuple(out.shape)
        return out.reshape(-1)

    def evaluate(self, call: torch.nn.Module, theta: Mapping[str, torch.Tensor]) -> Any:
        """``call()`` with theta in the place of the chosen parameters and copies in the place of buffers."""
        for generator in self._generators():
            generator.manual_seed(self.seed)
        tensors = {f"model.{name}": tensor.detach() for name, tensor in self.model.named_parameters()}
        # Copies made within the call: batch statistics updated in place must reach neither model nor next call.
        tensors.update({f"model.{name}": buffer.clone() for name, buffer in self.model.named_buffers()})
        tensors.update({f"model.{name}": tensor for name, tensor in theta.items()})
        return torch.func.functional_call(call, tensors, ())

    def call_with(self, function: Callable[[torch.nn.Module], Any], theta: Mapping[str, torch.Tensor]) -> Any:
        """``function(model)`` with theta in the place of the chosen parameters; no gradients."""
        with self.quiet(), torch.no_grad():
            return self.evaluate(_Call(self.model, function), theta)

    def values(self) -> NDArray[np.float64]:
        """f at the model's present parameters, (N,) float64.

        Raises:
            SettingError: If ``outputs`` does not return one real tensor.
        """
        with self.quiet(), torch.no_grad():
            return as_array(self(self.parameters))

    @contextlib.contextmanager
    def quiet(self) -> Iterator[None]:
        """Evaluation mode, unless training was asked for, and everything as before on leaving."""
        fused = torch.backends.mha.get_fastpath_enabled()
        with torch.inference_mode(False), undisturbed(self.model, train=self.training), sdpa_kernel(SDPBackend.MATH):
            # Fused attention, and the fused encoder layer of evaluation mode, have no second derivative.
            try:
                torch.backends.mha.set_fastpath_enabled(False)
                yield
            finally:
                torch.backends.mha.set_fastpath_enabled(fused)

    def _cuda(self) -> list[int]:
        return sorted({t.device.index for t in self.parameters.values() if t.device.type == "cuda"})

    def _generators(self) -> list[torch.Generator]:
        # Not torch.manual_seed, which would seed every accelerator, those not set back on leaving included.
        return [torch.default_generator, *(torch.cuda.default_generators[i] for i in self._cuda())]


def as_array(tensor: torch.Tensor) -> NDArray[np.float64]:
    """A detached float64 copy on the host."""
    # To the host first: not every accelerator has float64.
    return np.asarray(tensor.detach().cpu().to(torch.float64).numpy())


def check_like(probe: OutputProbe, tensors: Mapping[str, torch.Tensor], what: str) -> Parameters:
    """``tensors`` as theta's dtype and device, in theta's order.

    Raises:
        SettingError: If a name is missing or superfluous, or a shape differs.
    """
    theta = probe.parameters
    wrong = sorted(set(theta) ^ set(tensors))
    if wrong:
        raise SettingError(
            f"{what} must have one tensor for each of the probe's {len(theta)} parameters; "
            f"{wrong[0]!r} is in only one of the two. Use the same model and params for both."
        )
    for name, tensor in theta.items():
        if tensors[name].shape != tensor.shape:
            raise SettingError(
                f"{what} must have the parameters' shapes; {name!r} is {tuple(tensors[name].shape)} instead of "
                f"{tuple(tensor.shape)}. Take both from the same model."
            )
    return {name: tensors[name].detach().to(t) for name, t in theta.items()}


def require_finite(tensor: torch.Tensor, what: str) -> None:
    """Raise DataError unless every entry is finite."""
    if not torch.isfinite(tensor).all():
        raise DataError(f"{what} must be finite; got NaN or infinity. Use a snapshot before it diverged.")


def _chosen(model: torch.nn.Module, params: ParameterChoice) -> Parameters:
    found: Parameters = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad or parameter.numel() == 0:
            continue
        keep = re.search(params, name) if isinstance(params, str) else params is None or params(name, parameter)
        if not keep:
            continue
        if not parameter.is_floating_point():
            raise SettingError(
                f"a probe's parameters must be real floating-point tensors; {name!r} is {parameter.dtype}. "
                "Leave it out with params."
            )
        found[name] = parameter.detach()
    if not found:
        raise SettingError(
            f"at least one trainable parameter must be chosen; params={params!r} matches none of "
            f"{[name for name, _ in model.named_parameters()][:8]}. Pass None to take all."
        )
    return found
