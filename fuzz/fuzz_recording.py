"""Recordings: python fuzz/fuzz_recording.py -max_total_time=60

Most inputs are records whose checksums are made right, as a wrong one ends the reading of a line at once.
"""

from __future__ import annotations

import warnings
import zlib

import atheris
import numpy as np
from harness import fuzz, one_line, scratch
from mutators import of_json_lines

with atheris.instrument_imports(include=["spectraledge.recording"]):
    from spectraledge.recording import RecordingWriter, load
from spectraledge.errors import DataError, SpectralEdgeError

FOLDER = scratch()
PATH = FOLDER / "recording.jsonl"


def target(data: bytes) -> None:
    """First byte below 64: a file. Else its lines are records, put behind their checksums."""
    content = data[1:]
    if data[:1] >= b"\x40":
        lines = content.split(b"\n")
        content = b"".join(b'{"crc32":"%08x","record":%b}\n' % (zlib.crc32(line), line) for line in lines)
    PATH.write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            recording = load(FOLDER)
        except DataError as error:
            one_line(error)
            return
        repr(recording)
        if recording.n_updates > 1000:
            return  # lost rows may be many; a hundred thousand spectra take their time
        try:
            recording.spectra(window=2)
        except SpectralEdgeError as error:
            one_line(error)


def seeds() -> list[bytes]:
    """A small recording with every kind of record."""
    rng = np.random.default_rng(0)
    with RecordingWriter(FOLDER / "made", header_meta={"window": 2}) as writer:
        for segment, blocks in enumerate((["a", "b"], ["a", "b", "c"])):
            writer.write(
                "segment", segment=segment, step=10 * segment, reason="start", blocks=blocks, block_info={},
                scheme="layer", lags=2, update_dtype="float32", parameter_dtypes=["float32"], groups=[],
                momentum=None, every=1, n_parameters=10,
            )  # fmt: skip
            for t in range(3):
                n = len(blocks)
                writer.write(
                    "row", t=3 * segment + t, segment=segment, step=10 * segment + t + 1, n_steps=1, flags=[],
                    products=rng.normal(size=(n, 3)) ** 2, theta_dot=rng.normal(size=n), theta_norm2=np.ones(n),
                    unchanged=np.zeros(n), nonfinite=np.zeros(n), seconds=0.1,
                )  # fmt: skip
                writer.write("metrics", step=10 * segment + t + 1, values={"loss": 1.5})
        writer.write(
            "event", step=12, block="all", event_kind="skipped", value=float("nan"), threshold=0.0, detector="x"
        )
        writer.write("close", step=13)
    whole = (FOLDER / "made" / "recording.jsonl").read_bytes()
    records = b"\n".join(line[len(b'{"crc32":"00000000","record":') : -1] for line in whole.splitlines())
    return [b"\0" + whole, b"\xff" + records, *(b"\xff" + record for record in records.split(b"\n")[:6])]


if __name__ == "__main__":
    fuzz(target, seeds(), ["-max_len=16384"], of_json_lines)
