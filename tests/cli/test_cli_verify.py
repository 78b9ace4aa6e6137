"""The verdicts as people and programs get them; on a real grokking run and its placebo."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

import spectraledge as se
from spectraledge.cli.app import app
from spectraledge.errors import SettingError
from spectraledge.predictions import PREDICTIONS

RECORDS = Path(__file__).parents[2] / "records" / "2026-11-24_modular-add-and-placebo"
RUNS = [str(RECORDS / "grokking-42"), str(RECORDS / "placebo-42")]
FEW = ["--id", "T2", "--id", "T3", "--draws", "19"]
OUTCOMES = {"supported", "compatible", "contradicted", "not identifiable", "uninformative", "not tested"}


def words(*arguments: str) -> str:
    done = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_json_is_a_list_of_verdicts() -> None:
    verdicts = json.loads(words("verify", *RUNS, *FEW, "--json"))
    assert [verdict["id"] for verdict in verdicts] == ["T2", "T3"]
    for verdict in verdicts:
        assert {"claim", "outcome", "author_outcome", "statistic", "value", "interval", "n", "reason"} <= set(verdict)
        assert verdict["outcome"] in OUTCOMES
    untested = verdicts[1]
    assert untested["outcome"] == "not tested"
    assert "--probe-every" in untested["command"]


def test_the_table_names_both_rules_and_the_missing_run(tmp_path: Path) -> None:
    text = words("verify", *RUNS, *FEW, "--markdown", str(tmp_path / "table.md"))
    assert "author's rule" in text
    assert "uninformative" in text
    assert "to test T3: spectraledge run" in text
    assert (tmp_path / "table.md").read_text().count("\n") == 4


def test_modes_leave_a_side_out() -> None:
    assert "author's rule" not in words("verify", *RUNS, *FEW, "--mode", "strict")
    assert " ours " not in words("verify", *RUNS, *FEW, "--mode", "author")


def test_every_prediction_of_the_paper_is_there_and_says_what_it_needs() -> None:
    assert list(PREDICTIONS) == [f"T{i}" for i in range(1, 9)] + [f"C{i}" for i in range(1, 17)] + ["GM", "AR"]
    for prediction in PREDICTIONS.values():
        assert prediction.claim.endswith(".")
        assert "arXiv" in prediction.source or "code" in prediction.source
        assert prediction.needs
        assert prediction.author_rule
        assert prediction.published
        assert "spectraledge" in prediction.command


def test_mistakes_get_one_sentence() -> None:
    with pytest.raises(SettingError, match=r"an id must be one of T1, .*; got T99"):
        se.verify(RUNS, ids=["T99"])
    with pytest.raises(SettingError, match="mode must be strict, author or both; got 'loose'"):
        se.verify(RUNS, ids=["T2"], mode="loose")  # type: ignore[arg-type]
    with pytest.raises(SettingError, match="draws at least 19; got 10 and 3"):
        se.verify(RUNS, ids=["T2"], draws=3)


def test_the_page_holds_the_table(tmp_path: Path) -> None:
    verdicts = se.verify(RUNS, ids=["T2", "T3"], draws=19)
    page = se.report(RUNS, tmp_path / "report.html", verdicts=verdicts).read_text()
    assert "Predictions of the paper on these runs" in page
    assert "uninformative" in page
    assert "Predictions of the paper" not in se.report(RUNS, tmp_path / "plain.html").read_text()
