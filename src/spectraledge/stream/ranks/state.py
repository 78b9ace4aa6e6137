"""The ring as tensors that torch.distributed.checkpoint saves from any ranks and loads onto any others."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch

from ...errors import SettingError
from ..sketch import SketchRing
from .parts import offset_of, size_of

if TYPE_CHECKING:
    from ..monitor import Monitor
    from ..store import AnyRing
    from .share import Share


class Pieces(torch.Tensor):
    """Boxes of one tensor that lies on several ranks; a name and a place for each, no memory of its own.

    Implements what torch.distributed.checkpoint asks of a sharded tensor. DTensors would do only where the ring is
    placed like its parameter; here replicas share the work, and a rank may hold several boxes of a parameter (heads).
    """

    parts: dict[tuple[int, ...], torch.Tensor]

    @staticmethod
    def __new__(cls, shape: tuple[int, ...], parts: Mapping[tuple[int, ...], torch.Tensor]) -> Pieces:
        one = next(iter(parts.values()))
        self = torch.Tensor._make_wrapper_subclass(cls, torch.Size(shape), dtype=one.dtype, device=one.device)
        self.parts = dict(parts)
        return self

    def __init__(self, shape: tuple[int, ...], parts: Mapping[tuple[int, ...], torch.Tensor]) -> None:
        super().__init__()

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        return f"Pieces({tuple(self.shape)}, {[(o, tuple(p.shape)) for o, p in self.parts.items()]})"

    def each(self, function: Callable[[torch.Tensor], torch.Tensor]) -> Pieces:
        """The same boxes with other contents."""
        return Pieces(tuple(self.shape), {offset: function(part) for offset, part in self.parts.items()})

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        elementwise = (torch.ops.aten.detach.default, torch.ops.aten.clone.default, torch.ops.aten._to_copy.default)
        if func in elementwise:
            return args[0].each(lambda part: func(part, *args[1:], **(kwargs or {})))
        raise NotImplementedError(f"{func} is not defined on pieces of a ring; copy its parts.")

    def _chunks(self) -> list[Any]:
        from torch.distributed.checkpoint.metadata import ChunkStorageMetadata

        return [
            ChunkStorageMetadata(offsets=torch.Size(offset), sizes=part.size()) for offset, part in self.parts.items()
        ]

    def __create_write_items__(self, fqn: str, object: Any) -> list[Any]:
        from torch.distributed.checkpoint.metadata import MetadataIndex, TensorProperties
        from torch.distributed.checkpoint.planner import TensorWriteData, WriteItem, WriteItemType

        properties = TensorProperties(dtype=self.dtype)
        return [
            WriteItem(
                index=MetadataIndex(fqn, chunk.offsets, i),
                type=WriteItemType.SHARD,
                tensor_data=TensorWriteData(chunk=chunk, properties=properties, size=self.size()),
            )
            for i, chunk in enumerate(self._chunks())
        ]

    def __create_chunk_list__(self) -> list[Any]:
        return self._chunks()

    def __get_tensor_shard__(self, index: Any) -> torch.Tensor:
        return self.parts[tuple(index.offset)]


def ring_pieces(ring: AnyRing, share: Share) -> dict[str, torch.Tensor]:
    """The ring's buffers by parameter: views in the shape of the parameters, updates with the ring's dimension first.

    A ring without buffers of that kind (a sketch) is the same on all ranks and is given as it is.

    Raises:
        SettingError: If a piece is no box of its parameter.
    """
    kinds = ("updates", "snapshot", "decay")
    expected = {
        f"ring.{k}.{kind}"
        for k, shard in enumerate(getattr(ring, "shards", ()))
        for kind in kinds
        if getattr(shard, kind, None) is not None
    }
    state = ring.state_tensors()
    if isinstance(ring, SketchRing):
        return dict(state)
    if set(state) != expected:
        raise SettingError(
            f"a ring kept in another form cannot be saved by parameters; this one has {', '.join(state)}. "
            'Use store="device" or "host" and full precision, or go on without the ring: monitor.state_dict().'
        )
    parts: dict[str, dict[tuple[int, ...], torch.Tensor]] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    for shard in ring.shards:
        for atom, start in zip(shard.atoms, shard.starts, strict=True):
            layout = share.layouts[atom.name]
            if layout is None:
                raise SettingError(
                    f"pieces must be boxes to be saved; those of {atom.name} are strided over ranks. "
                    "Go on without the ring: monitor.state_dict() marks a seam."
                )
            flat = "" if layout.global_shape == share.shapes[atom.name] else ".flat"
            offset, size = offset_of(atom, layout), size_of(atom)
            stop = start + atom.n_parameters
            for kind in kinds:
                buffer = getattr(shard, kind, None)
                if buffer is None:
                    continue
                lead = buffer.shape[:-1]
                key = f"{atom.name}{flat}.{kind}"
                shapes[key] = (*lead, *layout.global_shape)
                view = buffer[..., start:stop].unflatten(-1, size) if size else buffer[..., start]
                parts.setdefault(key, {})[(*(0 for _ in lead), *offset)] = view
    return {key: Pieces(shapes[key], boxes) for key, boxes in parts.items()}


def load_pieces(ring: AnyRing, share: Share, state: Mapping[str, torch.Tensor]) -> None:
    """Copy pieces into the ring; nothing moves where they are views of it, as after a load in place.

    Raises:
        SettingError: If they are not this ring's.
    """
    mine = ring_pieces(ring, share)
    if {k: tuple(t.shape) for k, t in mine.items()} != {k: tuple(t.shape) for k, t in state.items()}:
        raise SettingError(
            "the saved ring must be one of the same parameters, lags and options; it has "
            f"{', '.join(sorted(set(state) ^ set(mine))[:4]) or 'other shapes'}. Attach as when it was saved."
        )
    for key, tensor in mine.items():
        other = state[key]
        if isinstance(tensor, Pieces) and isinstance(other, Pieces):
            for offset, part in tensor.parts.items():
                if offset not in other.parts:
                    raise SettingError(f"the saved ring lies elsewhere; {key} has no piece at {offset}. Use DCP.")
                if part.data_ptr() != other.parts[offset].data_ptr():
                    part.copy_(other.parts[offset])
        elif tensor is not other:
            tensor.copy_(other)


class Checkpoint:
    """A monitor with its ring as torch.distributed.checkpoint takes it; see ``Monitor.checkpoint``."""

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor

    def state_dict(self) -> dict[str, Any]:
        """Numbers as one JSON string, and views of the ring: nothing is copied."""
        return {"monitor": json.dumps(self._monitor.state_dict()), "ring": self._monitor.ring_pieces()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what was loaded into ``state_dict()``."""
        self._monitor.load_state_dict({**json.loads(state["monitor"]), "ring": state["ring"]})
