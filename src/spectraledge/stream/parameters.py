"""Which tensors of a model make up the parameter vector, and whether that has changed.

Owns de-duplication of tied weights, the refusals (not materialised, sparse) and the structural fingerprint; knows
nothing about blocks or updates.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch

from ..errors import SettingError
from .labels import canonical_name, layer_of
from .ranks.tensors import (
    Entry,
    FlatPiece,
    flat_pieces,
    gathered_by_fsdp2,
    is_dtensor,
    local,
    real,
    refuse_deepspeed,
)

ParameterFilter = str | Callable[[str, torch.Tensor], bool]
__all__ = ["ParameterFilter", "Structure", "head_counts", "real", "trainable"]
_HEAD_COUNTS = ("num_heads", "n_head", "n_heads", "num_attention_heads", "nhead")


def trainable(model: torch.nn.Module, params: ParameterFilter | None = None) -> dict[str, Entry]:
    """Every trainable tensor once, in model order, by its canonical name.

    Tied weights count once, buffers and frozen parameters never, empty tensors never. Complex tensors are
    seen as real ones with a last dimension of 2. Parameters of sharded models are there under their own names:
    DTensors as they are, parts of FSDP1's flat parameters as ``FlatPiece``.

    Args:
        model: The module.
        params: A regular expression searched in names, or a predicate of a name and a tensor (for FSDP1 an empty one
            of the parameter's shape, on the meta device); None takes all.

    Raises:
        SettingError: If nothing is left, or a tensor is sparse, quantised or not materialised.
    """
    found = _entries(model, params)
    if not found:
        raise SettingError(_nothing_left(model, params))
    return found


def _entries(model: torch.nn.Module, params: ParameterFilter | None) -> dict[str, Entry]:
    keep = predicate(params)
    refuse_deepspeed(model, dict(model.named_parameters()))
    found: dict[str, Entry] = {}
    seen: set[tuple[int, torch.Size, tuple[int, ...]]] = set()
    for name, entry in _named(model):
        if isinstance(entry, FlatPiece):
            wanted = entry.trained.requires_grad and keep(name, torch.empty(entry.shape, device="meta"))
        else:
            wanted = entry.requires_grad and keep(name, entry)
        if not wanted:
            continue
        if isinstance(entry, torch.Tensor):
            _refuse_unusual(name, entry)
            if entry.numel() == 0:
                continue
            if not is_dtensor(entry):  # ranks could differ on it, where only some of them hold entries
                key = (entry.data_ptr(), entry.shape, entry.stride())
                if key in seen:  # two Parameter objects over one storage
                    continue
                seen.add(key)
        if name in found:
            raise SettingError(f"parameter names must be unique; {name!r} occurs twice. Rename one module.")
        found[name] = entry
    return found


def _named(model: torch.nn.Module) -> Iterator[tuple[str, Entry]]:
    gathered, flat = gathered_by_fsdp2(model), flat_pieces(model)
    if not flat:
        for raw_name, parameter in model.named_parameters(remove_duplicate=True):
            yield canonical_name(raw_name), gathered.get(id(parameter), parameter)
        return
    # a flat parameter stands before everything it was made of: back to the order of the modules
    order = {path: i for i, (path, _) in enumerate(model.named_modules())}
    found: list[tuple[int, str, Entry]] = []
    for raw_name, parameter in model.named_parameters(remove_duplicate=True):
        if id(parameter) in flat:
            found += [(piece.order, name, piece) for name, piece in flat[id(parameter)].items()]
        else:
            place = order.get(raw_name.rpartition(".")[0], 0)
            found.append((place, canonical_name(raw_name), gathered.get(id(parameter), parameter)))
    yield from ((name, entry) for _, name, entry in sorted(found, key=lambda item: item[0]))


def fingerprint(tensors: Mapping[str, Entry]) -> tuple[tuple[object, ...], ...]:
    """What must stay the same for two snapshots to be subtracted: names, identities, shapes, dtypes, devices."""
    return tuple((name, *_identity(t), t.shape, t.dtype, t.device) for name, t in tensors.items())


def _identity(entry: Entry) -> tuple[int, ...]:
    if isinstance(entry, FlatPiece):
        return (id(entry.flat), entry.start, entry.length)
    return (id(entry),)


class Structure:
    """Tells cheaply, a few microseconds a module, whether ``trainable`` would give the same tensors as before.

    Args:
        model: The module.
        params: As for ``trainable``.
        may_be_empty: Whether this may be one rank of several that holds no trainable parameter.

    Attributes:
        tensors: Parameters by name, as ``trainable`` gives them.
    """

    def __init__(self, model: torch.nn.Module, params: ParameterFilter | None, *, may_be_empty: bool = False) -> None:
        self._model, self._params = model, params
        self.tensors = _entries(model, params) if may_be_empty else trainable(model, params)
        self._mark = fingerprint(self.tensors)
        self._look()

    def _look(self) -> None:
        self._modules = [(m, self._contents(m)) for m in self._model.modules()]

    @staticmethod
    def _contents(module: torch.nn.Module) -> tuple[int, ...]:
        parameters = [2 * id(p) + p.requires_grad for p in module._parameters.values() if p is not None]
        return (*parameters, -1, *map(id, module._modules.values()))

    def unchanged(self) -> bool:
        """Whether modules, parameters, shapes, dtypes and devices are those seen at construction."""
        if fingerprint(self.tensors) != self._mark:
            return False
        if all(self._contents(module) == contents for module, contents in self._modules):
            return True
        if not any(map(_sharded, self.tensors.values())):
            return False
        # FSDP swaps gathered parameters in and out: look again at what stands behind them
        if fingerprint(_entries(self._model, self._params)) != self._mark:
            return False
        self._look()
        return True

    def locals(self) -> dict[str, torch.Tensor]:
        """What this process holds of every parameter, as plain tensors."""
        return {name: local(entry) for name, entry in self.tensors.items()}

    @property
    def sharded(self) -> str | None:
        """Name of a parameter that is not a plain tensor; None where all are."""
        return next((name for name, entry in self.tensors.items() if _sharded(entry)), None)

    def names_of(self) -> dict[int, list[str]]:
        """Names by the ``id`` of the parameter that the optimizer knows; several for a flat parameter."""
        names: dict[int, list[str]] = {}
        for name, entry in self.tensors.items():
            names.setdefault(id(entry.trained if isinstance(entry, FlatPiece) else entry), []).append(name)
        return names


def _sharded(entry: Entry) -> bool:
    return isinstance(entry, FlatPiece) or is_dtensor(entry)


def describe_change(before: Mapping[str, Entry], after: Mapping[str, Entry]) -> str:
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
    values: Any = local(parameter) if is_dtensor(parameter) else parameter
    if values.is_meta or isinstance(parameter, torch.nn.parameter.UninitializedParameter):
        raise SettingError(
            f"parameters must be materialised before attaching; {name} holds no data yet. "
            "Run the lazy initialisation or load weights first."
        )
    if values.layout != torch.strided or values.is_quantized:
        raise SettingError(
            f"parameters must be dense; {name} is {values.layout}. Leave it out: params=lambda name, p: ..."
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
