"""Rounding of half-precision weights: what a checkpoint's own format adds to the updates between checkpoints."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from ..stream.blocks import Blocks

# Format to (bits of the mantissa, mask of the exponent in 16 bits, smallest normal number).
_FORMATS = {torch.float16: (10, 0x7C00, 2.0**-14), torch.bfloat16: (7, 0x7F80, 2.0**-126)}


def rounding_variance(tensor: torch.Tensor) -> float:
    """Expected sum of squares of what was rounded off a half-precision tensor: sum of ``ulp(theta)^2 / 12``.

    A number rounded to the nearest of a grid of spacing ulp is off by an amount that is uniform on half a spacing to
    either side, where it moves by more than that between checkpoints (standard result, Bennett 1948). Where it moves
    by less, the error of the difference is smaller: the sum is then too large, on the safe side. Entries that are not
    finite count nothing.

    Args:
        tensor: Any shape; of another format than float16 and bfloat16, the sum is 0.

    Example:
        >>> rounding_variance(torch.tensor([1.0], dtype=torch.bfloat16)) == (2.0**-7) ** 2 / 12
        True
    """
    if tensor.dtype not in _FORMATS or tensor.numel() == 0:
        return 0.0
    mantissa, mask, smallest = _FORMATS[tensor.dtype]
    # the number with its mantissa cleared is the power of two below it
    power = (tensor.contiguous().view(torch.int16) & mask).view(tensor.dtype).to(torch.float32)
    power = power.clamp_(min=smallest).masked_fill_(torch.isinf(power), 0.0).to(torch.float64)
    return float(power.square_().sum()) * 4.0**-mantissa / 12


def block_rounding(blocks: Blocks, tensors: Mapping[str, torch.Tensor]) -> np.ndarray:
    """``rounding_variance`` of each block's entries.

    Returns:
        (B) [parameter^2].
    """
    return np.array([sum(rounding_variance(atom.of(tensors[atom.name])) for atom in block) for block in blocks.atoms])
