"""``spectraledge intervene`` end to end, on a network that trains in a second."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from spectraledge.cli.app import app
from spectraledge.cli.intervene import positions_of, seeds_of, study_content
from spectraledge.errors import DataError, SettingError

TINY = ["p=7", "d_model=16", "heads=2", "layers=1", "d_hidden=16", "steps=200", "batch_size=8"]
OPTIONS = ["--time=60", "--window=3", "--every=5", "--horizon=20", "--evaluate-every=10", "--seeds=1-2"]


def call(out: Path, *more: str) -> str:
    words = ["intervene", "modular/add", "--out", str(out), *OPTIONS, *more]
    for pair in TINY:
        words += ["--set", pair]
    result = CliRunner().invoke(app, words)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.stdout


def test_a_study_is_run_resumed_and_shown(tmp_path: Path) -> None:
    content = json.loads(call(tmp_path, "--json"))
    assert content["cells"] == 2 * (2 + 2 + 1)  # two seeds; cuts 1 and 2, two controls, untouched
    readings = {c["reading"] for c in content["contrasts"]}
    assert readings == {"rise", "horizon", "area"}
    for contrast in content["contrasts"]:
        assert contrast["n_seeds"] == 2
        assert contrast["norm_spread"] < 1e-3
    before = [path.read_bytes() for path in sorted(tmp_path.glob("seed-*.jsonl"))]
    text = call(tmp_path)  # nothing left to do
    assert before == [path.read_bytes() for path in sorted(tmp_path.glob("seed-*.jsonl"))]
    assert "k* - none" in text
    assert study_content(tmp_path, "test_loss")["contrasts"][0]["mean"] == content["contrasts"][0]["mean"]


def test_mistakes_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="seeds must be written as 42-49 or 42,43; got a-b"):
        seeds_of("a-b")
    with pytest.raises(SettingError, match="outcome must be one of"):
        study_content(tmp_path, "loss")
    with pytest.raises((SettingError, DataError)):
        study_content(tmp_path, "test_loss")
    with pytest.raises(SettingError, match="positions must be cuts in 1"):
        call(tmp_path, "--position", "9")
    assert positions_of([]) is None
