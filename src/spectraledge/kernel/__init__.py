"""The empirical tangent kernel of a model: exact, loss-weighted, its rate of change, and what it predicts.

The model is only looked at: parameters, gradients, buffers, training flags and torch's random generators are as
before after every call.
"""

from __future__ import annotations

from spectraledge.kernel.adiabatic import KernelState, measure_adiabatic
from spectraledge.kernel.compress import Compressed, Compression, compress, compressibility
from spectraledge.kernel.jacobian import jacobian, jacobian_rows
from spectraledge.kernel.losses import OutputLoss, cross_entropy, from_function, squared_error
from spectraledge.kernel.ntk import kernel_direction, kernel_matrix, residual, top_spectrum
from spectraledge.kernel.preconditioner import adam_preconditioner
from spectraledge.kernel.probe import OutputProbe
from spectraledge.kernel.rate import KernelRate, differential_ntk, gradient_velocity, kernel_rate

__all__ = [
    "Compressed",
    "Compression",
    "KernelRate",
    "KernelState",
    "OutputLoss",
    "OutputProbe",
    "adam_preconditioner",
    "compress",
    "compressibility",
    "cross_entropy",
    "differential_ntk",
    "from_function",
    "gradient_velocity",
    "jacobian",
    "jacobian_rows",
    "kernel_direction",
    "kernel_matrix",
    "kernel_rate",
    "measure_adiabatic",
    "residual",
    "squared_error",
    "top_spectrum",
]
