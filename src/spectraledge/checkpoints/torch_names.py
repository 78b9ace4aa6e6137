"""The names that a torch checkpoint's pickle may use, and what each stands for here.

An exact table: the functions that rebuild tensors, types of numbers and storages, and some names of bookkeeping
(paths, numpy's scalars) whose values are dropped. Nothing of it imports or calls what it names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .header import BadFile, short
from .leaves import Leaf, is_shape
from .pickles import Name, Table, thing
from .views import CODES, View, torch_dtype


@dataclass(frozen=True)
class Storage:
    """Bytes that tensors are views of.

    Attributes:
        dtype: torch's name of its numbers' type; None where tensors say it.
        n_bytes: Its size.
        start: View of its first byte, to be shaped.
    """

    dtype: str | None
    n_bytes: int
    start: View


STORAGES = {
    "DoubleStorage": "float64", "FloatStorage": "float32", "HalfStorage": "float16", "BFloat16Storage": "bfloat16",
    "LongStorage": "int64", "IntStorage": "int32", "ShortStorage": "int16", "CharStorage": "int8",
    "ByteStorage": "uint8", "BoolStorage": "bool", "ComplexDoubleStorage": "complex128",
    "ComplexFloatStorage": "complex64", "QInt8Storage": "qint8", "QUInt8Storage": "quint8",
    "QInt32Storage": "qint32", "QUInt4x2Storage": "quint4x2", "QUInt2x4Storage": "quint2x4",
}  # fmt: skip
ITEM_BYTES = {name: torch_dtype(code).itemsize for name, code in CODES.items()} | {
    "qint8": 1, "quint8": 1, "qint32": 4, "quint4x2": 1, "quint2x4": 1,
}  # fmt: skip
_OTHER_DTYPES = (
    "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu", "float4_e2m1fn_x2",
    "complex32", "qint8", "quint8", "qint32", "quint4x2", "quint2x4", "bits8", "bits16",
)  # fmt: skip


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, dtype: str | None, metadata: Any) -> Leaf:
    """A view of a storage, checked against it."""
    if not isinstance(storage, Storage):
        raise BadFile("it is corrupt: its pickle makes a tensor of what is no storage")
    dtype = dtype if dtype is not None else storage.dtype
    if not is_shape(size) or not is_shape(stride) or len(size) != len(stride):
        raise BadFile("it is corrupt: a tensor's shape or strides are malformed")
    if type(offset) is not int or not 0 <= offset < 2**63:
        raise BadFile("it is corrupt: a tensor's offset is malformed")
    if dtype not in CODES:
        return Leaf("unknown", tuple(size), problem=f"of dtype {dtype}, not of a floating-point number that is read")
    n_item = ITEM_BYTES[dtype]
    start = storage.start
    view = View(start.file, start.start + offset * n_item, CODES[dtype], tuple(size), tuple(stride), start.swapped)
    if (offset + view.extent) * n_item > storage.n_bytes:
        raise BadFile(
            f"it is corrupt: a tensor of shape {str(tuple(size))[:60]} needs {(offset + view.extent) * n_item} bytes "
            f"of a storage that has {storage.n_bytes}"
        )
    problem = None
    if view.overlaps:
        problem = "a view that holds one number several times (expanded or overlapping)"
    elif metadata:
        problem = "a view that is conjugate or negative"
    return Leaf(CODES[dtype], tuple(size), problem=problem) if problem else Leaf.at(view)


def rebuild(storage: Any, offset: Any, size: Any, stride: Any, *rest: Any) -> Leaf:
    """``_rebuild_tensor`` and ``_rebuild_tensor_v2``: the last of six arguments holds bits such as "conjugate"."""
    return _tensor(storage, offset, size, stride, None, rest[2] if len(rest) > 2 else None)


def rebuild_typed(storage: Any, offset: Any, size: Any, stride: Any, _grad: Any, _hooks: Any, *rest: Any) -> Leaf:
    """``_rebuild_tensor_v3``: the tensor names the type."""
    if not rest or type(rest[0]) is not Name:
        raise BadFile("it is corrupt: a tensor's type is malformed")
    return _tensor(storage, offset, size, stride, _dtype(rest[0]), rest[1] if len(rest) > 1 else None)


def _parameter(data: Any, *_rest: Any) -> Leaf:
    if not isinstance(data, Leaf):
        raise BadFile("it is corrupt: its pickle makes a parameter of what is no tensor")
    return data


def _from_type(function: Any, kind: Any, args: Any, _state: Any) -> Leaf:
    """``_rebuild_from_type_v2``: a tensor with attributes, or of a subclass."""
    if type(function) is not Name or function.make is None or type(kind) is not Name or type(args) is not tuple:
        raise BadFile("it is corrupt: its pickle rebuilds a tensor by what is no function of torch")
    made = function.make(*args)
    if not isinstance(made, Leaf):
        raise BadFile("it is corrupt: its pickle rebuilds what is no tensor")
    if kind.text in ("torch.Tensor", "torch.nn.parameter.Parameter", "torch.nn.parameter.Buffer"):
        return made
    return Leaf("unknown", made.shape, problem=f"of the tensor subclass {kind.text}")


def _sparse(_layout: Any, data: Any, *_rest: Any) -> Leaf:
    values = [part for part in data if isinstance(part, Leaf)] if type(data) is tuple else []
    floating = not values or values[-1].floating
    return Leaf("unknown" if floating else "SPARSE", problem="a sparse tensor")


def _odd(what: str) -> Any:
    return lambda *_args: Leaf("unknown", problem=what)


def _size(*args: Any) -> tuple[Any, ...]:
    if len(args) != 1 or type(args[0]) not in (tuple, list):
        raise BadFile("it is corrupt: a torch.Size is malformed")
    return tuple(args[0])


def _table(*args: Any) -> Table:
    """An OrderedDict, empty or from pairs; a defaultdict's and a Counter's first argument is dropped or copied."""
    table = Table()
    for arg in args:
        if type(arg) is list:
            for pair in arg:
                if type(pair) not in (tuple, list) or len(pair) != 2 or type(pair[0]) not in (str, int):
                    raise BadFile("it is corrupt: its pickle makes a dictionary of what are no pairs")
                table[pair[0]] = pair[1]
        elif isinstance(arg, Mapping):
            table.update(arg)
    return table


def _dtype(name: Name) -> str:
    return name.text.removeprefix("torch.")


def storage_type(name: Any) -> str | None:
    """The numbers of a storage by its class; None for ``UntypedStorage``, whose tensors say it.

    Raises:
        BadFile: If it is no storage's class.
    """
    text = name.text if type(name) is Name else ""
    module, _, kind = text.rpartition(".")
    if kind in ("UntypedStorage", "TypedStorage"):
        return None
    if module not in ("torch", "torch.cuda") or kind not in STORAGES:
        raise BadFile(f"it is corrupt: its pickle has a storage of the kind {short(text)}")
    return STORAGES[kind]


_CALLS = {
    "collections.OrderedDict": _table,
    "collections.Counter": _table,
    "collections.defaultdict": _table,
    "lightning.fabric.utilities.data.AttributeDict": _table,
    "lightning_fabric.utilities.data.AttributeDict": _table,
    "pytorch_lightning.utilities.parsing.AttributeDict": _table,
    "torch.Size": _size,
    "torch.serialization._get_layout": lambda *_args: None,
    "torch._utils._rebuild_tensor": rebuild,
    "torch._utils._rebuild_tensor_v2": rebuild,
    "torch._utils._rebuild_tensor_v3": rebuild_typed,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch.nn.parameter.Parameter": _parameter,
    "torch.nn.parameter.Buffer": _parameter,
    "torch._tensor._rebuild_from_type_v2": _from_type,
    "torch._utils._rebuild_sparse_tensor": _sparse,
    "torch._utils._rebuild_sparse_csr_tensor": _sparse,
    "torch._utils._rebuild_qtensor": _odd("a quantised tensor"),
    "torch._utils._rebuild_nested_tensor": _odd("a nested tensor"),
    "torch._utils._rebuild_wrapper_subclass": _odd("a tensor subclass"),
    "torch._utils._rebuild_meta_tensor_no_storage": _odd("a meta tensor, which has no data"),
    "torch._utils._rebuild_device_tensor_from_numpy": _odd("a tensor of another device's own format"),
    "torch._utils._rebuild_device_tensor_from_cpu_tensor": _odd("a tensor of another device's own format"),
    "torch._utils._rebuild_xla_tensor": _odd("a tensor of another device's own format"),
    "builtins.set": lambda *_args: [],
    "builtins.frozenset": lambda *_args: [],
}
_THINGS = (
    "torch.device", "_codecs.encode", "builtins.bytearray", "builtins.complex", "builtins.slice",
    "pathlib.PosixPath", "pathlib.PurePosixPath", "pathlib.WindowsPath", "pathlib._local.PosixPath",
    "argparse.Namespace", "datetime.datetime", "datetime.timedelta",
    "numpy.dtype", "numpy.ndarray", "numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar",
    "numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct",
)  # fmt: skip
_WORDS = (
    "torch.Tensor", "torch.strided", "torch.contiguous_format", "torch.per_tensor_affine", "torch.per_channel_affine",
    "torch.per_tensor_symmetric", "torch.per_channel_symmetric", "torch.per_channel_affine_float_qparams",
    "torch.storage.UntypedStorage", "torch.storage.TypedStorage", "torch.UntypedStorage", "torch.TypedStorage",
    "builtins.dict", "builtins.list", "builtins.int", "builtins.float", "builtins.str", "builtins.bool",
)  # fmt: skip

_NAMES: dict[str, Name] = (
    {text: Name(text, make) for text, make in _CALLS.items()}
    | {text: thing(text) for text in _THINGS}
    | {text: Name(text) for text in _WORDS}
    | {f"torch.{name}": Name(f"torch.{name}") for name in (*CODES, *_OTHER_DTYPES)}
    | {f"{at}.{name}": Name(f"{at}.{name}") for at in ("torch", "torch.cuda") for name in STORAGES}
)
# Pickles of protocol 2, which torch writes, call the built-in names as Python 2 did.
TORCH_NAMES = _NAMES | {
    text.replace("builtins.", "__builtin__."): name for text, name in _NAMES.items() if text.startswith("builtins.")
}
