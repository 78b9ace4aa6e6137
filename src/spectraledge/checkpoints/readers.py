"""The one place where checkpoint files are opened and read.

No file outside the folder it belongs to, nothing but regular files, nothing that could run as code, and no second
attempt by other means when a file is refused. Every failure is a ``DataError`` with the path and the reason.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from ..errors import DataError
from .header import MAX_HEADER_BYTES, BadFile, TensorInfo, load_json, read_bytes, read_header

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
UNSUPPORTED = (".pt", ".pth", ".bin", ".ckpt", ".distcp")

Mark = tuple[tuple[int, int, int, int], ...]


class CheckpointReader:
    """One checkpoint: names, shapes and dtypes at once, tensors one at a time. A context manager.

    Args:
        path: A safetensors file, or a folder with ``model.safetensors``, or with
            ``model.safetensors.index.json`` and the shards that it names.
        root: Folder that everything read must lie in once links are followed; None takes the checkpoint's own.

    Attributes:
        path: As given.
        tensors: Every tensor by name.
        n_bytes: Size of its files.
        mark: Device, inode, size and time of change of its files: equal marks, equal contents.

    Raises:
        DataError: If it cannot be read, with the path and the reason.
    """

    def __init__(self, path: str | os.PathLike[str], root: str | os.PathLike[str] | None = None) -> None:
        self.path = Path(path)
        self.tensors: dict[str, TensorInfo] = {}
        self._owner: dict[str, _File] = {}
        self._stack = ExitStack()
        with self._explained(), self._stack:  # closes what is open if anything fails
            folder = self.path if self.path.is_dir() else self.path.parent
            self._root = Path(os.path.realpath(folder if root is None else root))
            if self.path.is_dir():
                files = self._open_folder()
            else:
                files = [self._open(self.path)]
                self._take(files[0], files[0].tensors)
            self.mark: Mark = tuple(file.mark for file in files)
            self.n_bytes = sum(file.mark[2] for file in files)
            self._stack = self._stack.pop_all()

    def read(self, name: str, start: int = 0, stop: int | None = None) -> torch.Tensor:
        """A tensor, or its rows ``start:stop`` along the first dimension.

        Args:
            name: Of a floating-point tensor.
            start: First row.
            stop: Behind the last row, within the tensor; None for the whole of it.

        Raises:
            DataError: If the data cannot be read, or the file changed since it was opened.
        """
        file = self._owner[name]
        with self._explained(file.path):
            try:
                tensor = file.handle.get_tensor(name) if stop is None else _rows(file, name, start, stop)
            except (SafetensorError, RuntimeError, ValueError, IndexError) as error:
                raise BadFile(f"tensor {name!r} cannot be read ({error})") from error
            if _mark(os.fstat(file.descriptor)) != file.mark:
                raise BadFile("it changed while it was read")
        return tensor

    def close(self) -> None:
        """Let go of the files. Safe to call twice."""
        self._stack.close()

    def __enter__(self) -> CheckpointReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open_folder(self) -> list[_File]:
        if os.path.lexists(self.path / SINGLE):
            file = self._open(self.path / SINGLE)
            self._take(file, file.tensors)
            return [file]
        if not os.path.lexists(self.path / INDEX):
            raise BadFile(f"it holds neither {SINGLE} nor {INDEX}{_other_formats(self.path)}")
        shards = self._read_index()
        files = {shard: self._open(self.path / shard) for shard in dict.fromkeys(shards.values())}
        seen: dict[str, str] = {}
        for shard, file in files.items():
            for name in file.tensors:
                if name in seen:
                    raise BadFile(f"tensor {name!r} is in two shards, {seen[name]} and {shard}")
                seen[name] = shard
        for name, shard in shards.items():
            if name not in files[shard].tensors:
                raise BadFile(f"{shard} does not hold tensor {name!r}, which {INDEX} places there")
            self._take(files[shard], {name: files[shard].tensors[name]})
        return list(files.values())

    def _read_index(self) -> dict[str, str]:
        with _descriptor(self.path / INDEX, self._root) as (descriptor, status):
            if status.st_size > MAX_HEADER_BYTES:
                raise BadFile(f"{INDEX} has {status.st_size} bytes; at most {MAX_HEADER_BYTES} are read")
            with os.fdopen(descriptor, "rb", closefd=False) as file:
                table = load_json(file.read(MAX_HEADER_BYTES + 1))
        shards = table.get("weight_map")
        if not isinstance(shards, dict) or not shards:
            raise BadFile(f"{INDEX} has no weight_map from tensors to shards")
        for name, shard in shards.items():
            if not isinstance(shard, str) or not shard.endswith(".safetensors"):
                raise BadFile(f"{INDEX} places tensor {name!r} in {shard!r}, which is no safetensors file")
            if os.path.isabs(shard) or os.path.normpath(shard).startswith(".."):
                raise BadFile(f"{INDEX} leads out of its folder, to {shard!r}")
        return shards

    def _open(self, path: Path) -> _File:
        descriptor, status = self._stack.enter_context(_descriptor(path, self._root))
        try:
            tensors = read_header(descriptor, status.st_size)
            real = os.path.realpath(path)
            handle = self._stack.enter_context(_safe_open(real))
        except BadFile as error:
            raise error if path == self.path else BadFile(f"{path.name}: {error}") from None
        except SafetensorError as error:
            raise BadFile(f"{path.name} is corrupt ({error})") from error
        if _mark(os.stat(real)) != _mark(status):
            raise BadFile(f"{path.name} was replaced while it was opened")
        return _File(path, descriptor, handle, tensors, _mark(status))

    def _take(self, file: _File, tensors: Mapping[str, TensorInfo]) -> None:
        for name, info in tensors.items():
            self.tensors[name], self._owner[name] = info, file

    @contextmanager
    def _explained(self, path: Path | None = None) -> Iterator[None]:
        try:
            yield
        except (BadFile, OSError) as error:
            reason = error if isinstance(error, BadFile) else _os_reason(error)
            raise DataError(
                f"{path or self.path} must be a whole safetensors checkpoint; {reason}. "
                "Fetch it again, or leave it out of the series."
            ) from error


@dataclass(frozen=True)
class _File:
    path: Path
    descriptor: int
    handle: Any
    tensors: dict[str, TensorInfo]
    mark: tuple[int, int, int, int]


def _rows(file: _File, name: str, start: int, stop: int) -> torch.Tensor:
    """Rows of a tensor, and no byte more: safetensors' own slices read it whole where they do not map the file."""
    if sys.byteorder == "big":
        return file.handle.get_slice(name)[start:stop]
    info = file.tensors[name]
    dtype, shape = getattr(torch, info.dtype), (stop - start, *info.shape[1:])
    row_bytes = info.numel // info.shape[0] * dtype.itemsize
    data = read_bytes(file.descriptor, (stop - start) * row_bytes, info.offset + start * row_bytes)
    return torch.frombuffer(data, dtype=dtype).reshape(shape)


