"""Entry point: runs the commands and turns what goes wrong into one sentence and an exit status."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence

from ..errors import SpectralEdgeError

DEBUG = "SPECTRALEDGE_DEBUG"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and leave the process with its exit status.

    Args:
        arguments: Words behind the program's name; None takes the process's own.

    Raises:
        SystemExit: Always; 0, 1, 2, or 130 where the user interrupted.
    """
    sys.exit(run(arguments))


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    from .app import app

    try:
        status = app(None if arguments is None else list(arguments), prog_name="spectraledge", standalone_mode=False)
        return status if isinstance(status, int) else 0
    except SpectralEdgeError as error:
        return _fail(str(error), 2)
    except SystemExit:
        # The command-line library leaves this way for a broken pipe alone (`spectraledge show ... | head`), with
        # status 1; the reader has seen enough, which is nobody's fault.
        return 0
    except KeyboardInterrupt:
        return _fail("interrupted.", 130)
    except Exception as error:
        if getattr(error, "exit_code", None) == 2 and hasattr(error, "format_message"):
            return _fail(_usage(error), 2)
        return _fail(
            f"this is a fault of spectraledge, not of yours: {type(error).__name__}: {error}. "
            f"Set {DEBUG}=1 to see where it happened, and please report it.",
            1,
        )


def _usage(error: Exception) -> str:
    """A usage error of the command-line library as one line."""
    message = " ".join(str(error.format_message()).split())  # type: ignore[attr-defined]
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "spectraledge"
    return f"{message.rstrip('.')}. See {command} --help."


def _fail(message: str, status: int) -> int:
    if os.environ.get(DEBUG, "") not in ("", "0"):
        traceback.print_exc(file=sys.stderr)
    sys.stderr.write(f"spectraledge: {' '.join(message.split())}\n")
    return status
