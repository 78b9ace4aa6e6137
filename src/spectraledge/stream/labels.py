"""What a parameter is, read off its name and shape alone, so that a live model and a checkpoint agree.

Knows nothing about modules: everything here is a pure function of a name and a shape.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

# Wrappers that put themselves into parameter names: torch.compile, DDP, FSDP1, activation checkpointing.
_WRAPPERS = ("_orig_mod", "module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")

# First match wins. `norm` comes first because "attn_norm" is a norm; `attention` before `mlp` because an
# attention's output projection is often called "c_proj" or "dense" inside a module called "attn".
_KINDS = (
    (
        "norm",
        re.compile(r"(^|[._])(ln|norm|layernorm|rmsnorm|bn|batchnorm|groupnorm)[a-z0-9_]*\.|_norm\b|norm\d*\."),
    ),
    ("attention", re.compile(r"attn|attention|(^|\.)(q|k|v|o|qkv|query|key|value)(_proj|_lin)?\.|in_proj")),
    (
        "mlp",
        re.compile(r"mlp|ffn|feed_?forward|(^|\.)(linear1|linear2|fc\d*|c_fc|up|down|gate|w[123])(_proj)?\."),
    ),
    ("embedding", re.compile(r"embed|(^|\.)(wte|wpe|tok|pos|position)[a-z_]*(\.|$)")),
    ("head", re.compile(r"(^|\.)(lm_head|head|heads|classifier|unembed|output|score)\.")),
)

_END = r"(_proj|_lin)?(\.|_weight$)"  # a whole component: "query_key_value" is fused and interleaved, not a query
_PROJECTIONS = {
    "q": re.compile(rf"(^|\.)(q|query|wq|w_q){_END}"),
    "k": re.compile(rf"(^|\.)(k|key|wk|w_k){_END}"),
    "v": re.compile(rf"(^|\.)(v|value|wv|w_v){_END}"),
    "o": re.compile(r"(^|[._])(o|out|wo|w_o|c)_proj\.|attn\.proj\.|(^|[._])(wo|w_o)\.|attention\.(output\.)?dense\."),
}
_FUSED = re.compile(r"in_proj_(weight|bias)$|(^|[._])(qkv|c_attn|Wqkv)(_proj)?\.(weight|bias)$")


@dataclass(frozen=True)
class Labels:
    """Labels of one tensor.

    Attributes:
        layer: Path up to and including its first numbered component (``encoder.layers.0``), else the path
            of the module that owns it.
        kind: ``attention``, ``mlp``, ``norm``, ``embedding``, ``head``, ``conv`` or ``other``.
        matrix: Whether it has at least two dimensions; the rest are biases and gains.
        projection: ``q``, ``k``, ``v``, ``o``, ``qkv`` (fused) or None.
    """

    layer: str
    kind: str
    matrix: bool
    projection: str | None


def canonical_name(name: str) -> str:
    """Parameter name without the parts that wrappers add.

    Example:
        >>> canonical_name("_orig_mod.module.layers.0.weight")
        'layers.0.weight'
    """
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS) or name


def layer_of(name: str) -> str:
    """Path up to the first numbered component, else the owning module's path.

    Example:
        >>> layer_of("encoder.layers.0.linear1.weight"), layer_of("embed.weight"), layer_of("pos")
        ('encoder.layers.0', 'embed', 'pos')
    """
    parts = name.split(".")
    for i, part in enumerate(parts):
        if part.isdigit():
            return ".".join(parts[: i + 1])
    return ".".join(parts[:-1]) or name


def label(name: str, shape: tuple[int, ...]) -> Labels:
    """Labels of a tensor called ``name``.

    Example:
        >>> label("layers.1.self_attn.in_proj_weight", (384, 128))
        Labels(layer='layers.1', kind='attention', matrix=True, projection='qkv')
    """
    kind = next((kind for kind, pattern in _KINDS if pattern.search(name)), None)
    if kind is None:
        kind = "conv" if len(shape) == 4 else "other"
    projection = None
    if kind == "attention":
        if _FUSED.search(name):
            projection = "qkv"
        else:
            projection = next((key for key, pattern in _PROJECTIONS.items() if pattern.search(name)), None)
    return Labels(layer_of(name), kind, len(shape) >= 2, projection)


def fused_dimension(shape: tuple[int, ...]) -> int | None:
    """Dimension along which a fused query-key-value tensor stacks its three parts, or None if it cannot.

    ``(3 d, d)`` and ``(3 d,)`` stack along 0; ``(d, 3 d)``, as in GPT-2's transposed layers, along 1.
    """
    if len(shape) == 1:
        return 0 if shape[0] % 3 == 0 else None
    if shape[0] == 3 * shape[1]:
        return 0
    if shape[1] == 3 * shape[0]:
        return 1
    return None
