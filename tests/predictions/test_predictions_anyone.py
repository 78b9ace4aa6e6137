"""Runs that say nothing of themselves, that have holes, that are short: a word for each, never an exception."""

from __future__ import annotations

import numpy as np
import pytest
from build import noise, recording_of

from spectraledge.predictions import verify
from spectraledge.predictions.verdict import Verdict

IDS = [f"T{i}" for i in range(1, 9)]


def odd() -> dict:
    still = noise(50)
    still[20:35] = 0.0
    unknown = noise(50)
    unknown[25] = np.nan
    return {
        "short": recording_of(noise(11)),
        "three rows": recording_of(noise(3)),
        "holes": recording_of(noise(60), lost={15, 16, 40}, seam_at=30),
        "still": recording_of(still),
        "unknown": recording_of(
            unknown, metrics={"test_accuracy": np.full(50, np.nan), "test_loss": np.full(50, 1.0)}
        ),
        "few lags": recording_of(noise(40), lags=9),
        "one parameter": recording_of(np.ones((40, 1))),
    }


@pytest.mark.parametrize("name", list(odd()))
def test_any_recording_gets_a_word(name):
    for found in verify([odd()[name]], ids=IDS, draws=19):
        assert isinstance(found, Verdict)
        assert found.reason.strip()
        assert found.command or found.outcome != "not tested"
        found.as_dict()


def test_a_run_that_lacks_something_does_not_stop_the_others():
    found = verify([recording_of(noise(3)), recording_of(noise(60))], ids=["T1", "T2"], draws=19)
    assert [v.outcome for v in found] == ["uninformative", "uninformative"]


def test_the_same_judgement_twice():
    first, second = (verify([recording_of(noise(60))], ids=["T1", "T2", "T5"], draws=19) for _ in range(2))
    assert [v.as_dict() for v in first] == [v.as_dict() for v in second]
