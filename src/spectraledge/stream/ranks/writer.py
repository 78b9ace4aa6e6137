"""What stands in for the recording on ranks that keep none."""

from __future__ import annotations

from typing import Any

from ...errors import SettingError


class NoWriter:
    """Takes records and forgets them: one file has one writer, global rank 0."""

    resumed = None

    def write(self, kind: str, **fields: Any) -> None:
        """Forget it."""

    def log(self) -> Any:
        """There is none.

        Raises:
            SettingError: Always.
        """
        raise SettingError(
            "only rank 0 keeps the recording; this is another rank. "
            "Read it on rank 0, or with spectraledge.load(out)."
        )

    def close(self) -> None:
        """Nothing to close."""
