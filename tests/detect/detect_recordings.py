"""Recordings of given updates, made without a file."""

from __future__ import annotations

import numpy as np

from spectraledge.detect.null_runs import band_of_rows
from spectraledge.recording import Recording


def recording_of(rows_by_block, *, lags=24, seam_at=None, metrics=None, every=5):
    """A recording of blocks of explicit updates {name: (T, P)}, "all" being their sum."""
    bands = np.stack([band_of_rows(rows, lags) for rows in rows_by_block.values()], axis=1)
    products = np.concatenate([bands.sum(axis=1, keepdims=True), bands], axis=1)
    n = len(products)
    flags = [[] for _ in range(n)]
    if seam_at is not None:
        flags[seam_at] = ["seam"]
        for lag in range(1, lags + 1):
            products[seam_at : seam_at + lag, :, lag] = np.nan
    b = products.shape[1]
    return Recording(
        steps=every * (1 + np.arange(n)),
        n_steps=np.full(n, every),
        blocks=["all", *rows_by_block],
        products=products,
        theta_dot=np.zeros((n, b)),
        theta_norm2=np.ones((n, b)),
        lr_sum=np.full((n, 1), 0.1),
        decay_products=None,
        decay_norm2=None,
        gradient_products=None,
        unchanged=np.zeros((n, b)),
        nonfinite=np.zeros((n, b)),
        flags=flags,
        seconds=np.zeros(n),
        time=np.zeros(n),
        segment=np.zeros(n, dtype=np.int64),
        metrics=metrics or {},
        meta={"segments": [{"update_dtype": "float64"}]},
    )
