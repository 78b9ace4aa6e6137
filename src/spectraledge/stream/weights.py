"""Leading singular values of a model's weight matrices."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch

from .labels import canonical_name, fused_dimension, label


@torch.no_grad()
def weight_spectra(matrices: Mapping[str, torch.Tensor], k: int = 4) -> dict[str, list[float]]:
    """The k largest singular values of each matrix, in its own dtype, at least float32.

    A fused query-key-value projection counts as its three parts, "name.q", "name.k" and "name.v"; a final ".weight"
    is dropped from names. Tensors that are no matrices are left out. Exact (LAPACK), except that a matrix with one
    side more than four times the other goes through the smaller Gram matrix, which resolves values down to 1e-3 of
    the largest in float32.

    Args:
        matrices: Tensors by parameter name.
        k: Number of values.

    Returns:
        Name to values, descending [parameter]; fewer than k for a smaller matrix.

    Source: standard result. The published gaps of weight matrices are differences of squares of these.

    Example:
        >>> weight_spectra({"fc.weight": torch.diag(torch.tensor([1.0, 3.0, 2.0])), "fc.bias": torch.ones(3)}, k=2)
        {'fc': [3.0, 2.0]}
    """
    found = {}
    for name, matrix in _parts(matrices):
        precise = matrix if matrix.dtype in (torch.float32, torch.float64) else matrix.float()
        rows, columns = precise.shape
        if max(rows, columns) > 4 * min(rows, columns):
            small = precise @ precise.T if rows < columns else precise.T @ precise
            values = torch.linalg.eigvalsh(small.double()).flip(0).clamp(min=0).sqrt()
        else:
            values = torch.linalg.svdvals(precise)
        found[name] = [float(value) for value in values[:k]]
    return found


def _parts(matrices: Mapping[str, torch.Tensor]) -> Iterator[tuple[str, torch.Tensor]]:
    for full, tensor in matrices.items():
        if tensor.ndim != 2:
            continue
        name = canonical_name(full)
        labels = label(name, tuple(tensor.shape))
        name = name.removesuffix(".weight").removesuffix("_weight")
        fused = fused_dimension(tuple(tensor.shape)) if labels.projection == "qkv" else None
        if fused is None:
            yield name, tensor.detach()
        else:
            for part, piece in zip("qkv", tensor.detach().chunk(3, dim=fused)):
                yield f"{name}.{part}", piece
