"""One run of a grid in its own process: ``python -m spectraledge.experiments.grid.child FOLDER < config``.

It ends with the worker that started it, and while it runs no other may write its folder.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ...errors import OutputError, SpectralEdgeError
from ...recording.lock import lock
from ..parent import end_with
from .folders import LOG, PROGRESS, WORKER, is_half_started, make_folder, to_be_replaced

_WAIT = 20.0  # a child whose worker was killed takes up to half a second to notice; a loaded machine takes longer


def main(arguments: list[str]) -> int:
    """Run what standard input describes into the folder named; the exit status of ``spectraledge run``."""
    end_with(int(os.environ[WORKER]), seconds=0.5)
    task = json.loads(sys.stdin.read())
    try:
        folder = Path(arguments[0])
        with only_writer(folder):
            train(folder, task["config"], overwrite=task["overwrite"], checkpoint_every=task["checkpoint_every"])
    except SpectralEdgeError as error:
        sys.stderr.write(f"spectraledge: {' '.join(str(error).split())}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("spectraledge: interrupted.\n")
        return 130
    return 0


def train(folder: Path, config: Mapping[str, Any], *, overwrite: bool, checkpoint_every: int | None) -> None:
    """Go on with the run in ``folder``, or start it; whatever was finished stays as it is.

    Args:
        folder: Of the run.
        config: Content of its ``config.json``.
        overwrite: A run of another configuration may be replaced.
        checkpoint_every: As for ``run``.
    """
    from ..run import run

    probe = dict(config.get("probe") or {})
    replaced = is_half_started(folder) or (overwrite and to_be_replaced(folder, dict(config)))
    tell = _Teller(folder / PROGRESS)
    try:
        run(
            config["experiment"],
            out=folder,
            settings=config["settings"],
            **config["monitor"],
            probe_every=probe.pop("every", None),
            probe=probe or None,
            resume=not replaced,
            overwrite=replaced,
            checkpoint_every=checkpoint_every,
            progress=tell,
        )
    finally:
        (folder / PROGRESS).unlink(missing_ok=True)


@contextmanager
def only_writer(folder: Path, seconds: float = _WAIT) -> Iterator[None]:
    """Hold the folder's lock, which dies with this process.

    Args:
        folder: Of the run; made where missing.
        seconds: To wait for another process to end.

    Raises:
        OutputError: If another process still holds it then.
    """
    make_folder(folder)
    path = folder / LOG
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
    try:
        deadline = time.monotonic() + seconds
        while True:
            try:
                lock(descriptor, path)
                break
            except OutputError:
                if time.monotonic() >= deadline:
                    raise
                time.sleep(0.1)
        yield
    finally:
        os.close(descriptor)


class _Teller:
    """Writes how far the run has come, for whoever watches the grid.

    Args:
        path: The file; replaced as a whole each time.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._first: tuple[int, float] | None = None

    def __call__(self, step: int, steps: int, metrics: Mapping[str, float]) -> None:
        now = time.monotonic()
        first, since = self._first = self._first or (step, now)
        table = {
            "step": step,
            "steps": steps,
            "seconds_a_step": (now - since) / max(step - first, 1),
            "process": os.getpid(),
            "worker": os.getppid(),
        }
        temporary = self._path.with_name(f".{self._path.name}.tmp")
        try:
            # Not flushed to disk: nothing is lost with it.
            temporary.write_text(json.dumps(table))
            os.replace(temporary, self._path)
        except OSError:
            pass  # a full disk is the recording's to report


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
