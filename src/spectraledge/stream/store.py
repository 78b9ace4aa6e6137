"""Which ring to keep: the one place where stores, precisions and sketches are told apart."""

from __future__ import annotations

import os
from collections.abc import Mapping

import torch

from ..errors import SettingError
from .blocks import Blocks
from .layout import Layout
from .ring import UpdateRing
from .sketch import DEFAULT_SIZE, SketchRing

STORES = ("device", "host", "file", "sketch")
PRECISIONS = ("full", "bfloat16")

AnyRing = UpdateRing | SketchRing


def check_sketch(store: str, precision: str, *, checked: bool) -> None:
    """Raise where a sketch is asked for what it does not do, or something else for what only a sketch needs.

    Raises:
        SettingError: As said.
    """
    if store == "sketch" and precision != "full":
        raise SettingError(
            f"a sketch keeps its few numbers in float64; got precision={precision!r}. Leave precision out, or use "
            'store="host".'
        )
    if store != "sketch" and checked:
        raise SettingError(f"only a sketch needs a check; got store={store!r}. Leave sketch_check out.")


def make_ring(
    blocks: Blocks,
    tensors: Mapping[str, torch.Tensor],
    lags: int,
    *,
    decay: bool = False,
    store: str = "device",
    backend: str = "auto",
    precision: str = "full",
    sketch_size: int = DEFAULT_SIZE,
    layouts: Mapping[str, Layout | None] | None = None,
    folder: str | os.PathLike[str] | None = None,
    window: int | None = None,
    sketch_check: int = 0,
    sketch_check_every: int = 0,
) -> AnyRing:
    """A ring of the last ``lags`` updates.

    Args:
        blocks: The partition of the local tensors.
        tensors: Local parameters by name.
        lags: L.
        decay: Whether to record the part of the update that decoupled weight decay makes.
        store: ``"device"``, ``"host"``, ``"file"`` (updates in a file of ``folder``) or ``"sketch"``.
        backend: ``"auto"``, ``"torch"`` or ``"compiled"``.
        precision: ``"full"`` or ``"bfloat16"``; not for a sketch, whose numbers are few.
        sketch_size: m of the sketch, a power of 2.
        layouts: Where local tensors lie in whole ones, for the sketch; missing ones are whole.
        folder: Of the file.
        window: W, for the check of a sketch.
        sketch_check: Windows beside which an exact ring measures the sketch's error, from the start.
        sketch_check_every: Also every so many windows.

    Raises:
        SettingError: If an argument cannot be, or two exclude each other.
        OutputError: If the file's folder cannot be written or has no room.

    Example:
        >>> from .blocks import make_blocks
        >>> ring = make_ring(make_blocks({"w": (3,)}), {"w": torch.zeros(3)}, 2, store="sketch", sketch_size=64)
        >>> ring.append({"w": torch.tensor([3.0, 0.0, 0.0])}).products[0, 0]
        np.float64(9.0)
    """
    if store not in STORES:
        raise SettingError(f"store must be one of {', '.join(map(repr, STORES))}; got {store!r}.")
    check_sketch(store, precision, checked=bool(sketch_check or sketch_check_every))
    if store == "sketch":
        return SketchRing(
            blocks,
            tensors,
            lags,
            decay=decay,
            backend=backend,
            size=sketch_size,
            layouts=layouts,
            check=sketch_check,
            check_every=sketch_check_every,
            window=window,
        )
    return UpdateRing(
        blocks, tensors, lags, decay=decay, store=store, backend=backend, precision=precision, folder=folder
    )
