"""``spectraledge grid`` end to end, on one run that trains in a second."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from spectraledge.cli.grid import duration, grid
from spectraledge.errors import SettingError

TINY = ["p=7", "d_model=8", "heads=2", "layers=1", "d_hidden=8", "steps=60", "batch_size=8", "eval_every=10"]

app = typer.Typer()
app.command()(grid)


def call(*words: str) -> Result:
    result = CliRunner().invoke(app, list(words))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def tiny(out: Path, *more: str) -> list[str]:
    words = ["modular-36", "--out", str(out), "--only", "add-decay-42", *more]
    for pair in TINY:
        words += ["--set", pair]
    return words


def test_a_grid_is_run_shown_and_gone_on_with(tmp_path: Path) -> None:
    done = call(*tiny(tmp_path, "--json"))
    assert done.exit_code == 0, done.stderr
    content = json.loads(done.stdout)
    assert [cell["state"] for cell in content["cells"]] == ["finished"]
    assert (tmp_path / "add-decay-42" / "finished.json").exists()
    assert done.stderr.endswith("modular-36, steps: 60 of 60 (100.0 %; of 1 runs 1 finished, 0 running, 0 failed)\n")
    again = call(*tiny(tmp_path))
    assert again.exit_code == 0
    assert "finished before" in again.stdout
    assert "1 of 1 finished in 0:00:00; 1 at once" in again.stdout
    other = call(*tiny(tmp_path, "--set", "weight_decay=2"))
    assert other.exit_code == 1
    assert other.stderr.splitlines()[-1].startswith("spectraledge: 0 of 1 runs of modular-36 finished; add-decay-42")


def test_a_dry_run_trains_nothing(tmp_path: Path) -> None:
    done = call(*tiny(tmp_path / "none", "--dry-run", "--jobs", "2"))
    assert done.exit_code == 0, done.stderr
    assert "modular-36: 1 runs, 0 of them finished" in done.stdout
    assert "with 2 at once" in done.stdout
    assert not (tmp_path / "none").exists()


def test_names_and_mistakes() -> None:
    assert {row["name"]: row["runs"] for row in json.loads(call("--list", "--json").stdout)}["paper-48"] == 48
    assert "modular-36" in call("--list").stdout
    with pytest.raises(SettingError, match="a grid must have a name and a folder"):
        call("modular-36")
    with pytest.raises(SettingError, match="a grid must be known by name; got modular"):
        call("modular", "--out", "nowhere")
    assert duration(59.6) == "0:01:00"


def test_a_single_run_says_what_it_would_cost() -> None:
    words = ["run", "quadratic", "--set", "steps=40", "--every", "2", "--window", "3", "--dry-run", "--json"]
    from spectraledge.cli.app import app as whole

    done = CliRunner().invoke(whole, words, catch_exceptions=False)
    content = json.loads(done.stdout)
    assert content["runs"] == 1
    assert content["kinds"][0]["seconds_a_step"] > 0
