"""Where the entries of a tensor go in a sketch: piles of entries, keys of names, and the hash in torch."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import torch

from .blocks import Atom
from .layout import Layout

PILE = 1 << 20  # entries of a pile at most, so that work can be shared out evenly

_GOLDEN, _FIRST, _SECOND = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB  # splitmix64


@dataclass(frozen=True)
class Pile:
    """Runs of entries, each contiguous in the local tensor and in the whole one.

    Attributes:
        at: First entry in the (contiguous) local tensor.
        first: First entry in the whole tensor.
        n_outer: Runs.
        local_stride: From one run to the next in the local tensor.
        global_stride: The same in the whole tensor.
        inner: Entries of a run.
    """

    at: int
    first: int
    n_outer: int
    local_stride: int
    global_stride: int
    inner: int

    @property
    def size(self) -> int:
        """Entries."""
        return self.n_outer * self.inner


def key_of(name: str, seed: int = 0) -> int:
    """64 bits that a tensor's entries are hashed with; equal on all ranks and machines.

    >>> key_of("wte.weight") == key_of("wte.weight"), key_of("wte.weight") == key_of("wpe.weight")
    (True, False)
    """
    digest = hashlib.blake2b(f"{seed}:{name}".encode(), digest_size=8, person=b"spectraledge").digest()
    return int.from_bytes(digest, "little")


def piles_of(atom: Atom, layout: Layout) -> list[Pile]:
    """The entries of an atom as piles, in the order of memory.

    Args:
        atom: A local tensor, or a slice of it.
        layout: Where the local tensor lies in the whole one.

    >>> from .labels import label
    >>> atom = Atom("w", (4, 2), label("w", (4, 2)))
    >>> piles_of(atom, Layout((4, 6), (0, 2), (4, 2)))  # columns 2 and 3 of a 4 x 6 matrix
    [Pile(at=0, first=2, n_outer=4, local_stride=2, global_stride=6, inner=2)]
    """
    starts, sizes = [0] * len(layout.shape), list(layout.shape)
    if atom.dim is not None:
        starts[atom.dim], sizes[atom.dim] = atom.start, atom.stop - atom.start
    if 0 in sizes:
        return []
    local, whole = _strides(layout.shape), _strides(layout.global_shape)
    at = sum(start * stride for start, stride in zip(starts, local, strict=True))
    first = sum((o + s) * stride for o, s, stride in zip(layout.offset, starts, whole, strict=True))
    dims = [d for d in zip(sizes, local, whole, strict=True) if d[0] > 1]
    inner = 1
    while dims and dims[-1][1] == inner and dims[-1][2] == inner:
        inner *= dims.pop()[0]
    n_outer, local_stride, global_stride = dims.pop() if dims else (1, inner, inner)
    while dims and dims[-1][1] == local_stride * n_outer and dims[-1][2] == global_stride * n_outer:
        n_outer *= dims.pop()[0]
    piles = []
    for index in np.ndindex(*(d[0] for d in dims)):
        shift = [sum(i * d[k] for i, d in zip(index, dims, strict=True)) for k in (1, 2)]
        piles += _cut(Pile(at + shift[0], first + shift[1], n_outer, local_stride, global_stride, inner))
    return piles


def _strides(shape: tuple[int, ...]) -> list[int]:
    strides = [1]
    for n in reversed(shape[1:]):
        strides.append(strides[-1] * n)
    return strides[::-1][: len(shape)] if shape else []


def _cut(pile: Pile) -> list[Pile]:
    if pile.size <= PILE:
        return [pile]
    if pile.inner >= PILE:
        return [
            Pile(
                pile.at + k * pile.local_stride + lo,
                pile.first + k * pile.global_stride + lo,
                1,
                pile.inner,
                pile.inner,
                min(PILE, pile.inner - lo),
            )
            for k in range(pile.n_outer)
            for lo in range(0, pile.inner, PILE)
        ]
    step = PILE // pile.inner
    return [
        Pile(
            pile.at + k * pile.local_stride,
            pile.first + k * pile.global_stride,
            min(step, pile.n_outer - k),
            pile.local_stride,
            pile.global_stride,
            pile.inner,
        )
        for k in range(0, pile.n_outer, step)
    ]


def hashed(key: int, pile: Pile, log2_size: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Buckets (int64) and signs (float64) of a pile's entries, as sketch.c has them.

    Integers of 64 bits wrap around in torch; a logical shift is an arithmetic one with the copies of the sign off.
    """
    outer = torch.arange(pile.n_outer, device=device)[:, None] * pile.global_stride
    g = (pile.first + outer + torch.arange(pile.inner, device=device)).reshape(-1)
    z = (g >> 1) * _signed(_GOLDEN) + _signed(key)
    z = (z ^ _shift(z, 30)) * _signed(_FIRST)
    z = (z ^ _shift(z, 27)) * _signed(_SECOND)
    z = z ^ _shift(z, 31)
    half = torch.where(g & 1 == 1, _shift(z, 32), z & 0xFFFFFFFF)
    return half >> (32 - log2_size), 1.0 - 2.0 * (half & 1).double()


def _signed(x: int) -> int:
    return x - (1 << 64) if x >= 1 << 63 else x


def _shift(z: torch.Tensor, n: int) -> torch.Tensor:
    return (z >> n) & ((1 << (64 - n)) - 1)
