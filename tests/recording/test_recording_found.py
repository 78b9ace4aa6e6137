"""Inputs that fuzzing found: files with right checksums and contents that no writer of ours makes."""

from __future__ import annotations

import numpy as np
import pytest

from spectraledge.errors import DataError
from spectraledge.recording import load
from spectraledge.recording.line import encode_line

HEADER = {"kind": "header", "format": "spectraledge-recording", "version": 1, "meta": {}}
SEGMENT = {
    "kind": "segment", "segment": 0, "step": 0, "reason": "start", "blocks": ["a"], "block_info": [],
    "scheme": "layer", "lags": 2, "update_dtype": "float32", "parameter_dtypes": ["float32"], "groups": [],
    "momentum": None, "every": 1,
}  # fmt: skip


def row(t=0, segment=0, n_blocks=1, lags=2):
    ones = np.ones(n_blocks)
    return {
        "kind": "row", "t": t, "segment": segment, "step": t + 1, "n_steps": 1, "flags": [],
        "products": np.ones((n_blocks, lags + 1)), "theta_dot": ones, "theta_norm2": ones, "unchanged": ones,
        "nonfinite": ones,
    }  # fmt: skip


def write(path, *records):
    (path / "recording.jsonl").write_bytes(b"".join(map(encode_line, records)))
    return path


@pytest.mark.parametrize("field", ["format", "version"])
def test_a_header_that_holds_an_array(tmp_path, field):
    with pytest.raises(DataError, match=r"(its header says|got) a ndarray"):
        load(write(tmp_path, HEADER | {field: np.ones(3)}))


def test_a_number_that_is_an_array(tmp_path):
    event = {"kind": "event", "step": 1, "block": "all", "event_kind": "x", "value": np.ones(3), "threshold": 0.0,
             "detector": "y"}  # fmt: skip
    recording = load(write(tmp_path, HEADER, SEGMENT, row(), event | {"threshold": np.ones(2)}))
    assert np.isnan(recording.events[0].value)
    assert np.isnan(recording.events[0].threshold)


def test_a_segment_without_rows_may_state_any_lags(tmp_path):
    recording = load(write(tmp_path, HEADER, SEGMENT | {"lags": 2**53}))
    assert recording.n_updates == 0


def test_few_rows_do_not_ask_for_large_arrays(tmp_path):
    """One wide row far from the start: ninety thousand times the file's size."""
    names = [f"b{i}" for i in range(200)]
    wide = SEGMENT | {"blocks": names, "lags": 9}
    with pytest.raises(DataError, match="they hold 2000 of 180902010 products"):
        load(write(tmp_path, HEADER, wide, row(90_000, n_blocks=200, lags=9)))


def test_many_segments_of_other_blocks_do_not_ask_for_large_arrays(tmp_path):
    records = [HEADER]
    for n in range(300):
        blocks = [f"s{n}b{i}" for i in range(20)]
        records += [SEGMENT | {"segment": n, "step": n, "blocks": blocks, "lags": 9}, row(n, n, n_blocks=20, lags=9)]
    with pytest.raises(DataError, match="must fill most of its arrays; they hold 60000 of 18003000 products"):
        load(write(tmp_path, *records))
