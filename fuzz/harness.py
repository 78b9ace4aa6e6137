"""What the fuzz targets share: starting atheris, seeds in a folder of their own, and what counts as a finding.

A finding is any exception but the library's own ``DataError``, an input that takes more than 5 seconds, or more than
512 MB of memory above what the imports take. The input that caused it is left in the current folder.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import atheris

_SCRATCH: list[Path] = []
SECONDS, MEGABYTES, MAX_LENGTH = 5, 512, 4096


def one_line(error: Exception) -> None:
    """Whether a refusal is the one sentence that it should be.

    Raises:
        AssertionError: If it is not.
    """
    if "\n" in str(error) or len(str(error)) > 1500:
        raise AssertionError(f"a message of {len(str(error))} characters: {error}")


def scratch() -> Path:
    """A folder for the files that inputs become, in memory where the system has such a place."""
    memory = Path("/dev/shm")
    _SCRATCH.append(Path(tempfile.mkdtemp(prefix="fuzz-", dir=memory if memory.is_dir() else None)))
    return _SCRATCH[-1]


class Payload:
    """Pickled, it makes a folder of whoever unpickles it.

    Args:
        canary: The folder.
    """

    def __init__(self, canary: Path) -> None:
        self._canary = str(canary)

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (self._canary,)


Mutator = Callable[[bytes, int, int], bytes]


def fuzz(
    target: Callable[[bytes], None],
    seeds: Sequence[bytes],
    options: Sequence[str] = (),
    mutator: Mutator | None = None,
) -> None:
    """Run a target until its time is over; ends the process.

    Args:
        target: Raises nothing on a good reader.
        seeds: Inputs to begin with.
        options: For libFuzzer, before those of the command line (``-max_total_time=60``).
        mutator: Makes an input of another; None changes bytes at random.
    """
    corpus = scratch()
    for i, seed in enumerate(seeds):
        (corpus / f"seed-{i:03}").write_bytes(seed)
    defaults = [
        f"-timeout={SECONDS}", f"-rss_limit_mb={_resident_megabytes() + MEGABYTES}", f"-max_len={MAX_LENGTH}",
        "-max_total_time=60", "-print_final_stats=1", *options,
    ]  # fmt: skip
    child = os.fork()  # libFuzzer ends its process without a last word; the folders are this one's to remove
    if child:
        _, status = os.waitpid(child, 0)
        for folder in _SCRATCH:
            shutil.rmtree(folder, ignore_errors=True)
        sys.exit(os.waitstatus_to_exitcode(status))
    how = {} if mutator is None else {"custom_mutator": mutator}
    atheris.Setup([sys.argv[0], *defaults, *sys.argv[1:], str(corpus)], target, **how)
    atheris.Fuzz()


def _resident_megabytes() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) // 1024
    return MEGABYTES
