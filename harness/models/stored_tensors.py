"""Tensors as files hold them: views of storages, and what torch's pickles call to build them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from harness.models.pickled_data import Global, Placeholder

MOST_DIMS = 64
_FLOATS = {"Float": torch.float32, "Double": torch.float64, "Half": torch.float16, "BFloat16": torch.bfloat16}
_INTS = {"Long": torch.int64, "Int": torch.int32, "Short": torch.int16, "Char": torch.int8, "Byte": torch.uint8}
_OTHERS = {"Bool": torch.bool, "ComplexFloat": torch.complex64, "ComplexDouble": torch.complex128}
_QUANTISED = {"QInt8": torch.int8, "QUInt8": torch.uint8, "QInt32": torch.int32, "QUInt4x2": torch.uint8}
_STORAGES = {f"{name}Storage": dtype for name, dtype in {**_FLOATS, **_INTS, **_OTHERS, **_QUANTISED}.items()}
_STORAGES["UntypedStorage"] = torch.uint8


@dataclass(frozen=True)
class Storage:
    """The values that tensors of a file share."""

    key: str
    dtype: torch.dtype
    count: int  # of the values
    start: int = 0  # the first value's position in what the file stores under the key


@dataclass(frozen=True)
class FileTensor:
    """A tensor in a file: a view of a storage."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.storage.dtype.itemsize


def storage_of(identity: Any) -> Any:
    """Return what a persistent id of torch stands for: a storage, or a class that was saved with its source.

    Raises:
        TypeError, ValueError: torch does not write such an id.
    """
    if not isinstance(identity, tuple):
        raise TypeError("a persistent id that torch does not write")
    kind, *parts = identity
    if kind == "module":
        return parts[0]
    storage_type, key, _location, count, *view = parts
    dtype = _STORAGES.get(storage_type.name.rpartition(".")[2]) if isinstance(storage_type, Global) else None
    if kind != "storage" or dtype is None:
        return Placeholder(f"tensors of {getattr(storage_type, 'name', 'no type')}")
    if not are_counts((count,)) or not isinstance(key, str):
        raise TypeError("a storage without size or key")
    if view and view[0] is not None:
        _, start, length = view[0]
        if not are_counts((start, length)) or start + length > count:
            raise ValueError("a view outside of its storage")
        return Storage(key, dtype, length, start)
    return Storage(key, dtype, count)


def tensor_of(storage: Any, offset: Any, shape: Any, stride: Any, *_: Any) -> Any:
    """Return a tensor in a storage, or a placeholder if it is no plain one.

    Raises:
        ValueError: it does not lie in the storage.
    """
    if not isinstance(storage, Storage):
        return storage if isinstance(storage, Placeholder) else Placeholder("tensors without a storage")
    if len(shape) != len(stride) or len(shape) > MOST_DIMS or not are_counts((offset, *shape, *stride)):
        raise ValueError("a tensor without a shape")
    if not are_counts((math.prod(max(n, 1) for n in shape),)):
        raise ValueError("a shape without an end")
    if math.prod(shape) > storage.count:
        return Placeholder("tensors of more values than are stored (expanded ones: save a `clone()`)")
    if math.prod(shape) and offset + sum((n - 1) * s for n, s in zip(shape, stride, strict=True)) >= storage.count:
        raise ValueError("a tensor outside of its storage")
    return FileTensor(storage, offset, tuple(shape), tuple(stride))


def _typed_tensor(
    storage: Any, offset: Any, shape: Any, stride: Any, _grad: Any, _hooks: Any, dtype: Any, *_: Any
) -> Any:
    """Return a tensor of a type that has no storage class of its own."""
    of_name = getattr(torch, dtype.name.removeprefix("torch."), None) if isinstance(dtype, Global) else None
    if not isinstance(of_name, torch.dtype) or not isinstance(storage, Storage):
        return Placeholder(f"tensors of type {getattr(dtype, 'name', 'unknown')}")
    return tensor_of(Storage(storage.key, of_name, storage.count // of_name.itemsize), offset, shape, stride)


def _first(data: Any, *_: Any) -> Any:
    return data


def _of_type(function: Any, _type: Any, args: Any, *_: Any) -> Any:
    """Return a tensor of a subclass as the plain one that it is built from."""
    build = BUILDS.get(function.name) if isinstance(function, Global) else None
    return build(*args) if build else Placeholder(getattr(function, "name", "tensors of a subclass"))


def _other(kind: str) -> Any:
    return lambda *_: Placeholder(kind)


def _dict(pairs: Any = (), *_: Any) -> dict[str | int, Any]:
    pairs = [pair for pair in pairs if isinstance(pair, list | tuple) and len(pair) == 2]
    return {key: value for key, value in pairs if isinstance(key, str | int)}


def are_counts(values: tuple[Any, ...]) -> bool:
    """Return whether values are integers that a file's sizes and positions may be."""
    return all(type(value) is int and 0 <= value < 2**60 for value in values)


# What stands for calls of these functions and classes in torch's files.
BUILDS: Mapping[str, Any] = {
    "torch._utils._rebuild_tensor": tensor_of,
    "torch._utils._rebuild_tensor_v2": tensor_of,
    "torch._utils._rebuild_tensor_v3": _typed_tensor,
    "torch._utils._rebuild_parameter": _first,
    "torch._utils._rebuild_parameter_with_state": _first,
    "torch._utils._rebuild_device_tensor_from_cpu_tensor": _first,
    "torch._tensor._rebuild_from_type": _of_type,
    "torch._tensor._rebuild_from_type_v2": _of_type,
    "torch._utils._rebuild_sparse_tensor": _other("sparse tensors"),
    "torch._utils._rebuild_qtensor": _other("quantised tensors"),
    "torch._utils._rebuild_meta_tensor_no_storage": _other("tensors without values (of the meta device)"),
    "numpy.core.multiarray._reconstruct": _other("NumPy arrays"),
    "numpy._core.multiarray._reconstruct": _other("NumPy arrays"),
    "collections.OrderedDict": _dict,
    "collections.defaultdict": lambda *_: {},
}
