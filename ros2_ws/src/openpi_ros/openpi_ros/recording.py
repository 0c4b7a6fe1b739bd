"""Observations and their chunks on disk, exactly as a policy saw them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np


class ObservationRecorder:
    """Writes one `NNNNNN.npz` a chunk: keys joined by '|' below `obs` and `result`, plain arrays, no pickles."""

    def __init__(self, folder: str) -> None:
        """Raises OSError if the folder cannot be made."""
        self._folder = Path(folder)
        self._folder.mkdir(parents=True, exist_ok=True)

    def save(self, chunk_id: int, obs: Mapping[str, Any], result: Mapping[str, Any]) -> None:
        """Writes the record of one chunk."""
        arrays: dict[str, Any] = dict(_flat("obs", obs)) | dict(_flat("result", result))
        np.savez(self._folder / f"{chunk_id:06d}.npz", **arrays)


def load_record(path: Path) -> dict[str, dict[str, Any]]:
    """A record as nested dicts {"obs": ..., "result": ...}; texts come back as str."""
    with np.load(path) as file:
        tree: dict[str, Any] = {}
        for key, value in file.items():
            *parents, leaf = key.split("|")
            place = tree
            for parent in parents:
                place = place.setdefault(parent, {})
            place[leaf] = str(value) if value.dtype.kind == "U" else value
    return tree


def _flat(prefix: str, value: Any) -> list[tuple[str, np.ndarray]]:
    # '|' between levels: keys such as "rtc/delay" have slashes of their own.
    if isinstance(value, Mapping):
        return [pair for key, child in value.items() for pair in _flat(f"{prefix}|{key}", child)]
    return [(prefix, np.asarray(value))]
