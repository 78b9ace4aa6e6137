"""The file: one writer, any reader, and whatever happens to a disk."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from recording_reference import small_run

from spectraledge.errors import DataError, OutputError, SettingError
from spectraledge.recording import Recording, RecordingWriter, load, read_log
from spectraledge.recording.line import encode_line


def write_run(path, **options):
    with RecordingWriter(path, header_meta={"seed": 1}, **options) as writer:
        small_run(n_updates=6, lags=2).record(writer)
    return path / "recording.jsonl"


def header(**changes):
    record = {"kind": "header", "format": "spectraledge-recording", "version": 1, "meta": {}}
    return encode_line(record | changes)


def test_memory_and_file_hold_the_same(tmp_path):
    run = small_run()
    with RecordingWriter(tmp_path / "run", header_meta={"seed": 1}) as on_disk:
        run.record(on_disk)
        assert load(tmp_path / "run") == run.recording()
        assert Recording.from_log(on_disk.log()) == run.recording()
    assert load(tmp_path / "run" / "recording.jsonl") == run.recording()


def test_fields_arrive(tmp_path):
    file = write_run(tmp_path)
    log = read_log(tmp_path)
    assert log.path == file
    assert log.header["meta"] == {"seed": 1}
    assert log.header["package_version"]
    assert [record["kind"] for record in log.records] == ["segment"] + ["row"] * 6
    assert log.report.n_records == 8
    assert log.report.valid_bytes == file.stat().st_size
    assert log.records[-1]["time"] == pytest.approx(time.time(), abs=60)


def test_an_existing_recording_is_refused_and_left_alone(tmp_path):
    before = write_run(tmp_path).read_bytes()
    with pytest.raises(OutputError, match=r'must not hold a recording yet.*resume="auto".*overwrite=True'):
        RecordingWriter(tmp_path)
    assert (tmp_path / "recording.jsonl").read_bytes() == before


def test_overwrite_starts_afresh(tmp_path):
    write_run(tmp_path)
    with RecordingWriter(tmp_path, mode="overwrite"):
        pass
    assert read_log(tmp_path).records == []


def test_resume_goes_on_behind_a_torn_line(tmp_path):
    file = write_run(tmp_path)
    whole = file.read_bytes()
    file.write_bytes(whole[:-20])
    with RecordingWriter(tmp_path, mode="resume", header_meta={"seed": 2}) as writer:
        assert writer.resumed is not None
        assert writer.resumed.report.torn_tail
        assert load(tmp_path).n_updates == 5
        writer.write("row", **small_run(n_updates=6, lags=2).row(5))
    assert load(tmp_path) == small_run(n_updates=6, lags=2).recording()


@pytest.mark.parametrize("start", [b"", b'{"crc', b'{"crc32":"0123'])
def test_resume_of_a_run_killed_before_its_first_record_starts_it(tmp_path, start):
    (tmp_path / "recording.jsonl").write_bytes(start)
    with RecordingWriter(tmp_path, mode="resume", header_meta={"seed": 3}) as writer:
        assert writer.resumed is None
    assert read_log(tmp_path).header["meta"] == {"seed": 3}


def test_resume_of_nothing_starts_a_run(tmp_path):
    with RecordingWriter(tmp_path / "new" / "run", mode="resume") as writer:
        assert writer.resumed is None


@pytest.mark.parametrize("content", [b"notes\n", b"no newline", b"\x00" * 64])
def test_resume_never_cuts_a_foreign_file(tmp_path, content):
    file = tmp_path / "recording.jsonl"
    file.write_bytes(content)
    with pytest.raises(DataError, match="another format"):
        RecordingWriter(tmp_path, mode="resume")
    assert file.read_bytes() == content


def test_a_second_writer_is_told(tmp_path):
    with (
        RecordingWriter(tmp_path),
        pytest.raises(OutputError, match=rf"{tmp_path} must have one writer") as caught,
    ):
        RecordingWriter(tmp_path, mode="overwrite")
    assert isinstance(caught.value, OSError)
    with RecordingWriter(tmp_path, mode="resume"):  # the first let go
        pass


def test_lock_is_released_at_close_though_a_forked_child_lives_on(tmp_path):
    writer = RecordingWriter(tmp_path)
    child = os.fork()
    if child == 0:  # like a data loader's worker
        time.sleep(30)
        os._exit(0)
    try:
        writer.close()
        RecordingWriter(tmp_path, mode="resume").close()
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_a_forked_child_that_closes_its_copy_takes_no_lock_away(tmp_path):
    writer = RecordingWriter(tmp_path)
    child = os.fork()
    if child == 0:
        writer.close()
        os._exit(0)
    os.waitpid(child, 0)
    with pytest.raises(OutputError, match="one writer"):
        RecordingWriter(tmp_path, mode="resume")
    writer.close()


def test_a_killed_writer_leaves_every_whole_record(tmp_path):
    script = f"""
