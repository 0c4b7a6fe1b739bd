"""The per-feature statistics that LeRobot keeps in a dataset's `meta/` folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

Stats = dict[str, np.ndarray]


def feature_stats(values: np.ndarray) -> Stats:
    """min, max, mean, std [D] and count [1] over the rows of `values`, [N, ...] (N >= 1)."""
    rows = np.asarray(values, np.float64).reshape(len(values), -1)
    return {
        "min": rows.min(0),
        "max": rows.max(0),
        "mean": rows.mean(0),
        "std": rows.std(0),
        "count": np.array([len(rows)]),
    }


def image_stats(images: Sequence[np.ndarray]) -> Stats:
    """As `feature_stats`, per channel of images uint8 [H, W, C] scaled to [0, 1]; shapes [C, 1, 1]."""
    pixels = np.concatenate([image.reshape(-1, image.shape[-1]) for image in images]).astype(np.float64) / 255.0
    stats = {key: value.reshape(-1, 1, 1) for key, value in feature_stats(pixels).items() if key != "count"}
    return stats | {"count": np.array([len(images)])}


def merge_stats(parts: Sequence[Mapping[str, np.ndarray]]) -> Stats:
    """The statistics of all rows together, from those of disjoint parts."""
    counts = np.array([float(part["count"][0]) for part in parts])
    weights = (counts / counts.sum()).reshape(-1, *[1] * np.ndim(parts[0]["mean"]))
    means = np.stack([part["mean"] for part in parts])
    variances = np.stack([np.square(part["std"]) for part in parts])
    mean = (weights * means).sum(0)
    return {
        "min": np.min([part["min"] for part in parts], axis=0),
        "max": np.max([part["max"] for part in parts], axis=0),
        "mean": mean,
        "std": np.sqrt((weights * (variances + np.square(means - mean))).sum(0)),
        "count": np.array([int(counts.sum())]),
    }


def to_json(stats: Mapping[str, Mapping[str, np.ndarray]]) -> dict[str, Any]:
    """Nested lists instead of arrays."""
    return {key: {name: value.tolist() for name, value in part.items()} for key, part in stats.items()}


def from_json(raw: Mapping[str, Mapping[str, Any]]) -> dict[str, Stats]:
    """The inverse of `to_json`."""
    return {key: {name: np.asarray(value) for name, value in part.items()} for key, part in raw.items()}
