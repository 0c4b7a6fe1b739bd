"""Columns of parquet files as numpy arrays, the last used ones kept in memory."""

from __future__ import annotations

import collections
import io
import pathlib
import threading
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

DEFAULT_CACHE_BYTES = 1 << 30


class TableCache:
    """Reads columns on demand and keeps those used last, up to `max_bytes`. Threads may share it; pickles empty."""

    def __init__(self, max_bytes: int = DEFAULT_CACHE_BYTES) -> None:
        self.max_bytes = max_bytes
        self._items: collections.OrderedDict[tuple, Any] = collections.OrderedDict()
        self._bytes = 0
        self._lock = threading.RLock()

    def __reduce__(self) -> tuple:
        return type(self), (self.max_bytes,)

    def column(self, path: pathlib.Path, key: str) -> np.ndarray:
        """The numeric or text column `key`, [rows, ...].

        Raises:
            OSError, KeyError, ValueError: unreadable file, no such column, rows of different lengths.
        """
        with self._lock:
            cached = self._get((path, key))
            if cached is None:
                cached = to_numpy(_read_column(path, key))
                self._put((path, key), cached, cached.nbytes)
            return cached

    def image(self, path: pathlib.Path, key: str, row: int) -> np.ndarray:
        """The image of one row of a column with encoded images, uint8 [H, W, C]."""
        with self._lock:
            file = self._get((path,))
            if file is None:
                file = pq.ParquetFile(path, memory_map=True)
                self._put((path,), file, 0)
            group, offset = _row_group(file, row)
            column = self._get((path, key, group))
            if column is None:
                column = file.read_row_group(group, columns=[key]).column(0)
                self._put((path, key, group), column, column.nbytes)
        return np.array(Image.open(io.BytesIO(column[offset].as_py()["bytes"])).convert("RGB"))

    def _get(self, name: tuple) -> Any:
        if name not in self._items:
            return None
        self._items.move_to_end(name)
        return self._items[name][0]

    def _put(self, name: tuple, value: Any, size: int) -> None:
        self._items[name] = (value, size)
        self._bytes += size
        while self._bytes > self.max_bytes and len(self._items) > 1:
            _, (_, dropped) = self._items.popitem(last=False)
            self._bytes -= dropped


def _read_column(path: pathlib.Path, key: str) -> pa.ChunkedArray:
    table = pq.read_table(path, columns=[key])
    if not table.num_columns:
        raise KeyError(f"no column {key!r} in {path.name}")
    return table.column(0)


def _row_group(file: pq.ParquetFile, row: int) -> tuple[int, int]:
    for group in range(file.num_row_groups):
        rows = file.metadata.row_group(group).num_rows
        if row < rows:
            return group, row
        row -= rows
    raise IndexError(f"row {row} is past the end of the table")


def to_numpy(column: pa.ChunkedArray) -> np.ndarray:
    """A column of numbers, text or (nested) lists of numbers as one array, [rows, ...]."""
    values: pa.Array = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
    shape = [len(values)]
    while pa.types.is_list(values.type) or pa.types.is_large_list(values.type) or _is_fixed_list(values.type):
        flat = values.flatten()
        if values.null_count or len(flat) % max(len(values), 1) or not _equal_lengths(values):
            raise ValueError("rows of different lengths")
        shape.append(len(flat) // max(len(values), 1))
        values = flat
    return values.to_numpy(zero_copy_only=False).reshape(shape)


def _is_fixed_list(kind: pa.DataType) -> bool:
    return pa.types.is_fixed_size_list(kind)


def _equal_lengths(values: pa.Array) -> bool:
    if _is_fixed_list(values.type):
        return True
    lengths = np.diff(values.offsets.to_numpy())
    return bool(np.all(lengths == lengths[:1]))
