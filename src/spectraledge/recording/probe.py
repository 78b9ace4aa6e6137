"""What a probe measured at one snapshot: gradients and curvature on the recorded updates, and what came next."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..theory.spectrum import gram_spectrum
from .line import Record, number

GRADIENTS = ("train", "val", "preconditioned", "direction")
"""Vectors that are multiplied with the updates: gradient of the training and of the validation loss, the
training gradient in the optimizer's metric P^-1, and the optimizer's own last direction P^-1 m."""


@dataclass(frozen=True, eq=False)
class ProbeRecord:
    """One probe. V vectors, D directions, B blocks of the segment it was made in, L lags of that segment.

    Every number is taken at theta_t, the end of update t, along the updates delta_{t-l}; l = 0 is the newest.
    NaN stands where something was not measured, or an update is not stored.

    Attributes:
        step: Optimizer step of the snapshot.
        t: Number of the update that ends there.
        segment: Index in ``meta["segments"]`` of the recording.
        blocks: (B) names of the columns.
        window: W of the window whose modes were probed.
        train_loss, val_loss: Losses at theta_t; NaN without a validation loss.
        vectors: (V) names, of ``GRADIENTS``.
        gradient_products: (V, B, L+1) <x, delta_{t-l}> [unit of x times parameter].
        gradient_gram: (V+1, V+1, B) products among the vectors, and with theta_t as the last.
        directions: (D) names: "mode/1".. leading modes, "span/i" random in their span, "random/i" random in
            parameter space.
        coefficients: (D, W) unit direction d = sum_l c_l delta_{t-l} [1/parameter]; NaN for "random".
        curvature: (D) d^T H d of the training loss [loss per parameter^2].
        preconditioned_curvature: (D) d^T P^-1 H d [per unit of learning rate]; NaN without a known P.
        hessian_products: (D, B, L+1) <H d, delta_{t-l}> [loss].
        preconditioned_products: (D, B, L+1) <P^-1 H d, delta_{t-l}>.
        hessian_norm2: (D) ||H d||^2.
        eigenvalues, eigenvalue_errors: Largest eigenvalues of H, and their error bounds.
        preconditioned_eigenvalues, preconditioned_eigenvalue_errors: Those of P^-1/2 H P^-1/2.
        replicate_products: (2, B, L+1) <delta', delta_{t-l}> of two independent continuations by as many steps
            as a snapshot takes, or None.
        replicate_gram: (B, 2, 2) products between these [parameter^2], or None.
        kernel: Of the tangent kernel K_l on a few outputs, in the optimizer's metric: "eigenvalues" [1 / (learning
            rate * step)], "position" and "width" of its gap, "rate" ||dK_l/dstep||_F along the newest update, "lr",
            and "adiabatic" A_ker = rate / (lr width^2) [no unit]; or None.
        method: "exact" or "difference": how products with H were made.
        evaluations: Cost in gradient evaluations.
        seconds: Time it took.
        next_step: Step of the next snapshot; -1 where that was not reached in one piece.
        next_train_loss, next_val_loss: Losses there; the training loss only where asked for.
        next_products: (V, B) <x, delta_{t+1}>: the same vectors, of theta_t, on the next update.
        next_gradient_products: (2, B) <gradient at theta_{t+1}, delta_{t+1}> of training and validation loss;
            NaN where not asked for.
    """

    step: int
    t: int
    segment: int
    blocks: tuple[str, ...]
    window: int
    train_loss: float
    val_loss: float
    vectors: tuple[str, ...]
    gradient_products: np.ndarray
    gradient_gram: np.ndarray
    directions: tuple[str, ...]
    coefficients: np.ndarray
    curvature: np.ndarray
    preconditioned_curvature: np.ndarray
    hessian_products: np.ndarray
    preconditioned_products: np.ndarray
    hessian_norm2: np.ndarray
    eigenvalues: np.ndarray
    eigenvalue_errors: np.ndarray
    preconditioned_eigenvalues: np.ndarray
    preconditioned_eigenvalue_errors: np.ndarray
    replicate_products: np.ndarray | None
    replicate_gram: np.ndarray | None
    method: str
    evaluations: float
    seconds: float
    kernel: dict[str, Any] | None = None
    next_step: int = -1
    next_train_loss: float = math.nan
    next_val_loss: float = math.nan
    next_products: np.ndarray | None = None
    next_gradient_products: np.ndarray | None = None

    def on_updates(self, vector: str) -> np.ndarray:
        """(L+1) products of one of ``vectors`` with the updates, over all blocks; NaN where not measured."""
        if vector not in self.vectors:
            return np.full(self.gradient_products.shape[-1], np.nan)
        return self.gradient_products[self.vectors.index(vector)].sum(axis=0)

    def dot(self, x: str, y: str) -> float:
        """Product of two of ``vectors``; "theta" names the parameters."""
        names = [*self.vectors, "theta"]
        if x not in names or y not in names:
            return math.nan
        return float(self.gradient_gram[names.index(x), names.index(y)].sum())

    def on_next(self, vector: str) -> float:
        """Product of one of ``vectors`` with the next update; NaN where that was not recorded."""
        if self.next_products is None or vector not in self.vectors:
            return math.nan
        return float(self.next_products[self.vectors.index(vector)].sum())

    def direction_kind(self, kind: str) -> np.ndarray:
        """Indices of the directions of a kind: "mode", "span" or "random"."""
        return np.array([i for i, name in enumerate(self.directions) if name.startswith(f"{kind}/")], dtype=np.int64)

    def hessian_in_modes(self, gram: np.ndarray, *, preconditioned: bool = False) -> np.ndarray:
        """v_i^T H v_j for all modes i of the window and the probed modes j.

        Args:
            gram: (W, W) of the probed window, oldest row first.
            preconditioned: v_i^T P^-1 H v_j instead.

        Returns:
            (W, J) [loss per parameter^2]; column j belongs to "mode/{j+1}".
        """
        products = self.preconditioned_products if preconditioned else self.hessian_products
        on_rows = products[self.direction_kind("mode")].sum(axis=1)[:, : self.window][:, ::-1]
        spectrum = gram_spectrum(gram)
        sigma = np.where(spectrum.resolved, spectrum.singular_values, np.nan)
        return (spectrum.time_profiles / sigma).T @ on_rows.T


_ARRAYS = {  # name: number of dimensions
    "gradient_products": 3,
    "gradient_gram": 3,
    "coefficients": 2,
    "curvature": 1,
    "preconditioned_curvature": 1,
    "hessian_products": 3,
    "preconditioned_products": 3,
    "hessian_norm2": 1,
    "eigenvalues": 1,
    "eigenvalue_errors": 1,
    "preconditioned_eigenvalues": 1,
    "preconditioned_eigenvalue_errors": 1,
}
_OPTIONAL = ("replicate_products", "replicate_gram")
_NEXT = ("next_products", "next_gradient_products")


def sound_probe(record: Record, segment: Record) -> bool:
    """Whether a record of kind "probe" has the shapes that its segment and its own names imply."""
    blocks, width = len(segment["blocks"]), segment["lags"] + 1
    vectors, directions, window = record.get("vectors"), record.get("directions"), record.get("window")
    if not (_names(vectors) and _names(directions) and type(window) is int and type(record.get("t")) is int):
        return False
    v, d = len(vectors or ()), len(directions or ())
    shapes: dict[str, tuple[int, ...]] = {
        "gradient_products": (v, blocks, width),
        "gradient_gram": (v + 1, v + 1, blocks),
        "coefficients": (d, window),
        "curvature": (d,),
        "preconditioned_curvature": (d,),
        "hessian_products": (d, blocks, width),
        "preconditioned_products": (d, blocks, width),
        "hessian_norm2": (d,),
    }
    optional = {"replicate_products": (2, blocks, width), "replicate_gram": (blocks, 2, 2)}
    return (
        all(isinstance(record.get(name), np.ndarray) and record[name].ndim == n for name, n in _ARRAYS.items())
        and all(record[name].shape == shape for name, shape in shapes.items())
        and all(record.get(name) is None or _shape(record[name]) == shape for name, shape in optional.items())
    )


def sound_outcome(record: Record, probe: Record) -> bool:
    """Whether a record of kind "outcome" fits the probe whose ``t`` it names."""
    v, blocks = probe["gradient_products"].shape[:2]
    shapes = {"next_products": (v, blocks), "next_gradient_products": (2, blocks)}
    return all(_shape(record.get(name)) == shape for name, shape in shapes.items())


def probe_from_records(record: Record, outcome: Record | None, segment: Record, place: int) -> ProbeRecord:
    """The probe that a sound record and its outcome tell."""
    fields: dict[str, Any] = {name: record[name] for name in _ARRAYS}
    fields |= {name: record.get(name) for name in _OPTIONAL}
    if outcome is not None:
        fields |= {name: outcome[name] for name in _NEXT}
        fields |= {name: number(outcome.get(name)) for name in ("next_train_loss", "next_val_loss")}
        fields["next_step"] = outcome["step"]
    return ProbeRecord(
        step=record["step"],
        t=record["t"],
        segment=place,
        blocks=tuple(segment["blocks"]),
        window=record["window"],
        train_loss=number(record.get("train_loss")),
        val_loss=number(record.get("val_loss")),
        vectors=tuple(record["vectors"]),
        directions=tuple(record["directions"]),
        method=str(record.get("method", "")),
        evaluations=number(record.get("evaluations")),
        seconds=number(record.get("seconds")),
        kernel=_kernel(record.get("kernel")),
        **fields,
    )


def probe_records(probe: ProbeRecord, segment: int) -> list[tuple[str, dict[str, Any]]]:
    """Kind and fields of the records that tell ``probe``; the inverse of ``probe_from_records``."""
    others = ("step", "t", "window", "train_loss", "val_loss", "method", "evaluations", "seconds", "kernel")
    names = (*_ARRAYS, *_OPTIONAL, *others)
    fields = {name: getattr(probe, name) for name in names}
    fields |= {"segment": segment, "vectors": list(probe.vectors), "directions": list(probe.directions)}
    found: list[tuple[str, dict[str, Any]]] = [("probe", fields)]
    if probe.next_products is not None:
        later = {name: getattr(probe, name) for name in (*_NEXT, "next_train_loss", "next_val_loss")}
        found.append(("outcome", {"t": probe.t, "step": probe.next_step, **later}))
    return found


def _kernel(value: Any) -> dict[str, Any] | None:
    if not isinstance(value, dict):
        return None
    return {name: x if isinstance(x, np.ndarray) else number(x) for name, x in value.items()}


def _names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def _shape(value: Any) -> tuple[int, ...] | None:
    return value.shape if isinstance(value, np.ndarray) else None
