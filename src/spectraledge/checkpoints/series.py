"""Find the checkpoints of a run and put them in order.

Owns which files and folders belong to a series and what is told about them; reads no weights.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol, TypeVar

from ..errors import DataError
from ..stream.checks import check_every
from .folders import is_weights, named_layout
from .names import SUFFIX, SUFFIXES, is_shard, says_step, step_of
from .readers import CheckpointReader, open_checkpoint

Source = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]


@dataclass(frozen=True)
class Checkpoint:
    """One member of a series.

    Attributes:
        step: Training step, from the name.
        path: A file, or a folder.
        root: Folder that its files must lie in once links are followed.
        state_key: Name of the model's table in it; None searches.
    """

    step: int
    path: Path
    root: Path
    state_key: str | None = None

    def open(self) -> CheckpointReader:
        """Open it for reading.

        Raises:
            DataError: If it cannot be read.
        """
        return open_checkpoint(self.path, self.root, self.state_key)


class _HasStep(Protocol):
    @property
    def step(self) -> int:
        """Training step."""


_Member = TypeVar("_Member", bound=_HasStep)


def multiples(members: Sequence[_Member], every: int, what: str, hint: str) -> tuple[_Member, ...]:
    """Those whose steps lie whole multiples of ``every`` behind the first one's.

    Args:
        members: In the order of their steps.
        every: Steps.
        what: They are, for the message.
        hint: What to do, likewise.

    Raises:
        SettingError: If ``every`` is below 1.
        DataError: If fewer than two are left.
    """
    check_every(every)
    first = members[0].step
    kept = tuple(member for member in members if (member.step - first) % every == 0)
    if len(kept) < 2:
        raise DataError(
            f"every={every} must leave at least 2 of the {len(members)} {what}; it leaves step {first} alone. {hint}"
        )
    return kept


@dataclass(frozen=True)
class Series:
    """Checkpoints in the order of their steps.

    Attributes:
        source: What was given, in words.
        checkpoints: At least two.
        ignored: Names of files and folders beside them that are no members.
    """

    source: str
    checkpoints: tuple[Checkpoint, ...]
    ignored: tuple[str, ...] = ()

    @property
    def steps(self) -> list[int]:
        """Steps, ascending."""
        return [checkpoint.step for checkpoint in self.checkpoints]

    def thinned(self, every: int) -> Series:
        """The members whose steps lie whole multiples of ``every`` behind the first one's.

        Raises:
            SettingError: If ``every`` is below 1.
            DataError: If fewer than two are left.

        Example:
            >>> steps = [Checkpoint(step, Path(f"step-{step}"), Path()) for step in (10, 50, 60, 100, 110)]
            >>> Series("a list", tuple(steps)).thinned(50).steps
            [10, 60, 110]
        """
        kept = multiples(
            self.checkpoints,
            every,
            f"checkpoints in {self.source}",
            f"The most common distance is {common_stride(self.steps)}.",
        )
        left_out = tuple(c.path.name for c in self.checkpoints if c not in kept)
        return replace(self, checkpoints=kept, ignored=(*self.ignored, *left_out))

    def table(self) -> list[dict[str, Any]]:
        """What there is, before any weight is read.

        Returns:
            One row a checkpoint: ``step``, ``file``, ``bytes``, ``dtype`` (of the floating-point tensors; several
            joined by "+"), ``tensors`` (their number) and ``problem`` (None, or why it cannot be read).
        """
        return [_describe(checkpoint) for checkpoint in self.checkpoints]


def find_series(source: Source, *, step_regex: str | None = None, state_key: str | None = None) -> Series:
    """The series of checkpoints in a folder, or in an explicit list.

    Members are files of safetensors or torch (``.pt``, ``.pth``, ``.bin``, ``.ckpt``) and sub-folders that hold a
    checkpoint, with a step in the name: ``step-100``, ``step1000``, ``step-001000-2BT``, ``checkpoint-100``,
    ``epoch=3-step=1200``, ``100``, ``ckpt_000123``. Names without a step (``last``, ``main``, ``final``) are copies
    or the end of training at an unknown step, and are ignored. Of a step that is there as safetensors or a folder,
    torch files are ignored, as trainers save their optimizer's state so.

    Args:
        source: A folder, or files and folders.
        step_regex: Picks the step out of a name where the built-in forms do not; names that it does not match are
            no members.
        state_key: Name of the model's table where a checkpoint holds several ("generator"), levels joined by dots.

    Raises:
        DataError: If there is no folder, no step in any name, one step twice, or fewer than two checkpoints.
        SettingError: If ``step_regex`` cannot be used.
    """
    if isinstance(source, (str, os.PathLike)):
        folder = Path(source)
        if not folder.is_dir():
            raise _not_a_folder(folder)
        found, ignored = _in_folder(folder, step_regex)
        name = str(folder)
    else:
        found, ignored = _in_list([Path(path) for path in source], step_regex), []
        name = f"the list of {len(found)} paths"
    _check(found, ignored, name, step_regex)
    members = sorted((replace(member, state_key=state_key) for member in found), key=lambda c: c.step)
    return Series(name, tuple(members), tuple(ignored))


def common_stride(steps: Sequence[int]) -> int:
    """The most frequent distance of neighbouring steps; the smallest of several.

    Example:
        >>> common_stride([1, 100, 200, 300, 500])
        100
    """
    counts = Counter(b - a for a, b in pairwise(steps))
    return min(counts, key=lambda stride: (-counts[stride], stride))


def _in_folder(folder: Path, step_regex: str | None) -> tuple[list[Checkpoint], list[str]]:
    root = Path(os.path.realpath(folder))
    found, ignored, pickled = [], [], []
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise DataError(f"{folder} must be readable; got {error.strerror}. Check its permissions.") from error
    for path in entries:
        if path.name.startswith("."):
            continue
        step = step_of(path.name, step_regex)
        is_folder = path.is_dir()
        if is_folder and not named_layout(path) and (step is None or not (step_regex or says_step(path.name))):
            continue  # logs-2 and the like; an empty step-300, though, is a checkpoint that is gone
        member = is_folder or (path.name.endswith(SUFFIXES) and not is_shard(path.name))
        if member and step is not None and (is_folder or path.suffix == SUFFIX):
            found.append(Checkpoint(step, path, root))
        elif member and step is not None and is_weights(path.name):
            pickled.append(Checkpoint(step, path, root))
        elif member or path.name.endswith(SUFFIXES):
            ignored.append(path.name)
    covered = {checkpoint.step for checkpoint in found}
    found += [checkpoint for checkpoint in pickled if checkpoint.step not in covered]
    ignored += [checkpoint.path.name for checkpoint in pickled if checkpoint.step in covered]
    return found, sorted(ignored)


def _in_list(paths: Sequence[Path], step_regex: str | None) -> list[Checkpoint]:
    found = []
    for path in paths:
        if not os.path.lexists(path):
            raise DataError(f"every checkpoint in a list must exist; {path} does not. Take it out of the list.")
        step = step_of(path.name, step_regex)
        if step is None:  # checkpoint-100/model.safetensors
            step = step_of(path.absolute().parent.name, step_regex)
        if step is None:
            raise DataError(
                f"every checkpoint in a list must have a step in its name; {path} has none. "
                r"Rename it to step-N, or give step_regex='...(\d+)'."
            )
        # a path that was named one by one may itself be a link; what lies behind it may not leave its folder
        real = Path(os.path.realpath(path))
        found.append(Checkpoint(step, path, real if real.is_dir() else real.parent))
    return found


def _check(found: Sequence[Checkpoint], ignored: Sequence[str], name: str, step_regex: str | None) -> None:
    by_step: dict[int, Checkpoint] = {}
    for checkpoint in found:
        other = by_step.setdefault(checkpoint.step, checkpoint)
        if other is not checkpoint:
            raise DataError(
                f"every step must have one checkpoint; step {checkpoint.step} has {other.path.name} and "
                f"{checkpoint.path.name}. Give a list of files, or a step_regex that matches one of them."
            )
    if len(found) >= 2:
        return
    if named_layout(Path(name)):
        raise DataError(f"{name} is itself 1 checkpoint; at least 2 are needed to form an update. Give its parent.")
    if not found and ignored:
        how = f"step_regex={step_regex!r} finds none" if step_regex else "none has one"
        raise DataError(
            f"checkpoints must have a step in their names; {how} in {', '.join(ignored[:3])}"
            f"{' ...' if len(ignored) > 3 else ''} of {name}. "
            r"Rename them to step-N, or give step_regex='...(\d+)'."
        )
    raise DataError(
        f"{name} holds {len(found)} checkpoint{'s' if len(found) != 1 else ''}; "
        "at least 2 are needed to form an update."
    )


def _describe(checkpoint: Checkpoint) -> dict[str, Any]:
    row = {"step": checkpoint.step, "file": checkpoint.path.name, "bytes": None, "dtype": None, "tensors": None}
    try:
        with checkpoint.open() as reader:
            dtypes = sorted({info.dtype for info in reader.tensors.values() if info.floating})
            return row | {
                "bytes": reader.n_bytes,
                "dtype": "+".join(dtypes) or None,
                "tensors": len(reader.tensors),
                "problem": None,
            }
    except DataError as error:
        return row | {"problem": str(error)}


def _not_a_folder(path: Path) -> DataError:
    if path.is_file():
        return DataError(
            f"a series must be a folder or a list of checkpoints; {path} is a file. "
            "Give the folder that it lies in, or several files."
        )
    return DataError(f"a series must be a folder or a list of checkpoints; {path} does not exist. Check its name.")
