"""What ``intervene`` shows: the contrasts of an intervention study."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import SettingError
from .content import Content
from .render import cell, print_line, print_table

OUTCOMES = ("test_loss", "train_loss", "test_accuracy", "train_accuracy")


def positions_of(words: Sequence[str]) -> list[int | str] | None:
    """Cuts as numbers, controls as words; None for all where nothing is given.

    Example:
        >>> positions_of(["1", "span"])
        [1, 'span']
    """
    return [int(word) if word.isdecimal() else word for word in words] or None


def seeds_of(text: str) -> list[int]:
    """Seeds written as "42-49" or "42,43".

    Raises:
        SettingError: If the text is neither.

    Example:
        >>> seeds_of("42-44,7")
        [42, 43, 44, 7]
    """
    seeds: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not (first.isdecimal() and (last.isdecimal() or not dash)):
            raise SettingError(f"seeds must be written as 42-49 or 42,43; got {text}. Give whole numbers.")
        seeds += range(int(first), int(last) + 1) if dash else [int(first)]
    return seeds


def study_content(out: Path, outcome: str, *, seed: int = 0) -> Content:
    """Contrasts of a finished or unfinished study, by every reading.

    Raises:
        SettingError: If the outcome is unknown, or the folder holds no study.
        DataError: If no untouched fork is finished.
    """
    import numpy as np

    from ..experiments.intervene_effects import intervention_effects
    from ..experiments.intervene_files import read_study

    if outcome not in OUTCOMES:
        raise SettingError(f"outcome must be one of {', '.join(OUTCOMES)}; got {outcome}. The default is test_loss.")
    rows = read_study(out)
    contrasts: list[dict[str, Any]] = []
    for cuts in ("guarded", "all"):
        for reading in ("rise", "horizon", "area"):
            found = intervention_effects(
                rows, outcome=outcome, reading=reading, cuts=cuts, rng=np.random.default_rng(seed)
            )
            kept = found if cuts == "guarded" else [c for c in found if "others" in c.comparison]
            contrasts += [{"reading": reading, "cuts": cuts, **vars(c)} for c in kept]
    return {"study": str(out), "outcome": outcome, "cells": len(rows), "contrasts": contrasts}


def print_study(content: Content) -> None:
    """The contrasts as a table."""
    rows = [
        {
            "change": f"{c['kind']} {c['amount']:g}",
            "reading": c["reading"],
            "cuts": c["cuts"],
            "comparison": c["comparison"],
            "mean": cell(c["mean"]),
            "95 % interval": f"{cell(c['low'])} .. {cell(c['high'])}",
            "p": cell(c["p_value"]),
            "p (k* renamed)": cell(c["p_position"]),
            "n": f"{c['n_seeds']} seeds, {c['n_forks']} forks",
        }
        for c in content["contrasts"]
    ]
    print_table(rows, f"Effect on {content['outcome']}: {content['cells']} cells of {content['study']}")
    print_line("a loss: positive means that the first costs more; intervals over seeds; cuts: which others are meant")
