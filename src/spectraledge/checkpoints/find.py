"""The series that a source names, wherever it lies."""

from __future__ import annotations

from .hub import HubSeries, find_revisions, is_hub_id
from .series import Series, Source, find_series


def find(
    source: Source | Series | HubSeries,
    every: int | None = None,
    *,
    step_regex: str | None = None,
    state_key: str | None = None,
) -> Series | HubSeries:
    """Checkpoints of a folder or list, or revisions of a repository; no weight is read or downloaded.

    Args:
        source: A folder, or files and folders, or ``owner/name@pattern``, or what this function returned.
        every: Only those whose steps lie whole multiples of it behind the first; None takes all.
        step_regex: Picks the step out of a name.
        state_key: Name of the model's table where a checkpoint holds several.

    Raises:
        DataError: If there is no such series.
        SettingError: If an argument cannot be.
    """
    found: Series | HubSeries
    if isinstance(source, Series | HubSeries):
        found = source
    elif isinstance(source, str) and is_hub_id(source):
        found = find_revisions(source, step_regex=step_regex, state_key=state_key)
    else:
        found = find_series(source, step_regex=step_regex, state_key=state_key)
    return found if every is None else found.thinned(every)
