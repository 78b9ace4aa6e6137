"""Something a detector reported while the run went on."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from .line import Record, number


@dataclass(frozen=True)
class Event:
    """One report of one detector.

    Attributes:
        step: Optimizer step of the snapshot that raised it; nothing later was known then.
        block: Block whose updates were looked at.
        kind: What happened, as the detector names it ("gap opened").
        value: The statistic at that step.
        threshold: The value that it had to pass.
        detector: The detector's name and setting.
        detail: More for people to read.
    """

    step: int
    block: str
    kind: str
    value: float = math.nan
    threshold: float = math.nan
    detector: str = ""
    detail: str = ""

    @classmethod
    def from_record(cls, record: Record) -> Event:
        """The event of a record of kind "event", where the event's own kind is called ``event_kind``."""
        return cls(
            step=int(record["step"]),
            block=str(record.get("block", "all")),
            kind=str(record.get("event_kind", "")),
            value=number(record.get("value")),
            threshold=number(record.get("threshold")),
            detector=str(record.get("detector", "")),
            detail=str(record.get("detail", "")),
        )

    def to_fields(self) -> dict[str, Any]:
        """The fields for ``RecordingWriter.write("event", ...)``.

        >>> Event(step=3, block="all", kind="gap opened").to_fields()["event_kind"]
        'gap opened'
        """
        fields = dict(vars(self))
        fields["event_kind"] = fields.pop("kind")
        return fields
