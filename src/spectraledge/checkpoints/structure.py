"""Which tensors of a checkpoint make up the parameter vector, by rule: a file does not say what was trained.

Owns the rules for buffers and the order of tensors; reads no weights.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from ..errors import DataError, SettingError
from ..stream.labels import canonical_name
from ..stream.parameters import ParameterFilter, predicate
from .header import TensorInfo

_BUFFERS = re.compile(
    r"(^|\.)(running_mean|running_var|num_batches_tracked"  # normalisation over batches
    r"|inv_freq|original_inv_freq|cos_cached|sin_cached|freqs_cis|freqs_cos|freqs_sin|position_ids"  # positions
    r"|masked_bias|causal_mask|attn_mask|attention_mask|tril"  # attention masks
    r"|exp_avg|exp_avg_sq|max_exp_avg_sq|momentum_buffer)(\.|$)"  # states of an optimizer saved alongside
    r"|^optimizer\."
)
_MASK = re.compile(r"(^|\.)(attn|attention|self_attn|self_attention)\.(bias|mask)$")


@dataclass(frozen=True)
class Entry:
    """One tensor of the parameter vector.

    Attributes:
        raw_name: Name in the file.
        shape: Shape as real numbers: complex tensors have a last dimension of 2.
        dtype: ``float32`` and so on.
    """

    raw_name: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def is_complex(self) -> bool:
        """Whether the file holds complex numbers."""
        return self.dtype.startswith("complex")

    @property
    def itemsize(self) -> int:
        """Bytes an entry in the arithmetic of updates: float64 stays, as complex128 does; the rest is float32."""
        return 8 if self.dtype in ("float64", "complex128") else 4

    @property
    def numel(self) -> int:
        """Number of real entries."""
        total = 1
        for n in self.shape:
            total *= n
        return total


@dataclass(frozen=True)
class Structure:
    """The parameter vector of a checkpoint: equal structures can be subtracted.

    Attributes:
        entries: By canonical name, in natural order.
        left_out: Names of tensors that are no parameters; not compared.
    """

    entries: dict[str, Entry]
    left_out: tuple[str, ...] = field(default=(), compare=False)

    def without(self, names: set[str]) -> Structure:
        """The same, some tensors taken out."""
        kept = {name: entry for name, entry in self.entries.items() if name not in names}
        return Structure(kept, self.left_out)


def structure_of(tensors: Mapping[str, TensorInfo], params: ParameterFilter | None = None) -> Structure:
    """The parameter vector that the header of a checkpoint tells.

    Left out: tensors that are no floating-point numbers, empty ones, and buffers by their names (running means,
    rotary frequencies, attention masks, optimizer states). Tensors come in natural order of their names, as
    files do not keep the order of the model.

    Args:
        tensors: From a reader.
        params: A regular expression searched in names, or a predicate of a name and a tensor on the "meta" device.

    Raises:
        SettingError: If ``params`` leaves nothing.
        DataError: If two names differ only in wrappers' parts, or nothing is a parameter.
    """
    keep = predicate(params)
    entries: dict[str, Entry] = {}
    left_out: list[str] = []
    n_candidates = 0
    for raw_name in sorted(tensors, key=natural_key):
        info, name = tensors[raw_name], canonical_name(raw_name)
        if not info.floating or info.numel == 0 or is_buffer(name, info.shape):
            left_out.append(raw_name)
            continue
        n_candidates += 1
        if not keep(name, torch.empty(info.shape, dtype=getattr(torch, info.dtype), device="meta")):
            continue
        if name in entries:
            raise DataError(
                f"tensor names must be unique without the parts that wrappers add; {entries[name].raw_name} and "
                f"{raw_name} are both {name}. Save the state dict of the unwrapped model."
            )
        complex_part = (2,) if info.dtype.startswith("complex") else ()
        entries[name] = Entry(raw_name, (*info.shape, *complex_part), info.dtype)
    if not entries and n_candidates:
        raise SettingError(
            f"params must leave at least one tensor; {params!r} leaves none of {n_candidates}. "
            f"The first ones are {', '.join(sorted(map(canonical_name, tensors), key=natural_key)[:4])}."
        )
    if not entries:
        raise DataError(
            f"a checkpoint must hold floating-point parameters; none of its {len(tensors)} tensors is one. "
            "Give checkpoints of a model."
        )
    return Structure(entries, tuple(left_out))


def is_buffer(name: str, shape: tuple[int, ...]) -> bool:
    """Whether a tensor is no trained parameter, by its name and shape.

    GPT-2 and its kin keep the causal mask as ``attn.bias``, a square matrix; a bias proper has one dimension.

    Example:
        >>> is_buffer("h.0.attn.bias", (1, 1, 64, 64)), is_buffer("h.0.attn.bias", (64,))
        (True, False)
    """
    if _BUFFERS.search(name):
        return True
    return _MASK.search(name) is not None and len(shape) >= 2 and shape[-1] == shape[-2]


def describe_change(before: Structure, after: Structure) -> str:
    """One sentence on what differs between two structures."""
    old, new = before.entries, after.entries
    both = [name for name in new if name in old]
    lists = {
        "new": [name for name in new if name not in old],
        "gone": [name for name in old if name not in new],
        "resized": [
            f"{name} {old[name].shape} -> {new[name].shape}" for name in both if old[name].shape != new[name].shape
        ],
        "cast": [
            f"{name} {old[name].dtype} -> {new[name].dtype}" for name in both if old[name].dtype != new[name].dtype
        ],
    }
    return "; ".join(
        f"{what}: {', '.join(names[:4])}{f' and {len(names) - 4} more' if len(names) > 4 else ''}"
        for what, names in lists.items()
        if names
    )


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """Sorts ``layers.2`` before ``layers.10``.

    Example:
        >>> sorted(["l.10.w", "l.2.w", "b"], key=natural_key)
        ['b', 'l.2.w', 'l.10.w']
    """
    parts = re.split(r"([0-9]+)", name)
    return [(0, int(part), "") if i % 2 and len(part) < 18 else (1, 0, part) for i, part in enumerate(parts)]
