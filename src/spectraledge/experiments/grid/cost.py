"""What a grid will cost, measured before anything is trained."""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping
from typing import Any

# What differs between runs of which a step takes equally long.
_SAME_PACE = {"seed", "steps", "weight_decay", "labels", "stop_after_grok"}


def kind_of(config: Mapping[str, Any]) -> Hashable:
    """What runs have in common of which a step takes equally long."""
    settings = {key: value for key, value in config["settings"].items() if key not in _SAME_PACE}
    return json.dumps([config["experiment"], settings, config["monitor"], config.get("probe")], sort_keys=True)