import os, sys
from spectraledge.recording import RecordingWriter
writer = RecordingWriter({str(tmp_path)!r}, fsync_seconds=1e9)
for step in range(10**9):
    writer.write("metrics", step=step, values={{"loss": 1.0}})
    if step == 200:
        os.write(1, b"go")
"""
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.read(2) == b"go"
    during = load(tmp_path)  # while it is being written
    assert len(during.metrics["loss"][0]) >= 200
    assert during.report.n_corrupt == 0
    process.kill()
    process.wait()
    process.stdout.close()
    after = load(tmp_path)
    steps = after.metrics["loss"][0]
    assert len(steps) >= len(during.metrics["loss"][0])
    np.testing.assert_array_equal(steps, np.arange(len(steps)))
    assert after.report.n_corrupt == 0
    with RecordingWriter(tmp_path, mode="resume") as writer:  # the lock died with it
        assert writer.resumed is not None
        assert len(writer.resumed.records) == len(steps)


def test_one_write_call_a_record(tmp_path, monkeypatch):
    calls = []
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: calls.append(data) or real(fd, data))
    write_run(tmp_path)
    assert len(calls) == 8
    assert all(data.endswith(b"}\n") and data.count(b"\n") == 1 for data in calls)


@pytest.mark.parametrize("truncate_works", [True, False])
def test_a_full_disk_loses_the_record_and_no_other(tmp_path, monkeypatch, truncate_works):
    writer = RecordingWriter(tmp_path)
    writer.write("metrics", step=1, values={"loss": 1.0})
    real_write, real_truncate = os.write, os.ftruncate
    state = {"full": False}

    def nearly_full(fd, data):
        if state["full"]:
            raise OSError(errno.ENOSPC, "No space left on device")
        state["full"] = True
        return real_write(fd, data[:15])

    def no_truncate(fd, size):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "write", nearly_full)
    if not truncate_works:
        monkeypatch.setattr(os, "ftruncate", no_truncate)
    with pytest.raises(OutputError, match=r"disk of .* must have room"):
        writer.write("metrics", step=2, values={"loss": 2.0})
    monkeypatch.setattr(os, "write", real_write)
    monkeypatch.setattr(os, "ftruncate", real_truncate)
    writer.write("metrics", step=3, values={"loss": 3.0})
    writer.close()
    recording = load(tmp_path)
    np.testing.assert_array_equal(recording.metrics["loss"][0], [1, 3])
    assert recording.report.n_corrupt == (0 if truncate_works else 1)


def test_short_writes_are_completed(tmp_path, monkeypatch):
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real(fd, data[:100]))
    write_run(tmp_path)
    assert load(tmp_path) == small_run(n_updates=6, lags=2).recording()


def test_a_folder_that_cannot_be_made_or_written(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="must be writable; got Not a directory"):
        RecordingWriter(tmp_path / "file" / "run")
    (tmp_path / "run" / "recording.jsonl").mkdir(parents=True)
    with pytest.raises(OutputError, match="must be writable"):
        RecordingWriter(tmp_path / "run" / "recording.jsonl")


def test_fsync_keeps_its_cadence(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(os, "fsync", calls.append)
    with RecordingWriter(tmp_path / "rarely", fsync_seconds=1e9) as writer:
        writer.write("metrics", step=1, values={})
    assert len(calls) == 1  # at the end
    with RecordingWriter(tmp_path / "always", fsync_seconds=0) as writer:
        writer.write("metrics", step=1, values={})
    assert len(calls) == 1 + 3


def test_misuse_is_told():
    writer = RecordingWriter(None)
    with pytest.raises(SettingError, match="kind must be one of"):
        writer.write("rows")
    with pytest.raises(SettingError, match="mode must be"):
        RecordingWriter(None, mode="append")
    for blocks in ([], ["a", "a"], ["all", "a"]):
        with pytest.raises(SettingError, match="distinct names"):
            writer.write("segment", segment=0, step=0, blocks=blocks, lags=1)
    with pytest.raises(SettingError, match="number and its lags; got None and None"):
        writer.write("segment", step=0, blocks=["a"])
    for step in (None, 1.5, "3"):
        with pytest.raises(SettingError, match="A rewind must state its optimizer step as an integer; got"):
            writer.write("rewind", step=step, ring=True)
    writer.write("rewind", step=np.int64(3), ring=True)
    writer.close()
    writer.close()
    with pytest.raises(SettingError, match="must be open"):
        writer.write("close", step=0)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "it is empty"),
        (b"step,loss\n1,2\n", "of another format"),
        (b'{"loss": 1}\n', "of another format"),
        (b"\x80\x04\x95pickle", "of another format"),
        (b'{"crc32":"00', "its only record is cut short"),
        (b'{"crc32":"00000000","record":{}}\n', "none of its records is intact"),
        (header(version=2), "version up to 1; got 2"),
        (header(version="1"), "version up to 1; got '1'"),
        (header(format="other"), "its header says 'other'"),
    ],
)
def test_what_is_no_recording_is_said_in_one_sentence(tmp_path, content, sentence):
    file = tmp_path / "recording.jsonl"
    file.write_bytes(content)
    with pytest.raises(DataError, match=sentence) as caught:
        load(tmp_path)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_nothing_there(tmp_path):
    with pytest.raises(DataError, match=rf"the folder {tmp_path} holds none"):
        load(tmp_path)
    with pytest.raises(DataError, match="holds none"):
        load(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "recording.jsonl")
    with pytest.raises(DataError, match="regular file"):  # and does not wait for a writer of the pipe
        load(tmp_path)


def test_an_endless_line_is_skipped(tmp_path, monkeypatch):
    file = write_run(tmp_path)
    whole = file.read_bytes()
    monkeypatch.setattr("spectraledge.recording.reader.MAX_LINE_BYTES", 4096)
    file.write_bytes(whole + b"x" * 50_000 + b"\n" + encode_line({"kind": "metrics", "step": 3, "values": {"a": 1}}))
    recording = load(tmp_path)
    assert recording.report.n_corrupt == 1
    assert recording.report.valid_bytes == file.stat().st_size
    assert recording.metrics["a"][1] == [1.0]


def test_header_and_segment_are_restated_in_long_runs(tmp_path, monkeypatch):
    monkeypatch.setattr("spectraledge.recording.log.RESTATE_ROWS", 4)
    run = small_run(n_updates=10)
    with RecordingWriter(tmp_path, header_meta={"seed": 1}) as writer:
        run.record(writer)
        writer.write("close", step=100)
    file = tmp_path / "recording.jsonl"
    assert load(tmp_path) == run.recording()
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"#" + b"".join(lines[:1])[1:] + b"#" + b"".join(lines[1:])[1:])
    damaged = load(tmp_path)
    assert damaged.meta["seed"] == 1
    assert damaged.report.n_corrupt == 2
    np.testing.assert_array_equal(damaged.steps, run.recording().steps)
    np.testing.assert_array_equal(damaged.products[4:], run.recording().products[4:])
    assert all(flags == ["lost"] for flags in damaged.flags[:4])


def test_without_any_header_the_rows_are_still_there(tmp_path):
    file = write_run(tmp_path)
    file.write_bytes(file.read_bytes().split(b"\n", 1)[1])
    recording = load(tmp_path)
    assert recording.report.header_lost
    assert recording.n_updates == 6


def test_a_segment_taken_back_is_not_stated_again(tmp_path, monkeypatch):
    monkeypatch.setattr("spectraledge.recording.log.RESTATE_ROWS", 3)
    run = small_run(n_updates=12)
    other = small_run(n_updates=12, lags=2)
    with RecordingWriter(tmp_path, header_meta={"seed": 1}) as writer:
        writer.write("segment", **run.segment())
        for t in range(6):
            writer.write("row", **run.row(t))
        writer.write("segment", **other.segment(1, step=60))
        writer.write("row", **other.row(6, ring_from=6, segment=1))
    with RecordingWriter(tmp_path, mode="resume") as writer:
        writer.write("rewind", step=50, ring=True)
        for t in range(5, 12):
            writer.write("row", **run.row(t))
        writer.write("close", step=120)
    assert load(tmp_path) == run.recording()
