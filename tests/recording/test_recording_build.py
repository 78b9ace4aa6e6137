"""Rewinds, seams, changes of structure: no window crosses what does not join."""

from __future__ import annotations

import numpy as np
import pytest
from recording_reference import ExplicitRun, small_run, two_segments

from spectraledge.recording import Event, Recording, RecordingWriter, load

RUN = small_run(n_updates=10, lags=4)


def from_writer(writer: RecordingWriter) -> Recording:
    return Recording.from_log(writer.log())


def test_arrays_are_what_was_written():
    recording = RUN.recording()
    assert recording.blocks == ["all", "a.w", "a.b", "c.w"]
    assert recording.products.shape == (10, 4, 5)
    assert recording.lags == 4
    np.testing.assert_array_equal(recording.steps, 10 * np.arange(1, 11))
    for t in range(10):
        row = RUN.row(t)
        np.testing.assert_array_equal(recording.products[t, 1:], row["products"])
        np.testing.assert_array_equal(recording.theta_norm2[t, 1:], row["theta_norm2"])
        np.testing.assert_array_equal(recording.products[t, 0], row["products"].sum(axis=0))
    assert recording.decay_products is None
    assert recording.gradient_products is None
    assert recording.block_info["a.b"]["n_parameters"] == 3
    assert recording.meta["seed"] == 1
    assert recording.meta["segments"][0]["every"] == 10


def test_all_alone_is_not_doubled():
    run = ExplicitRun(RUN.updates, {"all": 30})
    assert run.recording().blocks == ["all"]
    one = ExplicitRun(RUN.updates, {"w": 30}).recording()
    assert one.blocks == ["all", "w"]
    np.testing.assert_array_equal(one.products[:, 0], one.products[:, 1])


def test_optional_products_and_weight_decay():
    writer = RecordingWriter(None)
    writer.write("segment", **RUN.segment())
    decay = np.random.default_rng(0).normal(size=(4, 3, 5))
    for t in range(4):
        extra = {"decay_products": decay[t], "decay_norm2": decay[t, :, 0]} if t != 1 else {}
        writer.write("row", **(RUN.row(t) | extra))
    recording = from_writer(writer)
    assert np.isnan(recording.decay_products[1]).all()
    np.testing.assert_array_equal(recording.decay_products[3, 1:, :4], decay[3, :, :4])
    np.testing.assert_allclose(recording.decay_products[3, 0, 0], decay[3, :, 0].sum(), rtol=1e-15)
    assert np.isnan(recording.decay_products[3, :, 4]).all()  # reaches before the start
    np.testing.assert_allclose(recording.decay_norm2[0, 0], decay[0, :, 0].sum(), rtol=1e-15)
    assert recording.gradient_products is None


def test_rewind_with_its_ring_equals_the_uninterrupted_run():
    writer = RecordingWriter(None, header_meta={"seed": 1})
    writer.write("segment", **RUN.segment())
    for t in range(7):
        writer.write("row", **RUN.row(t))
        writer.write("metrics", step=10 * (t + 1), values={"loss": -1.0})
        writer.write("event", **Event(10 * (t + 1), "all", "old").to_fields())
    writer.write("rewind", step=40, ring=True)
    for t in range(4, 10):
        writer.write("row", **RUN.row(t))
        writer.write("metrics", step=10 * (t + 1), values={"loss": 1.0})
    recording = from_writer(writer)
    assert [event.step for event in recording.events] == [10, 20, 30, 40]
    np.testing.assert_array_equal(recording.metrics["loss"][1], [-1] * 4 + [1] * 6)
    recording.metrics, recording.events = {}, []
    assert recording == RUN.recording()


def test_rewind_without_its_ring_is_a_seam_that_no_window_crosses():
    writer = RecordingWriter(None)
    writer.write("segment", **RUN.segment())
    for t in range(5):
        writer.write("row", **RUN.row(t))
    writer.write("rewind", step=40, ring=False)
    for t in range(4, 10):
        writer.write("row", **RUN.row(t))  # as if the writer had forgotten the NaN: the reader sees to it
    recording = from_writer(writer)
    assert "seam" in recording.flags[4]
    np.testing.assert_array_equal(recording.seams, [4])
    for t in range(10):
        available = t if t < 4 else t - 4
        np.testing.assert_array_equal(np.isfinite(recording.products[t, 0]), np.arange(5) <= available)
    sigma = recording.spectra(window=3).singular_values
    ends = np.arange(2, 10)
    np.testing.assert_array_equal(np.isnan(sigma[:, 0]), (ends >= 4) & (ends < 6))
    coarse = recording.band(stride=2)  # rows 0+1, 2+3 | 4+5, ...
    np.testing.assert_array_equal(np.isnan(coarse[:, 0]), [False] * 5)
    np.testing.assert_array_equal(np.isnan(coarse[:, 1]), [True, False, True, False, False])


