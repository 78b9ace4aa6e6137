"""Which tensors of a model make up the parameter vector, and whether that has changed.

Owns de-duplication of tied weights, the refusals (sharded, not materialised, sparse) and the structural
fingerprint; knows nothing about blocks or updates.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable

import torch

from ..errors import SettingError
from .labels import canonical_name, layer_of

ParameterFilter = str | Callable[[str, torch.Tensor], bool]
_HEAD_COUNTS = ("num_heads", "n_head", "n_heads", "num_attention_heads", "nhead")


def trainable(model: torch.nn.Module, params: ParameterFilter | None = None) -> dict[str, torch.Tensor]:
    """Every trainable tensor once, in model order, by its canonical name.

    Tied weights count once, buffers and frozen parameters never, empty tensors never. Complex tensors are
    seen as real ones with a last dimension of 2.

    Args:
        model: The module.
        params: A regular expression searched in names, or a predicate of a name and a tensor; None takes all.

    Raises:
        SettingError: If nothing is left, or a tensor is sharded, sparse, quantised or not materialised.
    """
    keep = predicate(params)
    found: dict[str, torch.Tensor] = {}
    seen: set[tuple[int, torch.Size, tuple[int, ...]]] = set()
    for raw_name, parameter in model.named_parameters(remove_duplicate=True):
        name = canonical_name(raw_name)
        if not parameter.requires_grad or not keep(name, parameter):
            continue
        _refuse_unusual(name, parameter)
        if parameter.numel() == 0:
            continue
        key = (parameter.data_ptr(), parameter.shape, parameter.stride())
        if key in seen:  # two Parameter objects over one storage
            continue
        seen.add(key)
        if name in found:
            raise SettingError(f"parameter names must be unique; {name!r} occurs twice. Rename one module.")
        found[name] = parameter
    if not found:
        raise SettingError(_nothing_left(model, params))
    return found


def real(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor's values, detached; complex ones as pairs of real numbers."""
    tensor = tensor.detach()
    return torch.view_as_real(tensor) if tensor.is_complex() else tensor


def fingerprint(tensors: dict[str, torch.Tensor]) -> tuple[tuple[object, ...], ...]:
    """What must stay the same for two snapshots to be subtracted: names, identities, shapes, dtypes, devices."""
    return tuple((name, id(t), t.shape, t.dtype, t.device) for name, t in tensors.items())


class Structure:
    """Tells cheaply, a few microseconds a module, whether ``trainable`` would give the same tensors as before.

    Args:
        model: The module.
        params: As for ``trainable``.
    """

    def __init__(self, model: torch.nn.Module, params: ParameterFilter | None) -> None:
        self.tensors = trainable(model, params)
        self._mark = fingerprint(self.tensors)
        self._modules = [(m, self._contents(m)) for m in model.modules()]

    @staticmethod
    def _contents(module: torch.nn.Module) -> tuple[int, ...]:
        parameters = [2 * id(p) + p.requires_grad for p in module._parameters.values() if p is not None]
        return (*parameters, -1, *map(id, module._modules.values()))

    def unchanged(self) -> bool:
        """Whether modules, parameters, shapes, dtypes and devices are those seen at construction."""
        return fingerprint(self.tensors) == self._mark and all(
            self._contents(module) == contents for module, contents in self._modules
        )


def describe_change(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> str:
    """One sentence on what differs between two sets of parameters."""
    added = [name for name in after if name not in before]
    gone = [name for name in before if name not in after]
    resized = [
        f"{name} {tuple(before[name].shape)} -> {tuple(after[name].shape)}"
        for name in after
        if name in before and before[name].shape != after[name].shape
    ]
    parts = [
        f"{what}: {', '.join(names[:4])}{' ...' if len(names) > 4 else ''}"
        for what, names in (("now trained", added), ("no longer trained", gone), ("resized", resized))
        if names
    ]
    return "; ".join(parts) or "parameters replaced, moved or cast"


def head_counts(model: torch.nn.Module) -> dict[str, int]:
    """Number of attention heads by layer, where a module of the layer says so."""
    counts: dict[str, int] = {}
    for raw_name, module in model.named_modules():
        for attribute in _HEAD_COUNTS:
            value = getattr(module, attribute, None)
            if isinstance(value, int) and value > 0:
                # a pseudo-child, so that a module that is itself numbered or at the root gets its own path
                counts.setdefault(layer_of(canonical_name(f"{raw_name}.weight".lstrip("."))), value)
                break
    return counts


def refuse_several_ranks() -> None:
    """Raise where this process is one of several: sums over ranks are not supported yet.

    Raises:
        SettingError: If a process group of more than one rank is initialised.
    """
    distributed = torch.distributed
    if distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1:
        raise SettingError(
            f"this version monitors one process; torch.distributed is initialised with "
            f"{distributed.get_world_size()} ranks. Save checkpoints and use spectraledge.analyze on them."
        )


def predicate(params: ParameterFilter | None) -> Callable[[str, torch.Tensor], bool]:
    """The filter as a function of a name and a tensor.

    Raises:
        SettingError: If it is neither a regular expression nor callable.
    """
    if params is None:
        return lambda name, tensor: True
    if isinstance(params, str):
        try:
            pattern = re.compile(params)
        except re.error as error:
            raise SettingError(f"params must be a regular expression; got {params!r}: {error}.") from error
        return lambda name, tensor: pattern.search(name) is not None
    if callable(params):
        return params
    raise SettingError(f"params must be a regular expression or a predicate; got {type(params).__name__}.")


def _refuse_unusual(name: str, parameter: torch.Tensor) -> None:
    sharded = sys.modules.get("torch.distributed.tensor")
    if sharded is not None and isinstance(parameter, sharded.DTensor):
        raise SettingError(
            f"sharded parameters are not supported yet; {name} is a DTensor. "
            "Save checkpoints and use spectraledge.analyze on them."
        )
    if parameter.is_meta or isinstance(parameter, torch.nn.parameter.UninitializedParameter):
        raise SettingError(
            f"parameters must be materialised before attaching; {name} holds no data yet. "
            "Run the lazy initialisation or load weights first."
        )
    if parameter.layout != torch.strided or parameter.is_quantized:
        raise SettingError(
            f"parameters must be dense; {name} is {parameter.layout}. Leave it out: params=lambda name, p: ..."
        )


def _nothing_left(model: torch.nn.Module, params: ParameterFilter | None) -> str:
    n_all = sum(1 for _ in model.parameters())
    n_trainable = sum(1 for p in model.parameters() if p.requires_grad)
    if n_all == 0:
        given = f"{type(model).__name__} has no parameters"
    elif n_trainable == 0:
        given = f"all {n_all} parameters of {type(model).__name__} are frozen (requires_grad=False)"
    else:
        given = f"params={params!r} leaves none of the {n_trainable} trainable parameters"
    return f"the model must have at least one trainable parameter; {given}. Pass the module that is being trained."
