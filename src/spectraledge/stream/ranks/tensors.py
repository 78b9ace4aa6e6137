"""Parameters of sharded models as the local tensors that this rank holds: DTensors, and pieces of FSDP1's flat ones.

Everything is read in place and without a collective.
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from ...errors import SettingError
from ..labels import canonical_name
from ..layout import Layout
from .boxes import Placement, local_layout
from .ownership import Held

_SAMPLE = 1024  # entries of a tensor that its checksum looks at


def is_dtensor(tensor: object) -> bool:
    """Whether a tensor is a DTensor; does not load what defines them."""
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(tensor, module.DTensor)


@dataclass(frozen=True, eq=False)
class FlatPiece:
    """One parameter's run of entries in this rank's shard of an FSDP1 flat parameter.

    Attributes:
        flat: The flat parameter, which the optimizer trains unless ``use_orig_params``.
        original: The parameter itself with ``use_orig_params``, else None.
        shape: Of the whole parameter.
        start: First entry in the shard.
        length: Entries in the shard; 0 where none are.
        first: Index of the first entry in the flattened parameter.
        ranks: Global ranks of the shard group, one if the parameter is not sharded.
        order: Place among ``model.modules()`` of the module that the parameter belongs to.
    """

    flat: torch.nn.Parameter
    original: torch.nn.Parameter | None
    shape: torch.Size
    start: int
    length: int
    first: int
    ranks: tuple[int, ...]
    order: int

    @property
    def trained(self) -> torch.nn.Parameter:
        """What the optimizer knows."""
        return self.flat if self.original is None else self.original

    @property
    def dtype(self) -> torch.dtype:
        """Of the shard."""
        return self._shard().dtype

    @property
    def device(self) -> torch.device:
        """Of the shard."""
        return self._shard().device

    def numel(self) -> int:
        """Entries of the whole parameter."""
        return self.shape.numel()

    def is_complex(self) -> bool:
        """Whether it is complex."""
        return self.dtype.is_complex

    def _shard(self) -> torch.Tensor:
        # the shard, also while FSDP shows the gathered parameter; there is none before the first forward
        return getattr(self.flat, "_local_shard", self.flat.data) if len(self.ranks) > 1 else self.flat.data

    def read(self) -> torch.Tensor:
        """View of the entries."""
        return self._shard().detach().view(-1)[self.start : self.start + self.length]


Entry = torch.Tensor | FlatPiece
"""A parameter as the model has it."""


def local(entry: Entry) -> torch.Tensor:
    """The entries that this rank holds, as a plain tensor; a plain parameter is given back as it is."""
    if isinstance(entry, FlatPiece):
        return entry.read()
    if not is_dtensor(entry):
        return entry
    with torch.no_grad():  # with autograd on, to_local would build a graph
        piece: Any = entry.to_local()  # type: ignore[attr-defined]
    if hasattr(piece, "wait"):  # a collective of training's is still under way
        piece = piece.wait()
    return piece.detach()


def real(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor's values, detached; complex ones as pairs of real numbers."""
    tensor = tensor.detach()
    return torch.view_as_real(tensor) if tensor.is_complex() else tensor


def describe(name: str, entry: Entry, group: int | None = None, *, compare: bool = True) -> Held:
    """What this rank holds of a parameter.

    Args:
        name: Canonical.
        entry: The parameter.
        group: Index of the parameter group that trains it.
        compare: Whether to look at values, so that replicas can be compared.

    Raises:
        SettingError: If a placement is of a kind that is not known.
    """
    values = real(local(entry))
    checksum, constant = _sample(values) if compare else (0, False)
    common: dict[str, Any] = {
        "name": name,
        "local_shape": tuple(values.shape),
        "dtype": str(entry.dtype).removeprefix("torch."),
        "checksum": checksum,
        "constant": constant,
        "group": group,
    }
    pair = (2,) if entry.dtype.is_complex else ()
    shape = (*entry.shape, *pair)
    if isinstance(entry, FlatPiece):
        n = torch.Size(shape).numel()
        return Held(
            **common,
            shape=shape,
            kind="flat",
            ranks=entry.ranks,
            mesh_shape=(len(entry.ranks),),
            placements=(Placement("shard"),),
            coordinate=(),
            layout=Layout((n,), (entry.first,), (entry.length,)),
        )
    if not is_dtensor(entry):
        return Held(**common, shape=shape, layout=Layout.whole(shape))
    mesh: Any = entry.device_mesh  # type: ignore[attr-defined]
    placements = tuple(_placement(name, p) for p in entry.placements)  # type: ignore[attr-defined]
    coordinate = mesh.get_coordinate()
    layout = None
    if coordinate is not None:
        layout = local_layout(shape, tuple(mesh.shape), tuple(coordinate), placements, tuple(values.shape))
    return Held(
        **common,
        shape=shape,
        kind="dtensor",
        ranks=tuple(mesh.mesh.flatten().tolist()),
        mesh_shape=tuple(mesh.shape),
        placements=placements,
        coordinate=None if coordinate is None else tuple(coordinate),
        layout=layout,
    )


