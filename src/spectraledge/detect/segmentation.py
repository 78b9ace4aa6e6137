"""Change points of a whole series, seen from its end: where an offline method would cut it."""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike

from ..errors import DataError, SettingError, require

CostModel = Literal["l2", "rbf"]


def change_points(
    series: ArrayLike, *, penalty: float | None = None, n: int | None = None, model: CostModel = "l2", least: int = 10
) -> np.ndarray:
    """Rows at which a new stretch of a series begins, by penalised optimal segmentation (PELT, or exactly n cuts).

    Looks at the whole series, so it belongs to descriptions and not to anything that claims to warn. Overlapping
    windows make neighbouring values agree: take every W-th, or expect cuts in noise.

    Args:
        series: (N,) or (N, d), time first; rows with a NaN are left out.
        penalty: Cost of a cut; None takes ``2 s^2 d log(N)``, the Bayesian information criterion, with s the spread
            of successive differences (only for ``l2``; ``rbf`` needs a number).
        n: Number of cuts instead of a penalty.
        model: Cost of a stretch: ``l2`` (a change of the mean), ``rbf`` (of anything, by a Gaussian kernel).
        least: Smallest number of rows in a stretch.

    Returns:
        Rows of ``series``, ascending; empty where no cut pays.

    Raises:
        MissingDependencyError: Without ``ruptures``.
        SettingError: If the model is unknown or there is neither penalty nor n for a model without a default.
        DataError: If fewer than two stretches fit.
    """
    x = np.asarray(series, dtype=np.float64)
    x = x[:, None] if x.ndim == 1 else x
    rows = np.flatnonzero(np.isfinite(x).all(axis=1)) if x.ndim == 2 else np.empty(0, dtype=np.intp)
    if model not in get_args(CostModel):
        raise SettingError(f"model must be one of {', '.join(get_args(CostModel))}; got {model!r}. Use l2 for means.")
    if len(rows) < 2 * least:
        raise DataError(
            f"a series must hold at least 2 x {least} known rows to be cut; it has {len(rows)}. "
            "Use a smaller least, or a longer run."
        )
    if penalty is None and n is None:
        if model != "l2":
            raise SettingError(f"model {model!r} needs penalty or n; got neither. Pass n=1 for the best single cut.")
        steps = np.diff(x[rows], axis=0)
        # Half the squared difference of neighbours: the noise without the changes, as their median is robust.
        noise = 0.5 * np.square(1.4826 * np.median(np.abs(steps), axis=0))
        x = x / np.sqrt(np.where(noise > 0, noise, 1.0))
        penalty = 2.0 * x.shape[1] * float(np.log(len(rows)))
    ruptures: Any = require("ruptures", "detect")
    # Its kernels are in C, a hundred times faster than its general costs.
    method = ruptures.KernelCPD(kernel="linear" if model == "l2" else "rbf", min_size=least).fit(x[rows])
    ends = method.predict(pen=penalty) if n is None else method.predict(n_bkps=n)
    return rows[np.array(ends[:-1], dtype=np.intp)]