def test_a_coarse_row_over_a_seam_is_no_row():
    writer = RecordingWriter(None)
    writer.write("segment", **RUN.segment())
    for t in range(10):
        writer.write("row", **(RUN.row(t) | {"flags": ["seam"] if t == 5 else []}))
    recording = from_writer(writer)
    band = recording.band(stride=2)  # row 2 would be updates 4 | 5
    np.testing.assert_array_equal(np.isnan(band[:, 0]), [False, False, True, False, False])


def test_rewind_to_the_very_start_and_past_the_end():
    writer = RecordingWriter(None)
    writer.write("segment", **RUN.segment())
    for t in range(3):
        writer.write("row", **RUN.row(t))
    writer.write("rewind", step=35, ring=True)  # a checkpoint taken after the last row
    writer.write("row", **RUN.row(3))
    assert from_writer(writer).n_updates == 4
    writer.write("rewind", step=0, ring=False)
    assert from_writer(writer).n_updates == 0
    writer.write("row", **RUN.row(0))
    recording = from_writer(writer)
    assert recording.n_updates == 1
    assert recording.blocks == ["all", "a.w", "a.b", "c.w"]


def test_a_lost_rewind_is_noticed_by_the_count_that_rows_carry():
    writer = RecordingWriter(None)
    writer.write("segment", **RUN.segment())
    for t in range(6):
        writer.write("row", **RUN.row(t))
    writer.write("rewind", step=40, ring=True)
    for t in range(4, 10):
        writer.write("row", **RUN.row(t))
    log = writer.log()
    log.records[:] = [record for record in log.records if record["kind"] != "rewind"]
    recording = Recording.from_log(log)
    assert recording.n_updates == 10
    np.testing.assert_array_equal(recording.seams, [4])


def test_a_new_segment_with_other_blocks_and_lags():
    later, recording = two_segments(RUN, lags=6)
    assert recording.blocks == ["all", "a.w", "a.b", "c.w", "new"]
    assert recording.lags == 6
    np.testing.assert_array_equal(recording.segment, [0] * 4 + [1] * 6)
    assert np.isnan(recording.products[:4, 4]).all()
    assert np.isnan(recording.products[4:, 2:4]).all()
    assert np.isnan(recording.products[:4, :, 5:]).all()
    np.testing.assert_array_equal(recording.products[6, 1, :3], later.row(2)["products"][0, :3])
    np.testing.assert_array_equal(recording.products[9, 0, :6], later.row(5)["products"].sum(axis=0)[:6])
    assert np.isnan(recording.products[4, :, 1:]).all()
    np.testing.assert_array_equal(recording.seams, [4])
    sigma = recording.spectra(window=3).singular_values[:, 0]
    np.testing.assert_array_equal(np.isnan(sigma), [False, False, True, True] + [False] * 4)


def test_same_structure_said_again_is_no_new_segment():
    writer = RecordingWriter(None)
    said = RUN.segment() | {"block_info": [{"name": "a.w", "shape_of": np.arange(3)}]}  # arrays compare as a whole
    writer.write("segment", **said)
    writer.write("row", **RUN.row(0))
    writer.write("segment", **said)
    writer.write("row", **RUN.row(1))
    recording = from_writer(writer)
    assert len(recording.meta["segments"]) == 1
    assert np.isfinite(recording.products[1, 0, 1])


def test_a_number_used_twice_for_different_structures_joins_nothing():
    writer = RecordingWriter(None)
    other = ExplicitRun(RUN.updates, {"x": 10, "y": 10, "z": 10}, lags=4)
    writer.write("segment", **RUN.segment())
    writer.write("row", **RUN.row(0))
    writer.write("segment", **other.segment())
    writer.write("row", **other.row(1))
    recording = from_writer(writer)
    np.testing.assert_array_equal(recording.segment, [0, 1])
    assert np.isnan(recording.products[1, :, 1]).all()
    assert np.isnan(recording.products[1, 1:4]).all()


