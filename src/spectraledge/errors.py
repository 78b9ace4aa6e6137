"""Errors of this package. One sentence shape: what must hold, what was given, what to do."""

from __future__ import annotations


class SpectralEdgeError(Exception):
    """Base of all errors that are the caller's to mend; the command line exits with status 2 on them."""


class SettingError(SpectralEdgeError, ValueError):
    """An argument or setting that cannot be."""


class DataError(SpectralEdgeError, ValueError):
    """A recording, checkpoint or series that cannot be read or is not what it should be."""


class OutputError(SpectralEdgeError, OSError):
    """A folder or file that cannot be written, or is already in use."""


class MissingDependencyError(SpectralEdgeError, ImportError):
    """An optional library that is not installed."""


def require(module: str, extra: str) -> object:
    """Import an optional library, or say which extra brings it.

    Raises:
        MissingDependencyError: If ``module`` cannot be imported.
    """
    from importlib import import_module

    try:
        return import_module(module)
    except ImportError as error:
        name = module.split(".")[0]
        raise MissingDependencyError(
            f'{name} is needed here and is not installed: pip install "spectraledge[{extra}]".'
        ) from error
