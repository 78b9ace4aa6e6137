"""Blocks added up: products of sums, seams, segments of other blocks, and what cannot be added up."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from recording_reference import small_run, two_segments

from spectraledge.errors import SettingError
from spectraledge.recording import load

RUN = small_run(n_updates=12, lags=4)
UNIONS = {"a": ["a.w", "a.b"], "rest": ["c.w"]}


def test_products_of_unions_are_those_of_their_parameters(tmp_path: Path) -> None:
    merged = RUN.recording().merged(UNIONS)
    assert merged.blocks == ["all", "a", "rest"]
    columns = RUN.columns("a.w", "a.b")
    for lag in range(5):
        expected = np.einsum("ti,ti->t", RUN.updates[lag:, columns], RUN.updates[: 12 - lag, columns])
        np.testing.assert_allclose(merged.products[lag:, 1, lag], expected, rtol=1e-12)
    np.testing.assert_allclose(merged.theta_norm2[:, 1], (RUN.thetas[:, columns] ** 2).sum(axis=1), rtol=1e-12)
    assert merged.block_info["a"]["n_parameters"] == 15
    merged.save(tmp_path / "run")
    assert load(tmp_path / "run").equals(merged)


def test_each_segment_adds_up_the_blocks_that_it_has(tmp_path: Path) -> None:
    _, recording = two_segments(RUN, lags=3)
    merged = recording.merged({"a": ["a.w", "a.b"], "c": ["c.w"], "new": ["new"]})
    np.testing.assert_array_equal(merged.products[:4, 1], recording.products[:4, 1:3].sum(axis=1))
    np.testing.assert_array_equal(merged.products[4:, 1], recording.products[4:, 1])
    assert np.isnan(merged.products[4:, 2]).all()
    np.testing.assert_allclose(merged.products[:, 0], recording.products[:, 0], rtol=1e-12)
    assert [segment["blocks"] for segment in merged.meta["segments"]] == [["a", "c"], ["a", "new"]]
    merged.save(tmp_path / "run")
    assert load(tmp_path / "run").equals(merged)


def test_everything_in_one() -> None:
    _, recording = two_segments(RUN, lags=3)
    merged = recording.merged()
    assert merged.blocks == ["all"]
    np.testing.assert_array_equal(merged.products[:, 0], recording.products[:, 0])
    assert merged.merged().equals(merged)
    assert merged.merged({}).equals(merged)


@pytest.mark.parametrize(
    ("unions", "words"),
    [
        ({"a": ["a.w", "a.b"]}, "every block exactly once"),
        ({"a": ["a.w", "a.b", "c.w"], "b": ["a.b"]}, "every block exactly once"),
        ({"a": ["a.w", "a.b", "c.w", "d"]}, "every block exactly once"),
        ({"all": ["a.w", "a.b", "c.w"]}, "every block exactly once"),
        ({"a": ["a.w", "a.b", "c.w"], "b": []}, "every block exactly once"),
    ],
)
def test_unions_that_cannot_be(unions: dict[str, list[str]], words: str) -> None:
    with pytest.raises(SettingError, match=re.escape(words)):
        RUN.recording().merged(unions)


def test_groups_are_kept_apart() -> None:
    info = [{"name": name, "n_parameters": 1, "group": int(name == "a.b")} for name in ("a.w", "a.b", "c.w")]
    run = small_run(block_info=info, lr=np.full((24, 2), 0.5))
    with pytest.raises(SettingError, match="one parameter group"):
        run.recording().merged(UNIONS)
    assert run.recording().merged({"w": ["a.w", "c.w"], "b": ["a.b"]}).block_info["b"]["group"] == 1
