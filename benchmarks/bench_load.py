"""Time to load a long recording and to take the spectra of all its windows.

    python benchmarks/bench_load.py [--rows 10000] [--blocks 50] [--lags 19]

Makes a recording of random products in a temporary folder. The products are those of no updates at all: reading
does not look at their values.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

from spectraledge.recording import RecordingWriter, load


def make(folder: Path, n_rows: int, n_blocks: int, lags: int) -> None:
    """Write a recording of ``n_rows`` updates whose window Grams are those of noise."""
    rng = np.random.default_rng(0)
    with RecordingWriter(folder) as writer:
        names = [f"layers.{b}.weight" for b in range(n_blocks)]
        info = [{"name": name, "n_parameters": 1000} for name in names]
        writer.write(
            "segment", segment=0, step=0, reason="start", blocks=names, block_info=info, lags=lags, momentum=None
        )
        for t in range(n_rows):
            products = rng.normal(scale=0.03, size=(n_blocks, lags + 1))
            products[:, 0] = 1.0
            products[:, min(t, lags) + 1 :] = np.nan
            ones = np.ones(n_blocks)
            writer.write(
                "row",
                t=t,
                segment=0,
                step=10 * (t + 1),
                n_steps=10,
                lr_sum=np.ones(1),
                products=products,
                theta_dot=ones,
                theta_norm2=ones,
                unchanged=0 * ones,
                nonfinite=0 * ones,
                flags=[],
                seconds=0.0,
            )


def main() -> None:
    """Make, load, derive; print the seconds of each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--blocks", type=int, default=50)
    parser.add_argument("--lags", type=int, default=19)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clock = time.perf_counter()
        make(folder, options.rows, options.blocks, options.lags)
        size = (folder / "recording.jsonl").stat().st_size
        print(f"write {time.perf_counter() - clock:6.2f} s  {size / 1e6:.0f} MB, {size / options.rows:.0f} B a row")
        clock = time.perf_counter()
        recording = load(folder)
        print(f"load  {time.perf_counter() - clock:6.2f} s  {recording}")
        clock = time.perf_counter()
        spectra = recording.spectra(window=min(10, options.lags + 1))
        print(f"spectra {time.perf_counter() - clock:4.2f} s  {len(spectra.steps)} windows of {spectra.window}")
        clock = time.perf_counter()
        spectra.gap().p_value  # noqa: B018  (computed on access)
        print(f"p-value {time.perf_counter() - clock:4.2f} s")


if __name__ == "__main__":
    main()
