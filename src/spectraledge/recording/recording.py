"""The recording of a run as arrays, and everything that is derived from them without the model."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import SettingError
from ..theory.overlap import mode_overlaps
from ..theory.sketch import relative_error
from ..theory.spectrum import gram_spectrum
from . import derive
from .build import build_fields
from .compare import same
from .event import Event
from .log import Log, ReadReport, read_log
from .merge import merge_blocks
from .probe import ProbeRecord
from .row_errors import window_errors
from .save import save_recording
from .select import BlockChoice, block_label, select_blocks
from .spectra import Spectra, momentum_correlation
from .summary import summarise
from .table import make_table, write_csv
from .weights import WeightSpectra

NORMALISATIONS = ("raw", "row", "lr")
_WALL_CLOCK = ("seconds", "time", "report", "path", "closed")


@dataclass(eq=False)
class Recording:
    """What a run leaves behind: inner products of its parameter updates, and what was logged beside them.

    T updates, B blocks ("all", the sum of the rest, first), L lags, G learning-rate groups. Update t leads
    from the snapshot at ``steps[t] - n_steps[t]`` to the one at ``steps[t]``. NaN stands where a product is
    not available: before the start, across a seam, for an update that was lost or not finite.

    Attributes:
        steps: (T) optimizer step that ends each update.
        n_steps: (T) optimizer steps that it took.
        blocks: (B) names.
        products: (T, B, L+1) <delta_t, delta_{t-l}> [parameter^2].
        theta_dot: (T, B) <theta_t, delta_t> [parameter^2].
        theta_norm2: (T, B) ||theta_t||^2 [parameter^2].
        lr_sum: (T, G) sum of the learning rates of the steps.
        decay_products: (T, B, L+1) <delta_wd_t, delta_{t-l}>, delta_wd the part of the update made by
            decoupled weight decay; None where not measured.
        decay_norm2: (T, B) ||delta_wd_t||^2, or None.
        gradient_products: (T, B, L+1) <gradient at theta_t, delta_{t-l}>, or None.
        unchanged: (T, B) entries of the update that are exactly 0.
        nonfinite: (T, B) entries of the snapshot theta_t that are not finite.
        flags: (T) remarks on each update: "lost", "seam", and what the recorder noted.
        seconds: (T) time spent on recording.
        time: (T) wall clock [s since 1970].
        segment: (T) index in ``meta["segments"]``: a segment is a stretch of unchanged structure.
        metrics: Name to (steps, values).
        events: What detectors reported.
        probes: Gradients and curvature measured at some of the snapshots, in order.
        weights: Singular values of weight matrices, a baseline; not to be confused with those of updates.
        meta: Free description of the run, and "segments", "block_info", "created", "package_version".
        report: What reading the file found.
        path: The file it was read from.
        closed: Whether the run ended in order.
        error_norm2: (T, B) upper estimate of the squared norm of the error that each update carries over the
            rounding of ``update_eps`` [parameter^2]: from updates stored in bfloat16, or from checkpoints in half
            precision. None where there is none.
    """

    steps: np.ndarray
    n_steps: np.ndarray
    blocks: list[str]
    products: np.ndarray
    theta_dot: np.ndarray
    theta_norm2: np.ndarray
    lr_sum: np.ndarray
    decay_products: np.ndarray | None
    decay_norm2: np.ndarray | None
    gradient_products: np.ndarray | None
    unchanged: np.ndarray
    nonfinite: np.ndarray
    flags: list[list[str]]
    seconds: np.ndarray
    time: np.ndarray
    segment: np.ndarray
    metrics: dict[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    probes: list[ProbeRecord] = field(default_factory=list)
    weights: WeightSpectra = field(default_factory=WeightSpectra)
    meta: dict[str, Any] = field(default_factory=dict)
    report: ReadReport = field(default_factory=ReadReport)
    path: Path | None = None
    closed: bool = False
    error_norm2: np.ndarray | None = None

    @classmethod
    def from_log(cls, log: Log) -> Recording:
        """The recording that a log tells.

        Raises:
            DataError: If next to none of its rows are there.
        """
        return cls(**build_fields(log), path=log.path)

    @property
    def n_updates(self) -> int:
        """T."""
        return len(self.steps)

    @property
    def lags(self) -> int:
        """L, the largest lag; windows hold up to L+1 updates."""
        return self.products.shape[2] - 1

    @property
    def block_info(self) -> dict[str, dict[str, Any]]:
        """What is known of each block: parameters, layer, kind."""
        return self.meta.get("block_info", {})

    def __repr__(self) -> str:
        sizes = f"{self.n_updates} updates, {len(self.blocks)} blocks, {self.lags} lags"
        return f"Recording({sizes}, path={self.path})"

    def __eq__(self, other: object) -> bool:
        return self.equals(other) if isinstance(other, Recording) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def equals(self, other: Recording) -> bool:
        """Whether all but wall-clock fields are equal to the bit, NaN being equal to NaN."""
        mine, theirs = ({k: v for k, v in vars(r).items() if k not in _WALL_CLOCK} for r in (self, other))
        for fields in (mine, theirs):
            fields["meta"] = {k: v for k, v in fields["meta"].items() if k != "created"}
            fields["weights"] = vars(fields["weights"])
            fields["probes"] = [{k: v for k, v in vars(p).items() if k != "seconds"} for p in fields["probes"]]
        return same(mine, theirs)

    def band(self, block: BlockChoice = "all", *, stride: int = 1, normalisation: str = "raw") -> np.ndarray:
        """Products between the rows of one block or union, each row adding up ``stride`` updates.

        Args:
            block: A name, several names, a pattern such as ``"layer.0*"``, or a rule
                ``(name, info) -> bool``.
            stride: Updates m in a row; row i holds updates i*m..i*m+m-1.
            normalisation: "raw"; "row" divides each row by its norm; "lr" by its sum of learning rates.

        Returns:
            (T // m, (L+1) // m) array.

        Raises:
            SettingError: If a block, the stride or the normalisation cannot be.
        """
        chosen = select_blocks(block, self.blocks, self.block_info)
        if normalisation not in NORMALISATIONS:
            raise SettingError(
                f"normalisation must be one of {', '.join(NORMALISATIONS)}; got {normalisation!r}. "
                '"raw" keeps the updates as they are.'
            )
        if normalisation == "lr":
            return self._lr_band(chosen, stride)
        band = derive.coarsen(self.products[:, chosen].sum(axis=1), self.n_steps, stride)
        return derive.row_normalise(band) if normalisation == "row" else band

    def gram(
        self, window: int = 10, stride: int = 1, block: BlockChoice = "all", normalisation: str = "raw"
    ) -> tuple[np.ndarray, np.ndarray]:
        """Gram matrices of all windows.

        Args:
            window: Rows W in a window; window * stride is at most L+1.
            stride: Updates in a row.
            block: As in ``band``.
            normalisation: As in ``band``.

        Returns:
            Steps (N) at the end of the windows, and (N, W, W) products from the oldest row to the newest.

        Raises:
            SettingError: If the band is too narrow for the window, or the window below 2.
            DataError: If there are fewer updates than one window needs.
        """
        derive.check_window(window, stride, self.n_updates, self.lags)
        band = self.band(block, stride=stride, normalisation=normalisation)
        return self._row_steps(stride)[window - 1 :], derive.window_grams(band, window)

    def cross_gram(
        self,
        window: int,
        lag: int,
        stride: int = 1,
        block: BlockChoice = "all",
        normalisation: str = "raw",
    ) -> tuple[np.ndarray, np.ndarray]:
        """Products between the rows of each window and of the window ``lag`` rows before it.

        Args:
            window: W.
            lag: Distance in rows; W and more make the windows disjoint. stride * (window + lag) is at most
                L+1.
            stride: Updates in a row.
            block: As in ``band``.
            normalisation: As in ``band``.

        Returns:
            Steps (N) at the end of the later windows, and (N, W, W): [n, i, j] = <row i of the later window,
            row j of the earlier one>.

        Raises:
            SettingError: If the band is too narrow.
            DataError: If there are too few updates.
        """
        derive.check_window(window, stride, self.n_updates, self.lags, lag=lag)
        band = self.band(block, stride=stride, normalisation=normalisation)
        return self._row_steps(stride)[window - 1 + lag :], derive.cross_grams(band, window, lag)

    def spectra(
        self, window: int = 10, stride: int = 1, block: BlockChoice = "all", normalisation: str = "raw"
    ) -> Spectra:
        """Spectra of all windows; arguments and errors as in ``gram``."""
        derive.check_window(window, stride, self.n_updates, self.lags)
        band = self.band(block, stride=stride, normalisation=normalisation)
        gram = derive.window_grams(band, window)
        chosen = select_blocks(block, self.blocks, self.block_info)
        error2 = window_errors(self, chosen, window, stride, normalisation)
        spectrum = gram_spectrum(gram, update_eps=self._subtraction_eps, error_norm2=error2)
        rows = len(band)
        n_steps = self.n_steps[: rows * stride].reshape(rows, stride).sum(axis=1)
        return Spectra(
            steps=self._row_steps(stride)[window - 1 :],
            singular_values=spectrum.singular_values,
            time_profiles=spectrum.time_profiles,
            floor=spectrum.floor,
            resolved=spectrum.resolved,
            gram=gram,
            window=window,
            stride=stride,
            block=block_label(block),
            normalisation=normalisation,
            row_correlation=momentum_correlation(self._momentum()[stride - 1 :: stride], n_steps, window),
            error=np.sqrt(np.broadcast_to(error2, len(gram))),
            relative_error=relative_error(window, self.sketch_size),
            _band=band,
        )

    def overlaps(
        self, window: int = 10, lag: int = 1, block: BlockChoice = "all", stride: int = 1
    ) -> tuple[np.ndarray, np.ndarray]:
        """Overlaps between the modes of windows ``lag`` rows apart.

        At lag 1 the windows share W-1 rows and overlap in noise, too; at lag >= W they share none.

        Args:
            window: W.
            lag: Distance in rows; stride * (window + lag) is at most L+1.
            block: As in ``band``.
            stride: Updates in a row.

        Returns:
            Steps (N) at the end of the later windows, and (N, W, W): [n, j, k] = <v_j(t), v_k(t - lag)>, NaN
            where one of the two is not resolved. Signs are arbitrary.

        Raises:
            SettingError: If the band is too narrow.
            DataError: If there are too few updates.
        """
        steps, cross = self.cross_gram(window, lag, stride, block)
        spectra = self.spectra(window, stride, block)
        s, u, floor = spectra.singular_values, spectra.time_profiles, spectra.floor
        n = len(steps)
        return steps, mode_overlaps(cross, u[lag:], s[lag:], u[:n], s[:n], floor=floor[lag:], other_floor=floor[:n])

    def theta_band(self, block: BlockChoice = "all") -> np.ndarray:
        """(T, L+1) <theta_t, delta_{t-l}> [parameter^2], derived from lag 0 and the products."""
        chosen = select_blocks(block, self.blocks, self.block_info)
        return derive.theta_band(self.products[:, chosen].sum(axis=1), self.theta_dot[:, chosen].sum(axis=1))

    def theta_overlap(
        self, window: int = 10, block: BlockChoice = "all", stride: int = 1
    ) -> tuple[np.ndarray, np.ndarray]:
        """How far the modes of each window point along the parameters themselves.

        Returns:
            Steps (N), and (N, W) cos(v_j, theta_t) at the window's end; NaN where a mode is not resolved. The
            sign is that of v_j, hence arbitrary.

        Raises:
            SettingError: If the band is too narrow for the window.
            DataError: If there are fewer updates than one window needs.
        """
        spectra = self.spectra(window, stride, block)
        chosen = select_blocks(block, self.blocks, self.block_info)
        ends = np.arange(len(spectra.steps) + window - 1)[window - 1 :] * stride + stride - 1
        on_updates = self.theta_band(block)[ends, : window * stride]  # newest first
        on_rows = on_updates.reshape(len(ends), window, stride).sum(axis=2)[:, ::-1]
        theta_norm = np.sqrt(self.theta_norm2[:, chosen].sum(axis=1)[ends])
        sigma = np.where(spectra.resolved, spectra.singular_values, np.nan)
        along = np.einsum("naj,na->nj", spectra.time_profiles, on_rows) / sigma
        return spectra.steps, along / np.where(theta_norm > 0, theta_norm, np.nan)[:, None]

    @property
    def update_eps(self) -> float:
        """Largest relative error of a recorded update, in any block: ``||e_t|| / ||delta_t||`` at most.

        2^-24 for float32 subtraction, 2^-53 for float64; where updates carry a larger measured error
        (``error_norm2``), its largest share of an update. ``spectra`` takes each window's own instead.
        """
        if self.error_norm2 is None:
            return self._subtraction_eps
        norm2 = self.products[:, :, 0]
        known = (norm2 > 0) & np.isfinite(self.error_norm2)
        share = np.sqrt(np.max(self.error_norm2[known] / norm2[known], initial=0.0))
        return self._subtraction_eps + float(share)

    @property
    def _subtraction_eps(self) -> float:
        dtypes = {str(segment.get("update_dtype", "float32")) for segment in self.meta.get("segments", [])}
        return 2.0**-53 if dtypes == {"float64"} else 2.0**-24

    @property
    def sketch_size(self) -> int | None:
        """Smallest size of the sketches the updates were recorded from; None where they were kept whole."""
        sizes = [segment.get("sketch_size") for segment in self.meta.get("segments", [])]
        return min((size for size in sizes if type(size) is int and size > 0), default=None)

    @property
    def seams(self) -> np.ndarray:
        """Indices of updates that do not join to the one before them; the first update is not counted."""
        if self.lags < 1 or self.n_updates < 2:
            return np.empty(0, dtype=np.int64)
        seam = np.array(["seam" in flags for flags in self.flags[1:]]) | (np.diff(self.segment) != 0)
        return 1 + np.flatnonzero(seam)

    def summary(self) -> dict[str, Any]:
        """What there is, in plain types: sizes, steps, blocks, metrics, damage."""
        return summarise(self)

    def table(self, kind: str = "windows", **options: Any) -> dict[str, Sequence[Any] | np.ndarray]:
        """Columns by name: ``kind`` is "windows", "rows" or "metrics"; options as in ``to_dataframe``."""
        return make_table(self, kind, **options)

    def to_dataframe(self, kind: str = "windows", **options: Any) -> Any:
        """A pandas table.

        Args:
            kind: "windows" (one row a window: spectrum and gaps), "rows" (one row an update) or "metrics"
                (step, name, value).
            **options: For windows: ``window=10, stride=1, block="all", normalisation="raw", p_value=False``;
                for rows: ``block="all"``.

        Raises:
            MissingDependencyError: If pandas is not installed.
        """
        from ..errors import require

        pandas: Any = require("pandas", "export")
        return pandas.DataFrame(self.table(kind, **options))

    def to_csv(self, path: str | os.PathLike[str], kind: str = "windows", **options: Any) -> Path:
        """Write the same table as a CSV file, without pandas; missing numbers are empty.

        Raises:
            OutputError: If the file cannot be written.
        """
        return write_csv(self.table(kind, **options), Path(path))

    def to_parquet(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> list[Path]:
        """Write everything measured and logged as Parquet tables; see ``recording.parquet.export``.

        Args:
            path: Folder for all tables, or a file ``*.parquet`` for the products alone.
            overwrite: Whether tables that are there may be replaced.

        Raises:
            OutputError: If a table is there already, or the place cannot be written.
            MissingDependencyError: If pyarrow is not installed.
        """
        from .parquet import export

        return export(self, path, overwrite=overwrite)

    def merged(self, into: Mapping[str, Sequence[str]] | None = None) -> Recording:
        """The same recording with blocks added up: smaller, to keep or to publish.

        Products of what is added up, their spectra and everything that is derived from them are as before; single
        blocks are gone. So are, with everything in "all", the learning rates of groups of their own.

        Args:
            into: Names of unions with the blocks of each; every block is in exactly one. Everything in "all" where
                not given.

        Raises:
            SettingError: If a block is missing, unknown or there twice, or a union mixes parameter groups.
        """
        return merge_blocks(self, into)

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
        """Write a clean log of this recording: no rewinds, no damage.

        Args:
            path: Run folder or file.
            overwrite: Whether a recording there may be replaced; it is replaced at once, whole.

        Raises:
            OutputError: If it cannot be written, or one is there already.
        """
        return save_recording(self, path, overwrite=overwrite)

    def _row_steps(self, stride: int) -> np.ndarray:
        return self.steps[stride - 1 :: stride]

    def _momentum(self) -> np.ndarray:
        """(T) momentum coefficient at each update, 0 for none."""
        betas = [segment.get("momentum") or 0.0 for segment in self.meta.get("segments", [])]
        return np.array(betas or [0.0])[self.segment]

    def _lr_band(self, chosen: list[int], stride: int) -> np.ndarray:
        """Each block's rows divided by its own sum of learning rates, then added up over blocks."""
        if self.lr_sum.shape[1] > 1 and self.blocks[chosen[0]] == "all" and len(self.blocks) > 1:
            chosen = list(range(1, len(self.blocks)))  # groups differ between blocks: scale first, add later
        total: np.ndarray | None = None
        for b in chosen:
            rows = derive.coarsen(self.products[:, b], self.n_steps, stride)
            lr = self._lr_of(b)[: len(rows) * stride].reshape(len(rows), stride).sum(axis=1)
            rows = derive.scale_rows(rows, 1 / np.where(lr > 0, lr, np.nan))
            total = rows if total is None else total + rows
        assert total is not None
        return total

    def _lr_of(self, b: int) -> np.ndarray:
        """(T) sum of learning rates that moved block b."""
        lr = self.lr_sum
        if lr.shape[1] == 0:
            raise SettingError(
                'normalisation="lr" needs recorded learning rates; there are none. Use "row" or "raw".'
            )
        if lr.shape[1] == 1 or np.array_equal(lr, np.broadcast_to(lr[:, :1], lr.shape), equal_nan=True):
            return lr[:, 0]
        name = self.blocks[b]
        group = self.block_info.get(name, {}).get("group")
        if type(group) is not int or not 0 <= group < lr.shape[1]:
            raise SettingError(
                f'normalisation="lr" must know the learning rate of block {name!r}; there are {lr.shape[1]} '
                'groups and none is stated for it. Choose blocks of one group, or use "row".'
            )
        return lr[:, group]


def load(path: str | os.PathLike[str]) -> Recording:
    """Read the recording of a run.

    Args:
        path: The run's folder, or its recording file. It may still be written to.

    Raises:
        DataError: If there is none, or it is of another format or a newer version.
    """
    return Recording.from_log(read_log(path))
