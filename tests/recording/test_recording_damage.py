"""A damaged file gives fewer numbers, never wrong ones."""

from __future__ import annotations

import numpy as np
import pytest
from recording_reference import ExplicitRun, small_run

from spectraledge.errors import DataError
from spectraledge.recording import RecordingWriter, load
from spectraledge.recording.line import encode_line

RUN = small_run(n_updates=8, lags=3)


def damaged_file(tmp_path) -> bytes:
    """A recording with a rewind and metrics in it, and its bytes."""
    with RecordingWriter(tmp_path, header_meta={"seed": 1}) as writer:
        writer.write("segment", **RUN.segment())
        for t in range(4):
            writer.write("row", **RUN.row(t))
            writer.write("metrics", step=10 * (t + 1), values={"loss": float(t)})
        writer.write("rewind", step=20, ring=True)
        for t in range(2, 8):
            writer.write("row", **RUN.row(t))
            writer.write("metrics", step=10 * (t + 1), values={"loss": float(t)})
    return (tmp_path / "recording.jsonl").read_bytes()


def assert_never_wrong(recording):
    truth = RUN.recording()
    assert recording.n_updates <= truth.n_updates
    rows = slice(0, recording.n_updates)
    if recording.blocks:  # else the segment's record is gone, and every row with it
        for mine, true in (
            (recording.products, truth.products[rows]),
            (recording.theta_dot, truth.theta_dot[rows]),
            (recording.theta_norm2, truth.theta_norm2[rows]),
        ):
            known = ~np.isnan(mine)
            np.testing.assert_array_equal(mine[known], true[known])
    for step, value in zip(*recording.metrics.get("loss", ((), ())), strict=True):
        assert step == 10 * (value + 1)
    for t, flags in enumerate(recording.flags):
        if "lost" not in flags:
            assert recording.steps[t] == truth.steps[t]


def test_cut_at_every_byte_loses_the_record_cut_and_no_other(tmp_path):
    # Every byte costs a load, so the records are as small as they come.
    needed = ("t", "segment", "step", "n_steps", "products", "theta_dot", "theta_norm2")
    run = ExplicitRun(np.arange(1.0, 5.0)[:, None], {"all": 1}, lags=1)
    rows = [{name: run.row(t)[name] for name in needed} | {"time": 0} for t in range(4)]
    with RecordingWriter(tmp_path) as writer:
        writer.write("segment", segment=0, step=0, blocks=["all"], lags=1)
        for t in (0, 1, 2):
            writer.write("row", **rows[t])
        writer.write("rewind", step=10, ring=True)
        for t in (1, 2, 3):
            writer.write("row", **rows[t])
    updates_after = [0, 0, 1, 2, 3, 1, 2, 3, 4]  # after the header, the segment, three rows, the rewind, ...
    truth = run.recording()
    file = tmp_path / "recording.jsonl"
    content = file.read_bytes()
    ends = [i + 1 for i, byte in enumerate(content) if byte == ord("\n")]
    assert len(ends) == len(updates_after)
    for cut in range(len(content)):
        file.write_bytes(content[:cut])
        if cut < ends[0]:
            with pytest.raises(DataError):
                load(tmp_path)
            continue
        recording = load(tmp_path)
        whole = sum(end <= cut for end in ends)
        assert recording.report.n_records == whole
        assert recording.report.n_corrupt == recording.report.n_lost_rows == 0
        assert recording.report.torn_tail == (cut not in ends)
        assert recording.n_updates == updates_after[whole - 1]
        if recording.n_updates:
            np.testing.assert_array_equal(recording.products, truth.products[: recording.n_updates])
            np.testing.assert_array_equal(recording.theta_dot, truth.theta_dot[: recording.n_updates])


def test_random_flips_never_crash_and_never_lie(tmp_path):
    content = damaged_file(tmp_path)
    file = tmp_path / "recording.jsonl"
    rng = np.random.default_rng(5)
    lost = 0
    for _ in range(600):
        damaged = bytearray(content)
        for _ in range(rng.integers(1, 6)):
            damaged[rng.integers(len(damaged))] ^= 1 << int(rng.integers(8))
        file.write_bytes(bytes(damaged))
        recording = load(tmp_path)
        assert recording.report.n_corrupt + recording.report.torn_tail >= 1
        lost += recording.report.n_lost_rows
        assert_never_wrong(recording)
    assert lost > 300  # the test did damage rows


def test_random_lines_lost_never_lie(tmp_path):
    lines = damaged_file(tmp_path).splitlines(keepends=True)
    file = tmp_path / "recording.jsonl"
    rng = np.random.default_rng(6)
    for _ in range(600):
        kept = rng.random(len(lines)) < rng.choice([0.5, 0.8, 0.95])
        if not kept.any():
            continue
        file.write_bytes(b"".join(line for line, keep in zip(lines, kept, strict=True) if keep))
        assert_never_wrong(load(tmp_path))


