"""The one place where checkpoints are opened and read, whatever their format.

No file outside the folder it belongs to, nothing but regular files, nothing that could run as code, and no second
attempt by other means when a file is refused. Every failure is a ``DataError`` with the path and the reason.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

import torch

from ..errors import DataError
from .dcp import read_dcp, read_shards
from .files import File, FileMark, Files
from .folders import BIN_INDEX, INDEX, SINGLE, TORCH_SUFFIXES, layout_of
from .header import MAX_HEADER_BYTES, BadFile, TensorInfo, load_json, read_header, short
from .leaves import Leaf
from .state import find_state
from .torch_file import read_torch
from .views import View

__all__ = ["BIN_INDEX", "INDEX", "SINGLE", "CheckpointReader", "Mark", "open_checkpoint"]

Mark = tuple[FileMark, ...]


def open_checkpoint(
    path: str | os.PathLike[str], root: str | os.PathLike[str] | None = None, state_key: str | None = None
) -> CheckpointReader:
    """Open a checkpoint for reading; see `CheckpointReader`.

    Raises:
        DataError: If it cannot be read, with the path and the reason.
    """
    return CheckpointReader(path, root, state_key)


class CheckpointReader:
    """One checkpoint: names, shapes and dtypes at once, tensors one at a time. A context manager.

    Opening reads headers alone, a few kilobytes of a file of any size.

    Args:
        path: A file of safetensors, or of ``torch.save`` (``.pt``, ``.pth``, ``.bin``, ``.ckpt``); or a folder of
            transformers (``model.safetensors``, ``pytorch_model.bin``, or an index and its shards), of
            ``torch.distributed.checkpoint``, or with a single file of weights.
        root: Folder that everything read must lie in once links are followed; None takes the checkpoint's own.
        state_key: Name of the model's table in a file that holds several, levels joined by dots.

    Attributes:
        path: As given.
        tensors: Every tensor by name.
        n_bytes: Size of its files of weights.
        mark: Device, inode, size and time of change of its files: equal marks, equal contents.

    Raises:
        DataError: If it cannot be read, with the path and the reason.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        root: str | os.PathLike[str] | None = None,
        state_key: str | None = None,
    ) -> None:
        self.path = Path(path)
        self._state_key = state_key
        self._kind = "torch" if self.path.suffix in TORCH_SUFFIXES else "safetensors"
        with self._explained():
            is_folder = self.path.is_dir()
            folder = self.path if is_folder else self.path.parent
            self._files = Files(Path(os.path.realpath(folder if root is None else root)))
            try:
                self._leaves = self._open_folder() if is_folder else self._open_file(self.path)
                self.tensors: dict[str, TensorInfo] = {name: leaf.info(name) for name, leaf in self._leaves.items()}
                self._check_leaves()
                self.mark: Mark = self._files.marks
                self.n_bytes = self._files.n_bytes
            except BaseException:
                self.close()
                raise

    def read(self, name: str, start: int = 0, stop: int | None = None) -> torch.Tensor:
        """A tensor, or its rows ``start:stop`` along the first dimension.

        Args:
            name: Of a tensor.
            start: First row.
            stop: Behind the last row, within the tensor; None for the whole of it.

        Raises:
            DataError: If the data cannot be read, or a file changed since it was opened.
        """
        with self._explained():
            try:
                tensor = self._leaves[name].read(start, stop)
            except BadFile as error:
                raise BadFile(f"tensor {short(name)} cannot be read ({error})") from error
            self._files.check()
        return tensor

    def close(self) -> None:
        """Let go of the files. Safe to call twice."""
        self._files.close()

    def __enter__(self) -> CheckpointReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open_folder(self) -> Mapping[str, Leaf]:
        layout = layout_of(self.path)
        if layout.kind == "dcp":
            self._kind = "distributed"
            return find_state(read_dcp(layout.paths[0], self._files), self._state_key)
        if layout.kind == "shards":
            return read_shards(layout.paths, self._files)
        if layout.kind == "index":
            return self._open_index(layout.paths[0])
        return self._open_file(layout.paths[0])

    def _open_file(self, path: Path) -> Mapping[str, Leaf]:
        try:
            file = self._files.get(path)
            if path.suffix in TORCH_SUFFIXES:
                self._kind = "torch"
                return find_state(read_torch(file), self._state_key)
            return self._safetensors(file)
        except BadFile as error:
            raise (
                error if path == self.path or path.name in str(error) else BadFile(f"{path.name}: {error}")
            ) from None

    def _safetensors(self, file: File) -> dict[str, Leaf]:
        with self._files.borrowed(file) as descriptor:
            tensors = read_header(descriptor, file.size)
        return {
            name: Leaf.at(View.packed(file, info.offset, info.dtype, info.shape), info.offset)
            for name, info in tensors.items()
        }

    def _open_index(self, index: Path) -> Mapping[str, Leaf]:
        suffixes = TORCH_SUFFIXES if index.name == BIN_INDEX else (".safetensors",)
        self._kind = "torch" if index.name == BIN_INDEX else "safetensors"
        shards = self._read_index(index, suffixes)
        held = {shard: self._open_file(index.parent / shard) for shard in dict.fromkeys(shards.values())}
        seen: dict[str, str] = {}
        for shard, leaves in held.items():
            for name in leaves:
                if name in seen:
                    raise BadFile(f"tensor {short(name)} is in two shards, {seen[name]} and {shard}")
                seen[name] = shard
        for name, shard in shards.items():
            if name not in held[shard]:
                raise BadFile(f"{shard} does not hold tensor {short(name)}, which {index.name} places there")
        return {name: held[shard][name] for name, shard in shards.items()}

    def _read_index(self, index: Path, suffixes: tuple[str, ...]) -> dict[str, str]:
        file = self._files.get(index)
        if file.size > MAX_HEADER_BYTES:
            raise BadFile(f"{index.name} has {file.size} bytes; at most {MAX_HEADER_BYTES} are read")
        shards = load_json(file.read(file.size, 0)).get("weight_map")
        if not isinstance(shards, dict) or not shards:
            raise BadFile(f"{index.name} has no weight_map from tensors to shards")
        for name, shard in shards.items():
            if not isinstance(shard, str) or not shard.endswith(suffixes):
                what = "safetensors file" if suffixes == (".safetensors",) else "file of torch.save"
                raise BadFile(f"{index.name} places tensor {short(name)} in {short(shard)}, which is no {what}")
            if os.path.isabs(shard) or os.path.normpath(shard).startswith(".."):
                raise BadFile(f"{index.name} leads out of its folder, to {short(shard)}")
        return shards

    def _check_leaves(self) -> None:
        """Parameters that cannot be read must not be left out in silence; of other tensors nobody asks."""
        for name, leaf in self._leaves.items():
            if leaf.problem is not None and (leaf.floating or leaf.dtype == "unknown"):
                raise BadFile(f"tensor {short(name)} is {leaf.problem}: such parameters have no update to subtract")

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (BadFile, OSError) as error:
            reason = str(error) if isinstance(error, BadFile) else _os_reason(error)
            raise DataError(
                f"{self.path} must be a whole {self._kind} checkpoint; {reason}. "
                "Fetch it again, or leave it out of the series."
            ) from error


def _os_reason(error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return "it is missing"
    return error.strerror or str(error)
