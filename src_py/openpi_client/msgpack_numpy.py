"""msgpack with numpy arrays and scalars: the wire format between policy clients and servers.

An array travels as the map {b"__ndarray__": true, b"data": bytes in C order, b"dtype": "<f4", b"shape": [..]}, a
numpy scalar as {b"__npgeneric__": true, b"data": value, b"dtype": "<f4"}; the keys are of msgpack's bin type, in
this order. Object, structured and complex dtypes are refused both ways: nothing that could run code is ever read.
Arrays come back read-only, sharing the message's memory.
"""

import functools
import math
from typing import Any

import msgpack
import numpy as np

_REFUSED_KINDS = "VOc"  # structured (and raw void), object, complex
_SCALAR_KINDS = "biufSU"
_BUFFER_KINDS = "biuf"  # msgpack copies such an array's memory itself


class WireFormatError(ValueError):
    """A message that the wire format does not allow."""


def pack_array(obj: Any) -> Any:
    """Turn an array or numpy scalar into its map, leave anything else alone. Raises ValueError for refused dtypes."""
    if isinstance(obj, np.ndarray):
        _check_dtype(obj.dtype)
        data = obj.data if obj.flags.c_contiguous and obj.dtype.kind in _BUFFER_KINDS else obj.tobytes()
        return {b"__ndarray__": True, b"data": data, b"dtype": obj.dtype.str, b"shape": obj.shape}
    if isinstance(obj, np.generic):
        _check_dtype(obj.dtype)
        return {b"__npgeneric__": True, b"data": obj.item(), b"dtype": obj.dtype.str}
    return obj


def unpack_array(obj: dict[Any, Any]) -> Any:
    """Turn a map made by `pack_array` back into its array or scalar, leave any other map alone.

    Raises WireFormatError where dtype, shape and the number of bytes do not belong together.
    """
    if b"__ndarray__" in obj:
        return _array(obj)
    if b"__npgeneric__" in obj:
        return _scalar(obj)
    return obj


def _array(obj: dict[Any, Any]) -> np.ndarray:
    dtype, data, shape = _dtype(obj), obj.get(b"data"), obj.get(b"shape")
    if not isinstance(data, bytes):
        raise WireFormatError(f"an array's data must be bytes, got {type(data).__name__}")
    if not isinstance(shape, list | tuple) or not all(type(n) is int and n >= 0 for n in shape):
        raise WireFormatError(f"an array's shape must be a list of non-negative integers, got {_short(shape)}")
    size = math.prod(shape) * dtype.itemsize
    if len(data) != size or len(shape) > 32:
        raise WireFormatError(
            f"an array of shape {_short(list(shape))} and dtype {dtype.str} has {_short(size)} bytes, got {len(data)}"
        )
    return np.ndarray(buffer=data, dtype=dtype, shape=tuple(shape))


def _scalar(obj: dict[Any, Any]) -> Any:
    dtype, data = _dtype(obj), obj.get(b"data")
    if dtype.kind not in _SCALAR_KINDS or not isinstance(data, bool | int | float | str | bytes):
        raise WireFormatError(f"a numpy scalar needs a plain value, got {type(data).__name__} for dtype {dtype.str}")
    try:
        return dtype.type(data)
    except (ValueError, TypeError, OverflowError) as error:
        raise WireFormatError(f"{_short(data)} is no value of dtype {dtype.str}") from error


def _dtype(obj: dict[Any, Any]) -> np.dtype:
    name = obj.get(b"dtype")
    if not isinstance(name, str):
        raise WireFormatError(f"a dtype must be a string such as '<f4', got {_short(name)}")
    return _dtype_named(name)


@functools.lru_cache(maxsize=64)
def _dtype_named(name: str) -> np.dtype:
    try:
        dtype = np.dtype(name)
    except (TypeError, ValueError, SyntaxError) as error:
        raise WireFormatError(f"{_short(name)} is no numpy dtype") from error
    _check_dtype(dtype)
    if dtype.itemsize == 0 and dtype.kind not in "SU":
        raise WireFormatError(f"dtype {_short(name)} has no size")
    return dtype


def _check_dtype(dtype: np.dtype) -> None:
    if dtype.kind in _REFUSED_KINDS:
        raise WireFormatError(
            f"Unsupported dtype: {dtype}. Arrays on the wire are of bool, integer, float or string dtype"
        )


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


Packer = functools.partial(msgpack.Packer, default=pack_array)
packb = functools.partial(msgpack.packb, default=pack_array)
Unpacker = functools.partial(msgpack.Unpacker, object_hook=unpack_array)
unpackb = functools.partial(msgpack.unpackb, object_hook=unpack_array)