def test_a_poisoned_row_poisons_its_windows_and_no_others():
    updates = RUN.updates.copy()
    updates[4, 2] = np.nan
    run = ExplicitRun(updates, RUN.sizes, lags=4)
    with np.errstate(invalid="ignore"):
        recording = run.recording()
    assert recording.nonfinite[4, 0] == 1
    sigma = recording.spectra(window=2).singular_values[:, 0]
    np.testing.assert_array_equal(np.isnan(sigma), [t in (4, 5) for t in range(1, 10)])
    other = recording.spectra(window=2, block="c.w").singular_values
    assert np.isfinite(other).all()


def test_metrics_keep_the_last_value_and_odd_numbers():
    writer = RecordingWriter(None)
    for step, value in ((20, 1.0), (10, np.inf), (20, np.nan), (30, -np.inf), (20, np.float32(3))):
        writer.write("metrics", step=step, values={"loss": value, "n": 2})
    steps, values = from_writer(writer).metrics["loss"]
    np.testing.assert_array_equal(steps, [10, 20, 30])
    np.testing.assert_array_equal(values, [np.inf, 3, -np.inf])


def test_events_survive():
    event = Event(30, "a.w", "gap opened", 2.5, np.inf, "cusum(h=5)", "two modes")
    writer = RecordingWriter(None)
    writer.write("event", **event.to_fields())
    assert from_writer(writer).events == [event]


def test_empty_recording(tmp_path):
    RecordingWriter(tmp_path).close()
    recording = load(tmp_path)
    assert (recording.n_updates, recording.blocks, recording.lags) == (0, [], 0)
    assert recording.summary()["last_step"] is None
    assert recording == load(tmp_path)
    recording.save(tmp_path / "copy")
    assert load(tmp_path / "copy") == recording


def test_save_writes_what_load_reads(tmp_path):
    writer = RecordingWriter(None, header_meta={"seed": 1, "note": "x"})
    writer.write("segment", **RUN.segment())
    for t in (0, 1, 2, 5, 6):  # rows 3 and 4 lost
        writer.write("row", **(RUN.row(t) | {"flags": ["skipped"] if t == 1 else []}))
    writer.write("rewind", step=60, ring=False)
    writer.write("row", **RUN.row(6))
    writer.write("segment", **(RUN.segment(1, 70) | {"lags": 2}))
    writer.write("row", **(small_run(n_updates=10, lags=2).row(7, ring_from=7) | {"segment": 1}))
    writer.write("metrics", step=60, values={"loss": np.nan, "accuracy": 0.5})
    writer.write("event", **Event(60, "all", "gap", 1.0, 0.5, "d").to_fields())
    writer.write("close", step=80)
    recording = from_writer(writer)
    assert recording.closed
    recording.save(tmp_path / "copy")
    copy = load(tmp_path / "copy")
    assert copy == recording
    assert copy.closed
    assert copy.report.n_lost_rows == 2
    np.testing.assert_array_equal(copy.seconds, recording.seconds)
    np.testing.assert_array_equal(copy.time, recording.time)
    assert copy.meta["created"] == recording.meta["created"]
    assert [p.name for p in (tmp_path / "copy").iterdir()] == ["recording.jsonl"]


def test_save_replaces_only_when_told_and_never_under_a_writer(tmp_path):
    from spectraledge.errors import OutputError

    recording = RUN.recording()
    with RecordingWriter(tmp_path):
        with pytest.raises(OutputError, match="overwrite=True"):
            recording.save(tmp_path)
        with pytest.raises(OutputError, match="one writer"):
            recording.save(tmp_path, overwrite=True)
    recording.save(tmp_path, overwrite=True)
    assert load(tmp_path) == recording


def test_equality_sees_every_field():
    one = RUN.recording()
    assert one == RUN.recording()
    assert one != "recording"
    for change in (
        lambda r: r.products.__setitem__((5, 0, 0), 1.0),
        lambda r: r.flags[3].append("x"),
        lambda r: r.meta.update(seed=2),
        lambda r: r.metrics.update(loss=(np.array([1]), np.array([np.nan]))),
        lambda r: r.events.append(Event(1, "all", "x")),
    ):
        other = RUN.recording()
        change(other)
        assert one != other
    later = RUN.recording()
    later.seconds += 1
    later.time += 1
    later.meta["created"] = "another day"
    assert one == later
