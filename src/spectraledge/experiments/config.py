"""What a run is started with: validated settings, the monitor's arguments, and the command that repeats it.

Loads no torch, so that a command line can refuse a mistake at once.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from typing import Any

from ..errors import SettingError
from . import catalogue
from .probing import probe_settings
from .settings import TrainingSettings, build_settings


def configure(
    name: str,
    *,
    seed: int | None = None,
    settings: Mapping[str, object] | None = None,
    window: int = 10,
    every: int = 25,
    lags: int | None = None,
    blocks: str | dict[str, str] = "layer",
    decay_products: bool = False,
    probe_every: int | None = None,
    probe: Mapping[str, object] | None = None,
    **overrides: object,
) -> tuple[TrainingSettings, dict[str, Any]]:
    """Validated settings of a run and the content of its ``config.json``; trains nothing.

    Args:
        name: A name of the catalogue.
        seed: 42 where neither this nor the settings say.
        settings: The experiment's settings by name; text is accepted as from a command line.
        window: Updates in a window, at least 2.
        every: Optimizer steps a snapshot.
        lags: Updates back that are recorded; 2 * window - 1 where None, two disjoint windows.
        blocks: How parameters are grouped in the recording.
        decay_products: Also record the exact part of decoupled weight decay (AdamW, Muon).
        probe_every: Optimizer steps between probes; none where None.
        probe: Further settings of the probes, see ``probing.ProbeSettings``.
        **overrides: Settings by name, as in ``settings``.

    Raises:
        SettingError: On an unknown name or setting, or a value out of range.

    Example:
        >>> configure("modular/add", p=13)[1]["monitor"]
        {'window': 10, 'every': 25, 'lags': 19, 'blocks': 'layer', 'decay_products': False}
    """
    entry = catalogue.entry(name)
    values: dict[str, object] = {**(settings or {}), **overrides}
    if seed is not None:
        if "seed" in values and str(values["seed"]) != str(seed):
            raise SettingError(f"seed must be given once; got {seed} and {values['seed']}. Keep one of them.")
        values["seed"] = seed
    chosen = build_settings(entry.settings, values, name=name, fixed=entry.fixed)
    if not isinstance(blocks, str | dict):
        raise SettingError(
            "blocks of a catalogued run must be a name or a table of patterns, which config.json can hold; "
            f"got {type(blocks).__name__}. Use blocks='layer'."
        )
    if every < 1 or window < 2:
        raise SettingError(
            f"window must be at least 2 and every at least 1; got {window} and {every}. "
            "Use window=10 as in the paper and every=25."
        )
    lags = 2 * window - 1 if lags is None else lags
    monitor = {
        "window": window,
        "every": every,
        "lags": lags,
        "blocks": blocks,
        "decay_products": decay_products,
    }
    probing = probe_settings(probe_every, probe, every)
    probes = {} if probing is None else {"probe": probing.model_dump(mode="json")}
    table = chosen.model_dump(mode="json")
    from .. import __version__

    return chosen, {
        "experiment": name,
        "settings": table,
        "monitor": monitor,
        **probes,
        "command": _command(name, table, monitor, set(entry.fixed), probes.get("probe")),
        "package_version": __version__,
    }


def _command(
    name: str,
    settings: dict[str, Any],
    monitor: dict[str, Any],
    fixed: set[str],
    probe: dict[str, Any] | None,
) -> str:
    """The command line that repeats the run, spelt out so that changed defaults cannot change it."""
    blocks = monitor["blocks"]
    words = ["spectraledge", "run", name, "--seed", str(settings["seed"])]
    words += ["--window", str(monitor["window"]), "--every", str(monitor["every"])]
    words += ["--lags", str(monitor["lags"])]
    words += ["--blocks", blocks if isinstance(blocks, str) else json.dumps(blocks)]
    words += ["--decay-products"] * monitor["decay_products"]
    for key, value in (probe or {}).items():
        words += ["--probe-every", str(value)] if key == "every" else ["--probe", f"{key}={value}"]
    for key, value in settings.items():
        if key not in fixed | {"seed"}:
            text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
            words += ["--set", f"{key}={'none' if value is None else text}"]
    return shlex.join(words)
