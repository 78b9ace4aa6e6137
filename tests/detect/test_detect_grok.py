"""Grok steps: closed forms, censoring, and the errors."""

from __future__ import annotations

import numpy as np
import pytest

from spectraledge.detect.grok import capability_series, grok_steps, sustained_step
from spectraledge.errors import DataError

STEPS = [1, 100, 200, 300, 400, 500, 600, 700]


def test_every_definition_names_its_own_step() -> None:
    found = grok_steps(STEPS, [0.0, 0.1, 0.5, 0.92, 0.96, 0.98, 0.99, 0.98])
    assert (found.first_090.step, found.first_090.interval) == (300, 100)
    assert (found.first_095.step, found.first_095.interval) == (400, 100)
    assert (found.sustained_098.step, found.sustained_098.interval) == (700, 100)
    # The rise from 0.5 to 0.92 is the steepest: the middle of (200, 300].
    assert (found.steepest.step, found.steepest.interval) == (250, 50)
    assert len(list(found)) == 4


def test_sustained_needs_consecutive_evaluations() -> None:
    assert sustained_step(STEPS, [0, 0.99, 0.99, 0.97, 0.99, 0.99, 0.99, 0.1]).step == 600
    assert sustained_step(STEPS, [0, 0.99, 0.99, 0.97, 0.99, 0.99, 0.97, 0.99]).step is None


def test_nan_breaks_a_run_and_never_counts() -> None:
    assert sustained_step(STEPS, [0, 0.99, 0.99, np.nan, 0.99, 0.99, 0.99, 0.99]).step == 600
    assert grok_steps(STEPS, [np.nan] * 8).first_090.step is None


def test_never_is_right_censored_at_the_last_evaluation() -> None:
    found = grok_steps(STEPS, [0.0, 0.01, 0.02, 0.01, 0.02, 0.01, 0.01, 0.02])
    assert [item.step for item in found] == [None] * 4
    assert {item.last_step for item in found} == {700}
    assert all(item.interval is None for item in found)


def test_reached_from_the_start_is_left_censored() -> None:
    found = grok_steps(STEPS, [1.0] * 8)
    assert (found.first_095.step, found.first_095.interval) == (1, None)
    assert (found.sustained_098.step, found.sustained_098.interval) == (200, None)
    assert found.steepest.step is None  # nothing rises


def test_uneven_evaluations_carry_their_own_interval() -> None:
    found = grok_steps([1, 100, 500], [0.0, 0.1, 1.0])
    assert (found.first_095.step, found.first_095.interval) == (500, 400)
    # 0.9 over 400 steps beats 0.1 over 99 steps.
    assert (found.steepest.step, found.steepest.interval) == (300, 200)


def test_one_evaluation_is_enough_to_say_not_yet() -> None:
    assert grok_steps([1], [0.0]).first_095.step is None


def test_slowest_task_decides() -> None:
    steps, accuracy = capability_series(
        {
            "test_add": ([1, 100, 200], [0.0, 1.0, 1.0]),
            "test_mul": ([1, 200], [0.1, 0.4]),
            "test_loss": ([1, 100, 200], [9.0, 9.0, 9.0]),
            "train_accuracy": ([1], [1.0]),
        }
    )
    np.testing.assert_array_equal(steps, [1, 200])
    np.testing.assert_array_equal(accuracy, [0.0, 0.4])


def test_no_test_metric_is_said_so() -> None:
    with pytest.raises(DataError, match=r"name starts with 'test'.*got test_loss, train_accuracy\. Log one"):
        capability_series({"test_loss": ([1], [1.0]), "train_accuracy": ([1], [1.0])})


@pytest.mark.parametrize(
    ("steps", "accuracy", "words"),
    [
        ([], [], "at least one evaluation"),
        ([1, 2], [0.1], r"got shapes \(2,\) and \(1,\)"),
        ([1, 1], [0.1, 0.2], "strictly increasing"),
        ([1, 2], [3.0, 97.0], r"between 0 and 1; got 3 to 97\. Divide"),
        ([1, 2], [-0.1, 0.5], "between 0 and 1"),
    ],
)
def test_bad_series_are_refused(steps: list[int], accuracy: list[float], words: str) -> None:
    with pytest.raises(DataError, match=words):
        grok_steps(steps, accuracy)