def _mark(status: os.stat_result) -> tuple[int, int, int, int]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


@contextmanager
def _descriptor(path: Path, root: Path) -> Iterator[tuple[int, os.stat_result]]:
    """Open a regular file inside ``root``, without hanging on a pipe or touching a device."""
    try:
        real = os.path.realpath(path)
        if os.path.commonpath([real, root]) != str(root):
            raise BadFile(f"{path.name} is a link that leads out of {root}, to {real}")
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
        descriptor = os.open(real, flags | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0))
    except FileNotFoundError:
        raise BadFile(f"{path.name} is missing") from None
    except ValueError as error:  # a NUL character in the name
        raise BadFile(f"{path.name!r} is no file name ({error})") from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise BadFile(f"{path.name} is no regular file (a pipe, device or socket is never read)")
        yield descriptor, status
    finally:
        os.close(descriptor)


def _safe_open(path: str) -> Any:
    """Through read calls where this safetensors offers them: a memory map dies by signal on a shrinking file."""
    try:
        return safe_open(path, framework="pt", device="cpu", backend="pread")
    except TypeError:
        return safe_open(path, framework="pt", device="cpu")


def _other_formats(folder: Path) -> str:
    others = sorted(p.name for p in folder.iterdir() if p.suffix in UNSUPPORTED or p.name == ".metadata")
    return f" but {others[0]}, a format that this version does not read: convert it to safetensors" if others else ""


def _os_reason(error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return "it is missing"
    return error.strerror or str(error)
