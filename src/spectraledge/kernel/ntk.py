"""The empirical tangent kernel K = J P^-1 J^T of a probe, its loss-weighted form, and its eigenpairs."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from spectraledge.errors import SettingError
from spectraledge.kernel.jacobian import batched, gram_of_rows, jacobian_rows, pushforward, vjp
from spectraledge.kernel.lanczos import top_eigenpairs
from spectraledge.kernel.losses import OutputLoss, apply_blocks, root_residual
from spectraledge.kernel.preconditioner import Preconditioner, checked, divided
from spectraledge.kernel.probe import OutputProbe, Parameters, as_array, require_finite
from spectraledge.theory.kernel_spectrum import KernelSpectrum, kernel_spectrum

Array = NDArray[np.float64]
Method = Literal["auto", "jacobian", "products"]


def kernel_matrix(
    probe: OutputProbe,
    *,
    preconditioner: Preconditioner | None = None,
    loss: OutputLoss | None = None,
    method: Method = "auto",
    chunk_size: int = 32,
    max_bytes: int = 1 << 30,
) -> Array:
    """K = J P^-1 J^T, or K_l = B^(1/2) J P^-1 J^T B^(1/2) where a loss is given.

    K has the unit of (output / parameter)^2 and grows with the number of probe inputs. K_l is the one whose
    eigenvalues, times the learning rate, are relaxation rates per optimizer step; they do not depend on the unit of
    f, and repeating every input changes none of those that are not zero. arXiv:2603.28964v1 has K = J J^T; K_l is
    derived.

    Args:
        probe: f, N outputs.
        preconditioner: Positive tensors by parameter name (see ``adam_preconditioner``); None: the identity.
        loss: Gives B at the present outputs; None: B = 1.
        method: ``jacobian`` keeps J (N x P numbers), ``products`` keeps ``chunk_size`` rows at a time and costs
            one forward-mode pass per output more; ``auto`` takes the first where J fits in ``max_bytes``.
        chunk_size: Outputs differentiated at once.
        max_bytes: Bound on J for ``auto``.

    Returns:
        (N, N) symmetric, float64. J itself has the model's precision.

    Raises:
        SettingError: For an unknown method, a preconditioner that does not fit, or a loss that is not convex.
        DataError: If the outputs are not finite.

    >>> layer = torch.nn.Linear(2, 1, bias=False)
    >>> kernel_matrix(OutputProbe(layer, lambda model: model(torch.tensor([[1.0, 2.0], [0.0, 1.0]]))))
    array([[5., 2.],
           [2., 1.]])
    """
    if method not in get_args(Method):
        raise SettingError(f"method must be one of {', '.join(get_args(Method))}; got {method!r}. Use auto.")
    p = checked(probe, preconditioner)
    if method == "auto":
        size = next(iter(probe.parameters.values())).element_size()
        method = "jacobian" if probe.n_outputs * probe.n_parameters * size <= max_bytes else "products"
    if method == "jacobian":
        rows = jacobian_rows(probe, chunk_size=chunk_size)
        kernel = as_array(gram_of_rows(rows, rows, p))
    else:
        kernel = _by_products(probe, p, chunk_size)
    kernel = 0.5 * (kernel + kernel.T)
    return kernel if loss is None else weighted(kernel, _root(probe, loss))


def top_spectrum(
    probe: OutputProbe,
    n_eigenvalues: int,
    *,
    preconditioner: Preconditioner | None = None,
    loss: OutputLoss | None = None,
    rng: np.random.Generator,
    tolerance: float | None = None,
) -> KernelSpectrum:
    """The largest eigenpairs of the kernel by Lanczos, from products with J and J^T alone.

    For N beyond some thousands. Each iteration costs one backward and one forward-mode pass and no more memory
    than training does.

    Args:
        probe: f, N outputs.
        n_eigenvalues: m, below N.
        preconditioner: As in :func:`kernel_matrix`.
        loss: As in :func:`kernel_matrix`.
        rng: Draws the start vector.
        tolerance: Relative accuracy of the eigenvalues; by default the precision of the model's dtype.

    Returns:
        The spectrum, with m eigenvalues of N.

    Raises:
        SettingError: If m is not in 1..N-1.
    """
    p = checked(probe, preconditioner)
    root = None if loss is None else _root(probe, loss)
    with probe.quiet():
        out, pullback = vjp(probe, probe.parameters)
        require_finite(out, "outputs")

        def product(x: Array) -> Array:
            column = x.reshape(-1, 1)
            column = column if root is None else apply_blocks(root, column)
            cotangent = torch.as_tensor(column[:, 0]).to(out)
            image = as_array(pushforward(probe, divided(pullback(cotangent)[0], p)))[:, None]
            return (image if root is None else apply_blocks(root, image))[:, 0]

        eps = float(torch.finfo(out.dtype).eps)
        values, vectors = top_eigenpairs(
            product, out.numel(), n_eigenvalues, rng=rng, tolerance=eps if tolerance is None else tolerance
        )
    # Every product is rounded in the model's dtype, which moves an eigenvalue by some eps times the largest.
    return kernel_spectrum(eigenvalues=values, eigenvectors=vectors, n_outputs=out.numel(), resolution=16.0 * eps)


def residual(probe: OutputProbe, loss: OutputLoss) -> Array:
    """z = B^(-1/2) dL/df at the present outputs, (N,) float64.

    Its components along the eigenvectors of K_l are the coefficients c_j that ``predicted_gram`` and
    ``loss_curve`` take; near the minimum L = |z|^2 / 2. Source: derived.
    """
    return root_residual(loss, _outputs(probe))


def kernel_direction(
    probe: OutputProbe,
    vector: Array,
    *,
    preconditioner: Preconditioner | None = None,
    loss: OutputLoss | None = None,
) -> dict[str, Array]:
    """P^-1 J^T B^(1/2) q: the direction in parameter space that moves the outputs along q; not normalised.

    For an eigenvector q of K_l with eigenvalue kappa its norm in the metric P is sqrt(kappa), and it is the
    smallest change of parameters that does so. Source: derived.

    Args:
        probe: f, N outputs.
        vector: (N,) q.
        preconditioner: As in :func:`kernel_matrix`.
        loss: As in :func:`kernel_matrix`.

    Returns:
        float64 arrays by parameter name, in the parameters' shapes.
    """
    q = np.asarray(vector, dtype=np.float64)
    if q.shape != (probe.n_outputs,):
        raise SettingError(f"vector must have one entry per output, {probe.n_outputs}; got shape {q.shape}.")
    p = checked(probe, preconditioner)
    if loss is not None:
        q = apply_blocks(_root(probe, loss), q[:, None])[:, 0]
    with probe.quiet():
        out, pullback = vjp(probe, probe.parameters)
        direction = divided(pullback(torch.as_tensor(q).to(out))[0], p)
        return {name: as_array(t) for name, t in direction.items()}


def weighted(kernel: Array, root: Array) -> Array:
    """B^(1/2) K B^(1/2) from the blocks of B^(1/2)."""
    half = apply_blocks(root, kernel)
    return apply_blocks(root, half.T)


def precise(outputs: torch.Tensor) -> torch.Tensor:
    """Outputs in float64 where the device has it: softmax and its curvature lose digits in float32."""
    return outputs.detach().to(torch.float64) if outputs.device.type in ("cpu", "cuda") else outputs.detach()


def _outputs(probe: OutputProbe) -> torch.Tensor:
    with probe.quiet(), torch.no_grad():
        out = probe(probe.parameters)
    require_finite(out, "outputs")
    return precise(out).reshape(probe.shape)


def _root(probe: OutputProbe, loss: OutputLoss) -> Array:
    return loss.root(_outputs(probe))


def _by_products(probe: OutputProbe, preconditioner: Parameters | None, chunk_size: int) -> Array:
    """Rows of K one chunk of outputs at a time: J^T e backwards, then J forwards."""
    with probe.quiet():
        out, pullback = vjp(probe, probe.parameters)
        require_finite(out, "outputs")
        n = out.numel()
        kernel = np.empty((n, n))
        for start in range(0, n, chunk_size):
            size = min(chunk_size, n - start)
            basis = out.new_zeros((size, n))
            basis[torch.arange(size), start + torch.arange(size)] = 1.0
            rows = batched(lambda e: {"image": pushforward(probe, divided(pullback(e)[0], preconditioner))}, basis)[
                "image"
            ]
            kernel[start : start + size] = as_array(rows)
    return kernel
