"""Every experiment of the catalogue, tiny: it starts, trains, records, is stopped in the middle and resumes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from spectraledge.errors import SettingError
from spectraledge.experiments import catalogue
from spectraledge.experiments.run import run

WIDTH = {"d_model": 8, "heads": 2, "d_hidden": 16, "layers": 1}
TINY: dict[str, dict[str, object]] = {
    "modular": {"p": 7, "batch_size": 16, **WIDTH},
    "multitask": {"p": 7, "batch_size": 16, **WIDTH},
    "dyck": {"n_train": 8, "n_test": 40, "max_pairs": 4, "batch_size": 8, "positions": 8, **WIDTH},
    "two_layer": {"p": 7, "d_hidden": 12},
    "scan": {"n_train": 24, "n_test": 12, "batch_size": 8, **WIDTH},
    "lm": {"tokenizer": "bytes", "context": 16, "batch_size": 4, "eval_sequences": 4, "probe_share": 0, **WIDTH},
    "quadratic": {"eigenvalues": "power:8,1"},
    "deep_linear": {},
}
CALL = {"every": 4, "window": 2, "steps": 20, "eval_every": 4, "stop_after_grok": None}


def settings_of(name: str, folder: Path) -> dict[str, object]:
    """Small values for those of the family's settings that this experiment has."""
    fields = catalogue.entry(name).settings.model_fields
    chosen = {key: value for key, value in TINY[name.partition("/")[0]].items() if key in fields}
    if "text" in fields:
        chosen["text"] = str(a_text(folder))
        if "shift_step" in fields and name == "lm/gpt2":
            chosen |= {"shift_text": chosen["text"], "shift_step": 10}
    return chosen


def a_text(folder: Path) -> Path:
    words = np.random.default_rng(0).choice(["the", "gap", "opens", "when", "it", "learns", "\n"], size=800)
    path = folder / "text.txt"
    path.write_text(" ".join(words), encoding="utf-8")
    return path


class Stopped(Exception):
    """In place of a kill: the run is left as it stands."""


def stop_at_12(step: int, steps: int, metrics: Mapping[str, float]) -> None:
    if step == 12:
        raise Stopped


@pytest.mark.parametrize("name", catalogue.names())
def test_it_trains_records_and_resumes(name: str, tmp_path: Path) -> None:
    settings = settings_of(name, tmp_path)
    whole = run(name, settings=settings, **CALL)
    assert whole.n_updates == 5
    assert np.all(whole.products[:, 0, 0] > 0)
    assert all(np.isfinite(values).all() for key, (_, values) in whole.metrics.items() if "loss" in key)
    with pytest.raises(Stopped):
        run(name, settings=settings, out=tmp_path / "run", checkpoint_every=10, progress=stop_at_12, **CALL)
    resumed = run(name, settings=settings, out=tmp_path / "run", checkpoint_every=10, resume=True, **CALL)
    assert np.array_equal(resumed.products, whole.products, equal_nan=True)
    assert resumed.metrics.keys() == whole.metrics.keys()
    for key, (steps, values) in whole.metrics.items():
        assert np.array_equal(resumed.metrics[key][0], steps)
        assert np.array_equal(resumed.metrics[key][1], values, equal_nan=True), key


@pytest.mark.parametrize(
    "name", [n for n in catalogue.names() if "labels" in catalogue.entry(n).settings.model_fields]
)
def test_the_placebo_differs_in_its_labels_alone(name: str, tmp_path: Path) -> None:
    settings = settings_of(name, tmp_path)
    true, placebo = (run(name, settings={**settings, "labels": word}, **CALL) for word in ("true", "shuffled"))
    # The same initialisation: |theta_0|^2 = |theta_1|^2 - 2 <theta_1, delta_1> + |delta_1|^2.
    start = [r.theta_norm2[0, 0] - 2 * r.theta_dot[0, 0] + r.products[0, 0, 0] for r in (true, placebo)]
    assert start[0] == pytest.approx(start[1], rel=1e-6)
    assert not np.array_equal(true.products, placebo.products, equal_nan=True)


def test_every_family_has_its_placebo() -> None:
    without = [n for n in catalogue.names() if "labels" not in catalogue.entry(n).settings.model_fields]
    assert without == ["quadratic", "deep_linear"]


@pytest.mark.parametrize("name", ["dyck", "multitask/dual"])
def test_unknown_settings_get_one_sentence(name: str) -> None:
    with pytest.raises(SettingError, match=r"got qqqq\. Choose one of "):
        run(name, settings={"qqqq": 1})