def _placement(name: str, placement: Any) -> Placement:
    kind = type(placement).__name__
    if kind == "_StridedShard":
        return Placement("strided", placement.dim, placement.split_factor)
    if placement.is_shard():
        return Placement("shard", placement.dim)
    if placement.is_replicate():
        return Placement("replicate")
    if placement.is_partial():
        return Placement("partial")
    raise SettingError(f"placements must be Shard or Replicate; {name} has {placement}. Leave it out with params=.")


def _sample(values: torch.Tensor) -> tuple[int, bool]:
    """A checksum of evenly spaced entries, and whether they are all the same."""
    if values.numel() == 0:
        return 0, True
    flat = values.reshape(-1)
    sample = flat[:: max(1, flat.numel() // _SAMPLE)].contiguous().cpu()
    constant = bool((sample == sample[0]).all())
    return zlib.crc32(sample.view(torch.uint8).numpy().tobytes()), constant


def gathered_by_fsdp2(model: torch.nn.Module) -> dict[int, torch.nn.Parameter]:
    """Sharded parameters by the ``id`` of the gathered ones that FSDP2 shows between forward and backward."""
    fsdp = sys.modules.get("torch.distributed.fsdp")
    found: dict[int, torch.nn.Parameter] = {}
    if fsdp is None or not hasattr(fsdp, "FSDPModule"):
        return found
    for module in model.modules():
        if not isinstance(module, fsdp.FSDPModule):
            continue
        state: Any = module._get_fsdp_state()
        groups = getattr(state, "_fsdp_param_groups", None) or [state._fsdp_param_group]
        for group in groups:
            for parameter in group.fsdp_params if group is not None else ():
                gathered = getattr(parameter, "_unsharded_param", None)
                if gathered is not None:
                    found[id(gathered)] = parameter.sharded_param
    return found


def flat_pieces(model: torch.nn.Module) -> dict[int, dict[str, FlatPiece]]:
    """Pieces by name of everything that FSDP1 has flattened, by the ``id`` of the parameter that stands for them.

    That is the flat parameter, or each original one with ``use_orig_params``.
    """
    fsdp = sys.modules.get("torch.distributed.fsdp")
    found: dict[int, dict[str, FlatPiece]] = {}
    if fsdp is None or not hasattr(fsdp, "FullyShardedDataParallel"):
        return found
    order = {id(module): i for i, module in enumerate(model.modules())}
    for path, module in model.named_modules():
        handle: Any = getattr(module, "_handle", None) if isinstance(module, fsdp.FullyShardedDataParallel) else None
        if handle is None:
            continue
        flat = handle.flat_param
        ranks: tuple[int, ...] = (torch.distributed.get_rank(),)
        if handle.uses_sharded_strategy:
            ranks = tuple(torch.distributed.get_process_group_ranks(handle.process_group))
        for i, piece in enumerate(_pieces(flat, ranks, order)):
            name = canonical_name(f"{path}.{flat._fqns[i]}".lstrip("."))
            found.setdefault(id(piece.trained), {})[name] = piece
    return found


def _pieces(flat: Any, ranks: tuple[int, ...], order: Mapping[int, int]) -> Iterator[FlatPiece]:
    originals = flat._params if flat._params is not None else [None] * len(flat._fqns)
    of = (originals, flat._param_infos, flat._shapes, flat._shard_param_infos)
    for original, info, shape, shard in zip(*of, strict=True):
        yield FlatPiece(
            flat,
            original,
            torch.Size(shape),
            shard.offset_in_shard if shard.in_shard else 0,
            shard.numel_in_shard if shard.in_shard else 0,
            shard.intra_param_start_idx if shard.in_shard else 0,
            ranks,
            order.get(id(info.module), 0),
        )


def refuse_deepspeed(model: torch.nn.Module, parameters: Mapping[str, torch.Tensor]) -> None:
    """Raise where DeepSpeed keeps the parameters.

    Raises:
        SettingError: If it does.
    """
    name = next((name for name, p in parameters.items() if hasattr(p, "ds_id") or hasattr(p, "ds_tensor")), None)
    engine = any(cls.__module__.startswith("deepspeed") for cls in type(model).__mro__)
    if engine or name is not None:
        raise SettingError(
            "DeepSpeed keeps its parameters in partitions of its own, which cannot be read in place; "
            f"{name or type(model).__name__} is one of its. Save checkpoints and use spectraledge.analyze on "
            "them, or train with FSDP2 (fully_shard)."
        )
