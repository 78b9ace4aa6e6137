"""Keys of trackers: ``/``-grouped lower snake case that every tracker admits."""

from __future__ import annotations

import re
from collections.abc import Iterable

ROOT = "spectral_edge"
STEP = f"{ROOT}/step"
HEALTH = f"{ROOT}/health"
DROPPED = f"{HEALTH}/dropped"
_LONGEST = 120  # of one part of a key; MLflow admits 250 characters in all


def key_part(name: str) -> str:
    """A name as one part of a key.

    MLflow refuses parentheses and other marks, W&B reads a dot as nesting, and some stores do not tell upper from
    lower case: letters are lowered and everything but ``a-z``, digits, ``_`` and ``-`` becomes ``_``.

    >>> key_part("model.layers.0"), key_part("W(Q) [head 3]")
    ('model_layers_0', 'w_q_head_3')
    """
    part = re.sub(r"_+", "_", re.sub(r"[^a-z0-9_-]", "_", name.lower())).strip("_")
    return part[:_LONGEST] or "unnamed"


def key_parts(names: Iterable[str]) -> dict[str, str]:
    """Every name's own key part; names that would fall together are numbered in their order.

    >>> key_parts(["a.b", "a_b", "c"])
    {'a.b': 'a_b', 'a_b': 'a_b_2', 'c': 'c'}
    """
    taken: set[str] = set()
    parts = {}
    for name in names:
        base = part = key_part(name)
        number = 1
        while part in taken:
            number += 1
            part = f"{base}_{number}"
        taken.add(part)
        parts[name] = part
    return parts
