"""How far the errors that rows carry can move the singular values of their windows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from .recording import Recording


def window_errors(
    recording: Recording, chosen: list[int], window: int, stride: int, normalisation: str
) -> np.ndarray | float:
    """Squared Frobenius norm of the error of each window's rows.

    A row that adds up m updates carries the sum of their errors, whose squared norm is at most m times the sum of
    theirs (Cauchy-Schwarz): equal updates are rounded alike, so no independence is assumed.

    Args:
        recording: With or without ``error_norm2``.
        chosen: Indices of the blocks of a union.
        window: W.
        stride: m.
        normalisation: "raw", "row" or "lr".

    Returns:
        (N) [parameter^2; divided like the rows where these are normalised], or 0 where no error is recorded.
    """
    if recording.error_norm2 is None:
        return 0.0
    if normalisation == "lr" and recording.lr_sum.shape[1] > 1 and recording.blocks[chosen[0]] == "all":
        chosen = list(range(1, len(recording.blocks))) or chosen  # blocks are divided each by its own rate
    total: np.ndarray | float = 0.0
    for b in chosen:
        # a row without one, of another segment, carries no error
        fine = np.nan_to_num(recording.error_norm2[:, b], nan=0.0, posinf=np.inf)
        rows = stride * fine[: len(fine) // stride * stride].reshape(-1, stride).sum(axis=1)
        if normalisation == "lr":
            lr = recording._lr_of(b)[: len(rows) * stride].reshape(len(rows), stride).sum(axis=1)
            rows = rows / np.where(lr > 0, lr, np.nan) ** 2
        total = total + rows
    if normalisation == "row":
        norm2 = recording.band([recording.blocks[b] for b in chosen], stride=stride)[:, 0]
        total = total / np.where(norm2 > 0, norm2, np.nan)
    return np.lib.stride_tricks.sliding_window_view(np.asarray(total), window).sum(axis=-1)
