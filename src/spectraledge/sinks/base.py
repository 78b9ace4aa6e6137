"""What a tracker has to be able to do."""

from __future__ import annotations

from collections.abc import Mapping

from .alerts import Alert


class Sink:
    """A tracker. Any object with a ``log`` like this one's is one; the other methods are optional.

    Every method is called from one thread that belongs to the sink alone, never from the training loop, so each may
    take its time and may raise: it is then tried again, and switched off if that does not help.

    Attributes:
        name: For messages.
    """

    name = "sink"

    def log(self, step: int, values: Mapping[str, float]) -> int | None:
        """Take the numbers of one snapshot.

        Args:
            step: Optimizer steps made.
            values: Finite numbers by key; a key that is not there has no value at this step.

        Returns:
            How many earlier snapshots this one replaced, where the tracker cannot hold them all; None for none.
        """
        raise NotImplementedError

    def alert(self, alert: Alert) -> None:
        """Take what a detector reported."""

    def rewind(self, step: int) -> None:
        """Everything after ``step`` is void: the run goes on from a checkpoint made there."""

    def close(self) -> int | None:
        """Write what is held back, and close what the sink itself has opened. Returns as ``log`` does."""
        return None
