"""Parquet tables: equal to the recording, described by themselves, written whole or not at all, piece by piece."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from recording_reference import ExplicitRun

from spectraledge.cli.export import export_content
from spectraledge.errors import OutputError
from spectraledge.recording import Event, Recording, RecordingWriter
from spectraledge.recording import parquet as subject

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

T, SIZES, LAGS = 12, {"a.w": 5, "b.w": 3}, 4


def write(writer: RecordingWriter) -> None:
    """Two segments with different blocks, a seam, metrics with an infinity, an event."""
    run = ExplicitRun(np.random.default_rng(0).normal(size=(T, 8)), SIZES, lags=LAGS)
    writer.write("segment", **run.segment())
    for t in range(8):
        writer.write("row", **run.row(t))
        if t == 5:
            writer.write("rewind", step=50, ring=False)
    other = ExplicitRun(run.updates, {"b.w": 3, "c.w": 5}, lags=LAGS)
    writer.write("segment", **other.segment(1, step=80))
    for t in range(8, T):
        writer.write("row", **other.row(t, ring_from=8, segment=1))
    writer.write("metrics", step=20, values={"loss": 0.5, "accuracy": 0.25})
    writer.write("metrics", step=40, values={"loss": float("inf"), "accuracy": float("nan")})
    writer.write("event", **Event(40, "all", "gap opened", 3.0, 2.0, "mode2", "detail").to_fields())


@pytest.fixture
def recording() -> Recording:
    writer = RecordingWriter(None, header_meta={"seed": 42})
    write(writer)
    return Recording.from_log(writer.log())


def same(table: Any, column: str, values: np.ndarray) -> None:
    """Equal to the bit by pyarrow and by pandas, null where NaN."""
    values = np.asarray(values, dtype=np.float64).reshape(-1)
    found = table[column]
    assert np.array_equal(found.to_numpy(zero_copy_only=False), values, equal_nan=True)
    assert np.array_equal(found.is_null().to_numpy(), np.isnan(values))


def test_every_table_is_the_recording(recording: Recording, tmp_path: Path) -> None:
    files = recording.to_parquet(tmp_path / "out")
    assert sorted(file.name for file in files) == sorted(f"{name}.parquet" for name in subject.TABLES)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == sorted(file.name for file in files)
    rows, blocks, updates, metrics, events = (pq.read_table(file) for file in files)
    r, shape = recording, recording.products.shape
    same(rows, "product", r.products)
    assert np.isnan(r.products).any()
    where = np.meshgrid(np.arange(shape[0]), np.arange(shape[1]), np.arange(shape[2]), indexing="ij")
    t, b, lag = (index.reshape(-1) for index in where)
    assert np.array_equal(rows["t"], t)
    assert np.array_equal(rows["step"], r.steps[t])
    assert np.array_equal(rows["segment"], r.segment[t])
    assert np.array_equal(rows["lag"], lag)
    assert rows["block"].to_pylist() == [r.blocks[i] for i in b]
    for name in ("theta_dot", "theta_norm2", "unchanged", "nonfinite"):
        same(blocks, name, getattr(r, name))
    assert updates["flags"].to_pylist() == r.flags
    assert updates["lr_sum"].type == pa.list_(pa.float64())
    assert len(updates["lr_sum"]) == r.n_updates
    same(pa.table({"lr": updates["lr_sum"].combine_chunks().flatten()}), "lr", r.lr_sum)
    same(updates, "seconds", r.seconds)
    assert metrics.num_rows == 4
    assert metrics.to_pylist()[1] == {"step": 40, "name": "loss", "value": float("inf")}
    assert [Event(**row) for row in events.to_pylist()] == r.events


def test_pandas_reads_the_same(recording: Recording, tmp_path: Path) -> None:
    recording.to_parquet(tmp_path)
    frame = pd.read_parquet(tmp_path / "rows.parquet")
    cell = frame[(frame.block == "b.w") & (frame.lag == 2)]
    assert np.array_equal(cell["product"], recording.products[:, recording.blocks.index("b.w"), 2], equal_nan=True)
    metrics = pd.read_parquet(tmp_path / "metrics.parquet")
    assert metrics[metrics.name == "loss"].value.tolist() == [0.5, float("inf")]


def test_tables_describe_themselves(recording: Recording, tmp_path: Path) -> None:
    for file in recording.to_parquet(tmp_path):
        schema = pq.read_schema(file)
        about = json.loads(schema.metadata[b"spectraledge"])
        assert (about["format"], about["version"], about["table"]) == ("spectraledge-parquet", 1, file.stem)
        assert about["meta"]["seed"] == 42
        assert about["meta"]["segments"][1]["blocks"] == ["b.w", "c.w"]
        assert all(field.metadata[b"meaning"] for field in schema)
    assert pq.read_schema(tmp_path / "rows.parquet").field("product").metadata[b"unit"] == b"parameter^2"


def test_measured_bands_come_along(recording: Recording, tmp_path: Path) -> None:
    recording.decay_products = recording.products * 0.5
    recording.decay_norm2 = recording.theta_norm2 * 0.25
    rows, blocks, *_ = map(pq.read_table, recording.to_parquet(tmp_path))
    same(rows, "decay_product", recording.decay_products)
    same(blocks, "decay_norm2", recording.decay_norm2)
    assert "gradient_product" not in rows.column_names


def test_one_file_holds_the_products(recording: Recording, tmp_path: Path) -> None:
    assert recording.to_parquet(tmp_path / "here" / "mine.parquet") == [tmp_path / "here" / "mine.parquet"]
    same(pq.read_table(tmp_path / "here" / "mine.parquet"), "product", recording.products)


def test_what_is_there_is_replaced_only_when_asked(recording: Recording, tmp_path: Path) -> None:
    recording.to_parquet(tmp_path)
    with pytest.raises(OutputError, match="overwrite=True"):
        recording.to_parquet(tmp_path)
    recording.to_parquet(tmp_path, overwrite=True)


@pytest.mark.parametrize("failing", ["rows", "metrics"])
def test_all_tables_or_none(
    recording: Recording, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    recording.to_parquet(tmp_path)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}

    def full(_: Recording) -> Any:
        raise OSError(28, "No space left on device")
        yield

    monkeypatch.setitem(subject._PIECES, failing, full)
    with pytest.raises(OutputError, match="No space left"):
        recording.to_parquet(tmp_path, overwrite=True)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_a_run_without_rows_makes_empty_tables(tmp_path: Path) -> None:
    writer = RecordingWriter(None)
    writer.write("segment", **ExplicitRun(np.zeros((0, 8)), SIZES, lr=np.zeros((0, 1))).segment())
    files = Recording.from_log(writer.log()).to_parquet(tmp_path)
    assert [pq.read_table(file).num_rows for file in files] == [0] * len(files)


def test_pieces_are_written_one_after_the_other(tmp_path: Path) -> None:
    n, n_blocks, lags = 1500, 50, 19
    writer = RecordingWriter(None)
    sizes = {f"b{b}": 1 for b in range(n_blocks - 1)}
    writer.write("segment", **ExplicitRun(np.zeros((0, 49)), sizes, lags=lags, lr=np.zeros((0, 1))).segment())
    recording = Recording.from_log(writer.log())
    rng = np.random.default_rng(0)
    recording.steps = recording.n_steps = np.arange(n)
    recording.segment = np.zeros(n, dtype=np.int64)
    recording.products = rng.normal(size=(n, n_blocks, lags + 1))
    before = pa.total_allocated_bytes()
    recording.to_parquet(tmp_path / "big.parquet")
    found = pq.ParquetFile(tmp_path / "big.parquet")
    assert found.metadata.num_rows == n * n_blocks * (lags + 1)
    assert found.metadata.num_row_groups == 6  # of 262 updates each
    # a piece of 2^18 rows holds 5 columns of 8 bytes and fewer: 10 MB, and as much for the encoder; 7 MB measured
    assert pa.default_memory_pool().max_memory() - before < 30e6
    same(found.read(columns=["product"]), "product", recording.products)


def test_the_command_shows_what_it_wrote(recording: Recording, tmp_path: Path) -> None:
    recording.save(tmp_path / "run")
    content = export_content(tmp_path / "run", tmp_path / "out")
    sizes = {Path(file["path"]).stem: file["rows"] for file in content["files"]}
    assert sizes == {"rows": 12 * 4 * 5, "blocks": 12 * 4, "updates": 12, "metrics": 4, "events": 1}
    json.dumps(content, allow_nan=False)
