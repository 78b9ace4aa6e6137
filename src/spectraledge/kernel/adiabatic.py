"""A_ker at one point of training, from the exact rate of the kernel."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spectraledge.kernel.losses import OutputLoss
from spectraledge.kernel.preconditioner import Preconditioner
from spectraledge.kernel.probe import OutputProbe
from spectraledge.kernel.rate import KernelRate, kernel_rate
from spectraledge.theory.adiabatic import kernel_adiabatic
from spectraledge.theory.kernel_spectrum import KernelGap, KernelSpectrum, kernel_gap, kernel_spectrum

Array = NDArray[np.float64]


@dataclass(frozen=True)
class KernelState:
    """A kernel, its spectrum and gap, how fast it changes, and A_ker.

    Attributes:
        value: A_ker = ||K_l'||_F / (lr g_K^2).
        gap: Where the outlying eigenvalues end, and g_K.
        spectrum: Eigenpairs of K_l.
        rate: K_l and its change per optimizer step.
    """

    value: float
    gap: KernelGap
    spectrum: KernelSpectrum
    rate: KernelRate


def measure_adiabatic(
    probe: OutputProbe,
    velocity: Preconditioner,
    lr: float,
    *,
    loss: OutputLoss,
    preconditioner: Preconditioner | None = None,
    position: int | None = None,
    chunk_size: int = 32,
) -> KernelState:
    """A_ker of the loss-weighted kernel now, along a velocity per optimizer step.

    Args:
        probe: f on the probe inputs.
        velocity: Move per optimizer step, from ``gradient_velocity`` or a recorded update over its steps.
        lr: Learning rate of the step.
        loss: L of the outputs; without it A_ker would carry the unit of the loss.
        preconditioner: The optimizer's, by parameter name.
        position: Imposes k_K, for instance that of an earlier snapshot.
        chunk_size: As in ``kernel_rate``.

    Returns:
        The state. Source: arXiv:2603.28964v1 (A from the kernel's rate), derived (K_l).
    """
    rate = kernel_rate(probe, velocity, preconditioner=preconditioner, loss=loss, chunk_size=chunk_size)
    eps = float(np.finfo(np.float64).eps)
    if next(iter(probe.parameters.values())).element_size() < 8:
        eps = 2.0**-40  # a Jacobian rounded in float32: some 1e-6 of J, so 1e-12 of K
    spectrum = kernel_spectrum(rate.kernel, resolution=eps)
    gap = kernel_gap(spectrum.eigenvalues, floor=spectrum.floor, position=position)
    value = float(kernel_adiabatic(rate.rate, gap.width, lr))
    return KernelState(value, gap, spectrum, rate)
