"""How fast the tangent kernel changes along a direction of motion, exactly.

K' = J' P^-1 J^T + J P^-1 J'^T with J' the derivative of J along the velocity: a forward-mode pass inside the
backward one, so no differences of kernels are taken.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from spectraledge.errors import SettingError
from spectraledge.kernel.jacobian import gram_of_rows, jacobian_rows, jvp, rows_of, vjp
from spectraledge.kernel.losses import OutputLoss, apply_blocks
from spectraledge.kernel.ntk import precise, weighted
from spectraledge.kernel.preconditioner import Preconditioner, checked, divided
from spectraledge.kernel.probe import OutputProbe, Parameters, as_array, check_like, require_finite

Array = NDArray[np.float64]


def gradient_velocity(
    train_loss: OutputProbe, lr: float, *, preconditioner: Preconditioner | None = None
) -> dict[str, torch.Tensor]:
    """v = -lr P^-1 dL/dtheta: the move of one step of (preconditioned) gradient descent.

    Args:
        train_loss: OutputProbe whose single output is the training loss, mean over the training batch.
        lr: Learning rate; with momentum beta in torch's SGD the effective one, lr / (1 - beta).
        preconditioner: As in ``kernel_matrix``; frozen.

    Returns:
        Tensors by parameter name [parameter per optimizer step].

    Raises:
        SettingError: If the probe has more than one output.
    """
    with train_loss.quiet():
        out, pullback = vjp(train_loss, train_loss.parameters)
        if out.numel() != 1:
            raise SettingError(
                f"train_loss must have one output, the loss; got {out.numel()}. Return the mean over the batch."
            )
        require_finite(out, "loss")
        gradient = pullback(torch.ones_like(out))[0]
    steps = divided(gradient, checked(train_loss, preconditioner))
    return {name: (-lr * t).detach() for name, t in steps.items()}


@dataclass(frozen=True)
class KernelRate:
    """A kernel and its rate of change at one point of training.

    Attributes:
        kernel: (N, N) K, or K_l where a loss was given.
        rate: (N, N) its change per optimizer step, to first order in the velocity.
        outputs_rate: (N,) J v, the change of the outputs per optimizer step.
    """

    kernel: Array
    rate: Array
    outputs_rate: Array


def kernel_rate(
    probe: OutputProbe,
    velocity: Preconditioner,
    *,
    preconditioner: Preconditioner | None = None,
    loss: OutputLoss | None = None,
    chunk_size: int = 32,
) -> KernelRate:
    """K' = J' P^-1 J^T + J P^-1 J'^T along ``velocity``; with a loss, also the terms from B^(1/2) changing.

    Source: arXiv:2603.28964v1 names K'; this form (a JVP of J) is derived, standard. P is held fixed.

    Args:
        probe: f, N outputs.
        velocity: Tensors by parameter name: from :func:`gradient_velocity`, or a recorded update divided by its
            optimizer steps.
        preconditioner: As in ``kernel_matrix``.
        loss: As in ``kernel_matrix``.
        chunk_size: Outputs differentiated at once. J and J' are both kept: 2 N P numbers.

    Returns:
        Kernel and rate, float64.

    Raises:
        SettingError: If velocity or preconditioner do not fit the parameters.
        DataError: If the outputs are not finite.
    """
    v = check_like(probe, velocity, "velocity")
    p = checked(probe, preconditioner)

    def with_rate(theta: Parameters) -> tuple[torch.Tensor, torch.Tensor]:
        return jvp(probe, theta, v)

    with probe.quiet():
        (out, out_rate), pullback = vjp(with_rate, probe.parameters)
        require_finite(out, "outputs")
        none = torch.zeros_like(out)
        j = rows_of(lambda e: pullback((e, none)), out, probe.parameters, chunk_size)
        j_rate = rows_of(lambda e: pullback((none, e)), out, probe.parameters, chunk_size)
    kernel = as_array(gram_of_rows(j, j, p))
    cross = as_array(gram_of_rows(j_rate, j, p))
    rate = cross + cross.T
    if loss is not None:
        f, f_rate = precise(out).reshape(probe.shape), precise(out_rate).reshape(probe.shape)
        root, root_rate = loss.root(f), loss.root_rate(f, f_rate)
        mixed = apply_blocks(root, apply_blocks(root_rate, kernel).T)  # root K root'
        rate = mixed + mixed.T + weighted(rate, root)
        kernel = weighted(kernel, root)
    return KernelRate(kernel, 0.5 * (rate + rate.T), as_array(out_rate))


def differential_ntk(
    probe: OutputProbe,
    train_outputs: OutputProbe | None = None,
    *,
    preconditioner: Preconditioner | None = None,
    chunk_size: int = 32,
) -> Array:
    """dH[a, b, c] = sum d2f_a/dtheta_m dtheta_n df_b/dtheta_m df_c/dtheta_n: a, b probe outputs, c training ones.

    Under gradient flow ``K'_ab = -lr sum_c (dH_abc + dH_bac) r_c`` with r_c = dL/df_c at the training outputs,
    its 1/n included. Costs one JVP of J per training output: for small sets; :func:`kernel_rate` gives the sum
    directly. Source: standard definition (Roberts, Yaida and Hanin 2022); the sum over training outputs is
    derived.

    Args:
        probe: f, N outputs.
        train_outputs: OutputProbe of M outputs on the training batch, same parameters; None: the probe itself.
        preconditioner: As in ``kernel_matrix``: P^-1 stands in both sums.
        chunk_size: Outputs differentiated at once.

    Returns:
        (N, N, M) float64.
    """
    train = probe if train_outputs is None else train_outputs
    p = checked(probe, preconditioner)
    j = jacobian_rows(probe, chunk_size=chunk_size)
    columns = check_rows(probe, train, chunk_size)
    n_train = next(iter(columns.values())).shape[0]
    out = np.empty((probe.n_outputs, probe.n_outputs, n_train))
    for c in range(n_train):
        v = {name: columns[name][c].reshape(t.shape) for name, t in probe.parameters.items()}
        v = divided(v, p)

        def derivative(theta: Parameters, v: Parameters = v) -> torch.Tensor:
            return jvp(probe, theta, v)[1]

        with probe.quiet():
            value, pullback = vjp(derivative, probe.parameters)
            j_rate = rows_of(pullback, value, probe.parameters, chunk_size)
        out[:, :, c] = as_array(gram_of_rows(j_rate, j, p))
    return out


def check_rows(probe: OutputProbe, train: OutputProbe, chunk_size: int) -> Parameters:
    """The training outputs' Jacobian, once its parameters are those of the probe."""
    check_like(probe, train.parameters, "train_outputs")
    return jacobian_rows(train, chunk_size=chunk_size)
