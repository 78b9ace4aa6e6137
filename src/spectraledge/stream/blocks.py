"""How the parameter vector is cut into disjoint blocks.

Owns the partition (atoms, blocks, their order); knows nothing about updates. The same partition is built
from a live model and from the names and shapes in a checkpoint.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch

from ..errors import SettingError
from .labels import Labels, fused_dimension, label

BlockScheme = str | Mapping[str, str] | Callable[[str, tuple[int, ...]], "str | None"]

SCHEMES = ("all", "layer", "kind", "layer_kind", "matrix", "tensor", "projection", "head")


@dataclass(frozen=True)
class Atom:
    """A tensor, or a slice ``[start:stop]`` of one along ``dim``."""

    name: str
    shape: tuple[int, ...]
    labels: Labels
    dim: int | None = None
    start: int = 0
    stop: int = 0

    @property
    def n_parameters(self) -> int:
        """Number of entries."""
        total = 1
        for i, n in enumerate(self.shape):
            total *= self.stop - self.start if i == self.dim else n
        return total

    def of(self, tensor: torch.Tensor) -> torch.Tensor:
        """View of this atom in its tensor."""
        return tensor if self.dim is None else tensor.narrow(self.dim, self.start, self.stop - self.start)


@dataclass(frozen=True)
class Blocks:
    """Disjoint named blocks of atoms; ``"all"`` is their sum and is never listed unless it is the only one.

    Attributes:
        names: Block names in recorded order.
        atoms: For each block, its atoms in model order.
    """

    names: tuple[str, ...]
    atoms: tuple[tuple[Atom, ...], ...]
    scheme: str = "layer"
    tensors: tuple[str, ...] = field(default=())

    @property
    def n_parameters(self) -> int:
        """Entries of the whole vector."""
        return sum(atom.n_parameters for block in self.atoms for atom in block)

    def info(self) -> list[dict[str, object]]:
        """One JSON-able description a block: name, size, layer, kind, tensors."""
        out: list[dict[str, object]] = []
        for name, atoms in zip(self.names, self.atoms, strict=True):
            layers = {a.labels.layer for a in atoms}
            kinds = {a.labels.kind for a in atoms}
            out.append(
                {
                    "name": name,
                    "n_parameters": sum(a.n_parameters for a in atoms),
                    "layer": layers.pop() if len(layers) == 1 else None,
                    "kind": kinds.pop() if len(kinds) == 1 else None,
                    "tensors": [
                        a.name if a.dim is None else f"{a.name}[dim {a.dim}, {a.start}:{a.stop}]" for a in atoms
                    ],
                }
            )
        return out


def make_blocks(
    shapes: Mapping[str, tuple[int, ...]],
    scheme: BlockScheme = "layer",
    heads: int | Mapping[str, int] | None = None,
) -> Blocks:
    """Cut a parameter vector into disjoint blocks.

    Args:
        shapes: Tensor names and shapes, in model order.
        scheme: ``"all"``, ``"layer"``, ``"kind"`` (attention, mlp, norm, ...), ``"layer_kind"``,
            ``"matrix"`` (matrices against biases and gains), ``"tensor"``, ``"projection"`` (W_Q, W_K, W_V,
            W_O of every layer, fused projections split, the remainder by layer), ``"head"`` (rows of
            W_Q, W_K, W_V and columns of W_O of every head, the remainder by layer), a mapping from block
            names to regular expressions searched in tensor names, or a callable from a name and a shape to
            a block name. Tensors that no expression or callable claims form the block ``"rest"``.
        heads: For ``"head"``: number of query heads, one for all layers or by layer.

    Raises:
        SettingError: If the scheme is unknown, two expressions claim one tensor, an expression claims none,
            a block is called ``"all"``, or heads cannot be told.

    Example:
        >>> make_blocks({"0.weight": (4, 3), "0.bias": (4,), "2.weight": (2, 4)}).names
        ('0', '2')
    """
    if isinstance(scheme, str):
        if scheme not in SCHEMES:
            raise SettingError(
                f"blocks must be one of {', '.join(SCHEMES)}, a mapping of regular expressions or a callable; "
                f"got {scheme!r}."
            )
        name_of, tag = _named_scheme(scheme), scheme
    elif isinstance(scheme, Mapping):
        name_of, tag = _regex_scheme(scheme, shapes), "regex"
    elif callable(scheme):
        function = scheme

        def name_of(atom: Atom) -> str:
            return function(atom.name, atom.shape) or "rest"

        tag = "callable"
    else:
        raise SettingError(f"blocks must be a name, a mapping or a callable; got {type(scheme).__name__}.")

    grouped: dict[str, list[Atom]] = {}
    for name, shape in shapes.items():
        for atom in _atoms(name, tuple(shape), tag, heads):
            block = name_of(atom)
            if not isinstance(block, str):
                raise SettingError(f"a block name must be a string; the callable gave {block!r} for {name}.")
            if block == "all" and tag != "all":
                raise SettingError('no block may be called "all": that name is the sum of the blocks. Rename it.')
            grouped.setdefault(block, []).append(atom)
    if tag == "head" and not any(".head" in block for block in grouped):
        raise SettingError(
            'blocks="head" found no attention projections to split: it needs modules with a number of heads, '
            'or heads=N, and tensors named like q_proj, in_proj_weight or c_attn. Use blocks="projection" or "layer".'
        )
    return Blocks(tuple(grouped), tuple(map(tuple, grouped.values())), tag, tuple(shapes))


def _named_scheme(scheme: str) -> Callable[[Atom], str]:
    def by_projection(atom: Atom) -> str:
        if atom.labels.projection is None or not atom.labels.matrix:
            return atom.labels.layer
        return f"{atom.labels.layer}.W_{atom.labels.projection.upper()}"

    table: dict[str, Callable[[Atom], str]] = {
        "all": lambda atom: "all",
        "layer": lambda atom: atom.labels.layer,
        "kind": lambda atom: atom.labels.kind,
        "layer_kind": lambda atom: f"{atom.labels.layer}.{atom.labels.kind}",
        "matrix": lambda atom: "matrix" if atom.labels.matrix else "vector",
        "tensor": lambda atom: atom.name,
        "projection": by_projection,
        "head": lambda atom: atom.labels.layer,  # atoms of a head carry it in their layer label
    }
    return table[scheme]


def _regex_scheme(scheme: Mapping[str, str], shapes: Mapping[str, tuple[int, ...]]) -> Callable[[Atom], str]:
    try:
        patterns = {block: re.compile(pattern) for block, pattern in scheme.items()}
    except (re.error, TypeError) as error:
        raise SettingError(f"blocks must map names to regular expressions; got {dict(scheme)!r}: {error}.") from error
    for block, pattern in patterns.items():
        if not any(pattern.search(name) for name in shapes):
            raise SettingError(
                f"the expression {pattern.pattern!r} of block {block!r} matches no parameter; "
                f"the first ones are {', '.join(list(shapes)[:4])}."
            )

    def name_of(atom: Atom) -> str:
        owners = [block for block, pattern in patterns.items() if pattern.search(atom.name)]
        if len(owners) > 1:
            raise SettingError(
                f"blocks must be disjoint; {atom.name} is claimed by {' and '.join(owners)}. "
                "Record the pieces and form unions from the recording."
            )
        return owners[0] if owners else "rest"

    return name_of


def _atoms(name: str, shape: tuple[int, ...], scheme: str, heads: int | Mapping[str, int] | None) -> list[Atom]:
    whole = Atom(name, shape, label(name, shape))
    if scheme not in ("projection", "head") or whole.labels.projection is None:
        return [whole]
    parts = _split_fused(whole)
    if scheme == "projection":
        return parts
    layer = whole.labels.layer
    n_heads = heads if isinstance(heads, int) else (heads or {}).get(layer)
    if n_heads is None:
        return parts
    return [piece for part in parts for piece in _split_heads(part, n_heads)]


def _split_fused(atom: Atom) -> list[Atom]:
    labels = atom.labels
    if labels.projection != "qkv":
        return [atom]
    dim = fused_dimension(atom.shape)
    if dim is None:
        return [atom]
    third = atom.shape[dim] // 3
    return [
        Atom(
            atom.name,
            atom.shape,
            Labels(labels.layer, labels.kind, labels.matrix, key),
            dim,
            i * third,
            (i + 1) * third,
        )
        for i, key in enumerate("qkv")
    ]


def _split_heads(atom: Atom, n_heads: int) -> list[Atom]:
    """Rows of W_Q, W_K, W_V and columns of W_O by head; anything that does not divide stays whole."""
    labels = atom.labels
    if labels.projection == "qkv" or (labels.projection == "o" and not labels.matrix):
        return [atom]  # an interleaved fused layout, or the output bias, which belongs to no head
    if labels.projection == "o":
        dim = 1
    else:
        dim = atom.dim if atom.dim is not None else 0
    start, stop = (atom.start, atom.stop) if atom.dim is not None else (0, atom.shape[dim])
    size, remainder = divmod(stop - start, n_heads)
    if remainder:
        return [atom]
    return [
        Atom(
            atom.name,
            atom.shape,
            Labels(f"{labels.layer}.head{h}", labels.kind, labels.matrix, labels.projection),
            dim,
            start + h * size,
            start + (h + 1) * size,
        )
        for h in range(n_heads)
    ]
