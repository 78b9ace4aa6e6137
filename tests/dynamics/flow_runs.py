"""Recordings whose flow is known: explicit updates without probes, and quadratic runs with them."""

from __future__ import annotations

import numpy as np

import spectraledge as se
from spectraledge.recording import ProbeRecord, Recording, RecordingWriter
from spectraledge.recording.probe import probe_records


def recording_of(
    updates: np.ndarray, lags: int = 19, seam_at: int | None = None, probes: tuple[ProbeRecord, ...] = ()
) -> Recording:
    """A recording of (T, P) updates, one step each."""
    writer = RecordingWriter(None)
    writer.write(
        "segment",
        segment=0,
        step=0,
        reason="start",
        blocks=["a"],
        block_info=[{"name": "a", "n_parameters": updates.shape[1], "group": 0}],
        lags=lags,
        update_dtype="float64",
        groups=[{"optimizer": 0, "class": "SGD", "lr": 0.1, "weight_decay": 0.0}],
        momentum=None,
        every=1,
        n_parameters=updates.shape[1],
    )
    theta = np.cumsum(updates, axis=0)
    for t, (now, delta) in enumerate(zip(theta, updates)):
        first = seam_at if seam_at is not None and t >= seam_at else 0
        products = np.full((1, lags + 1), np.nan)
        reach = min(lags, t - first)
        products[0, : reach + 1] = updates[t - reach : t + 1][::-1] @ delta
        writer.write(
            "row",
            t=t,
            segment=0,
            step=t + 1,
            n_steps=1,
            lr_sum=np.array([0.1]),
            products=products,
            theta_dot=np.array([now @ delta]),
            theta_norm2=np.array([now @ now]),
            unchanged=np.zeros(1),
            nonfinite=np.zeros(1),
            flags=["seam"] if t == seam_at else [],
            seconds=0.0,
        )
    for probe in probes:
        for kind, fields in probe_records(probe, 0):
            writer.write(kind, **fields)
    writer.write("close", step=len(updates))
    return Recording.from_log(writer.log())


def descent(**overrides) -> Recording:
    """Gradient descent with weight decay on three curvatures, probed at every snapshot."""
    settings = {
        "optimizer": "gd",
        "eigenvalues": "0.1,0.4,1.5",
        "lr": 0.02,
        "weight_decay": 0.2,
        "steps": 400,
        "optimum": 0.0,
        **overrides,
    }
    return se.run(
        "quadratic",
        seed=1,
        settings=settings,
        every=5,
        window=5,
        probe_every=5,
        probe={"modes": 4, "span": 0, "random": 0, "next_gradients": False},
    )


def random_walk() -> Recording:
    """SGD without curvature: every update is noise, and the flow's coefficients are known to be 0."""
    return se.run(
        "quadratic",
        seed=2,
        settings={"optimizer": "sgd", "eigenvalues": "0", "repeat": 40, "noise": 1.0, "lr": 0.02, "steps": 400},
        every=1,
        window=10,
        probe_every=4,
        probe={"modes": 4, "span": 0, "random": 0, "next_gradients": False},
    )


def crossing(stiff: float = 1.5, soft: float = 0.5, lead: float = 1.1, measured: float = 1.0) -> Recording:
    """Two directions that decay at eta * curvature a step, the stiff one ahead until they cross.

    The second one alternates in sign, so that over an even window their time courses are orthogonal and the levels
    really cross. Curvatures are scaled by 0.004: decay within a window makes the time courses overlap.
    Probes claim ``measured`` times the curvature.
    """
    n, window, lags, slow, eta = 280, 6, 11, 0.004, 0.1
    t = np.arange(n)
    rows = np.zeros((n, 3))
    rows[:, 0] = lead * np.exp(-eta * slow * stiff * t)
    rows[:, 1] = np.exp(-eta * slow * soft * t) * (-1.0) ** t
    probes = []
    for end in range(window - 1, n, 2):
        _, _, v = np.linalg.svd(rows[end - window + 1 : end + 1], full_matrices=False)
        h = measured * slow * (v[:2, :2] ** 2 @ np.array([stiff, soft]))
        nothing = np.full((2, 1, lags + 1), np.nan)
        probes.append(
            ProbeRecord(
                step=end + 1,
                t=end,
                segment=0,
                blocks=("a",),
                window=window,
                train_loss=1.0,
                val_loss=np.nan,
                vectors=(),
                gradient_products=nothing[:0],
                gradient_gram=np.full((1, 1, 1), np.nan),
                directions=("mode/1", "mode/2"),
                coefficients=np.zeros((2, window)),
                curvature=h,
                preconditioned_curvature=h,
                hessian_products=nothing,
                preconditioned_products=nothing,
                hessian_norm2=np.zeros(2),
                eigenvalues=np.zeros(0),
                eigenvalue_errors=np.zeros(0),
                preconditioned_eigenvalues=np.zeros(0),
                preconditioned_eigenvalue_errors=np.zeros(0),
                replicate_products=None,
                replicate_gram=None,
                method="exact",
                evaluations=0.0,
                seconds=0.0,
            )
        )
    return recording_of(rows, lags, probes=tuple(probes))