def test_a_lost_row_leaves_a_hole_of_its_size(tmp_path):
    lines = damaged_file(tmp_path).splitlines(keepends=True)
    rewind = next(i for i, line in enumerate(lines) if b'"rewind"' in line)
    del lines[rewind + 3]  # row 3, behind row 2 and its metrics
    (tmp_path / "recording.jsonl").write_bytes(b"".join(lines))
    recording, truth = load(tmp_path), RUN.recording()
    assert recording.n_updates == 8
    assert recording.flags[3] == ["lost"]
    assert recording.report.n_lost_rows == 1
    np.testing.assert_array_equal(recording.steps, truth.steps)
    np.testing.assert_array_equal(recording.n_steps, truth.n_steps)
    assert np.isnan(recording.products[3]).all()
    others = [t for t in range(8) if t != 3]
    np.testing.assert_array_equal(recording.products[others], truth.products[others])
    # windows of 3 that hold row 3 end at rows 3 to 5; window n ends at row n + 2
    sigma = recording.spectra(window=3).singular_values
    np.testing.assert_array_equal(np.isnan(sigma).all(axis=1), [t in (3, 4, 5) for t in range(2, 8)])


def test_rows_lost_at_the_start_keep_indices_true(tmp_path):
    with RecordingWriter(tmp_path) as writer:
        writer.write("segment", **RUN.segment())
        writer.write("row", **RUN.row(3))
    recording = load(tmp_path)
    np.testing.assert_array_equal(recording.steps, RUN.recording().steps[:4])
    assert [flags == ["lost"] for flags in recording.flags] == [True, True, True, False]


def test_absurd_counts_do_not_fill_the_memory(tmp_path):
    with RecordingWriter(tmp_path) as writer:
        writer.write("segment", **RUN.segment())
        writer.write("row", **(RUN.row(0) | {"t": 10**15}))
    with pytest.raises(DataError, match="nearly all there"):
        load(tmp_path)


@pytest.mark.parametrize(
    "changes",
    [
        {"products": np.zeros((3, 9))},
        {"products": np.zeros((2, 4))},
        {"products": None},
        {"theta_dot": np.zeros(2)},
        {"decay_products": np.zeros(3)},
        {"segment": 7},
        {"segment": [0]},
        {"t": -1},
        {"step": -1},
        {"t": "4"},
        {"step": None},
        {"step": 2**63},
        {"n_steps": 1.5},
    ],
)
def test_intact_records_that_make_no_sense_are_left_out(tmp_path, changes):
    RecordingWriter(tmp_path).close()
    with (tmp_path / "recording.jsonl").open("ab") as stream:
        stream.write(encode_line({"kind": "segment", **RUN.segment()}))
        for t in range(8):
            stream.write(encode_line({"kind": "row", **RUN.row(t), **(changes if t == 4 else {})}))
    recording = load(tmp_path)
    assert recording.report.n_rejected == 1
    assert recording.flags[4] == ["lost"]
    assert_never_wrong(recording)


@pytest.mark.parametrize(
    "changes",
    [
        {"blocks": "abc"},
        {"blocks": []},
        {"blocks": ["a", 3]},
        {"lags": -1},
        {"lags": "3"},
        {"step": None},
        {"step": 2**63},
        {"momentum": "b"},
    ],
)
def test_a_segment_that_makes_no_sense_takes_its_rows_with_it(tmp_path, changes):
    RecordingWriter(tmp_path).close()
    with (tmp_path / "recording.jsonl").open("ab") as stream:
        stream.write(encode_line({"kind": "segment", **RUN.segment(), **changes}))
        stream.write(encode_line({"kind": "row", **RUN.row(0)}))
    recording = load(tmp_path)
    assert recording.n_updates == 0
    assert recording.report.n_rejected == 2


def test_odd_values_in_records_do_not_crash_the_reader(tmp_path):
    odd_segment = RUN.segment() | {"block_info": [3, {"name": 4}], "groups": 3}
    records = [
        {"kind": "segment", **odd_segment},
        {"kind": "row", **RUN.row(0), "flags": ["a"], "seconds": "long"},
        {"kind": "row", **RUN.row(1), "flags": 5, "lr_sum": np.zeros((2, 2))},
        {"kind": "metrics", "step": 3, "values": {"x": [1], "y": "nan", "z": 3}},
        {"kind": "metrics", "step": 3, "values": [1]},
        {"kind": "metrics", "step": 3.5, "values": {}},
        {"kind": "metrics", "step": 10**30, "values": {"z": 10**400}},
        {"kind": "metrics", "step": 2, "values": {"z": 10**400}},
        {"kind": "segment", **RUN.segment(5), "lags": 10**12, "block_info": 3},
        {"kind": "event", "step": 3, "block": None, "event_kind": 4, "value": "x"},
        {"kind": "rewind", "step": "far"},
        {"kind": "rewind"},
        {"kind": "of the future", "step": []},
        {"kind": "segment", "segment": [1]},
    ]
    with RecordingWriter(tmp_path, header_meta={"shape": [1]}) as writer:
        assert writer.path is not None
    with (tmp_path / "recording.jsonl").open("ab") as stream:
        stream.writelines(encode_line(record) for record in records)
    recording = load(tmp_path)
    assert recording.n_updates == 2
    np.testing.assert_array_equal(recording.metrics["z"][1], [np.nan, 3.0])
    assert np.isnan(recording.metrics["x"][1][0])
    assert np.isnan(recording.seconds[0])
    assert recording.summary()["n_updates"] == 2
    recording.spectra(window=2)
    with RecordingWriter(tmp_path, mode="resume") as writer:  # nor the writer that goes on
        writer.write("row", **RUN.row(2))
        writer.write("close", step=30)
    assert load(tmp_path).n_updates == 3
