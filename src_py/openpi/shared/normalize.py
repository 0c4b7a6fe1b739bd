"""Normalisation statistics: computed in one pass over batches, kept as `norm_stats.json`."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

# Quantiles are read off a histogram of this many bins between the smallest and the largest value seen.
NUM_BINS = 5000
# Keeps a constant dimension (deviation or quantile range 0) from dividing by zero.
EPS = 1e-6
FILE_NAME = "norm_stats.json"


@dataclasses.dataclass
class NormStats:
    """Statistics of one vector, float64 [d]: mean, population standard deviation, 1 % and 99 % quantiles."""

    mean: np.ndarray
    std: np.ndarray
    q01: np.ndarray | None = None
    q99: np.ndarray | None = None

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            setattr(self, field.name, None if value is None else np.asarray(value))


class RunningStats:
    """Accumulates the statistics of vectors that come in batches, in float64 and constant memory."""

    def __init__(self) -> None:
        self._count = 0

    def update(self, batch: np.ndarray) -> None:
        """Add vectors [..., d].

        Raises:
            ValueError: the vectors are empty, of another length than before, or hold NaN or infinity.
        """
        vectors = self._checked(np.asarray(batch))
        low, high = vectors.min(axis=0), vectors.max(axis=0)
        if self._count == 0:
            self._mean = np.zeros(vectors.shape[1])
            self._mean_of_squares = np.zeros(vectors.shape[1])
            self._histogram = _Histogram(low, high)
        self._histogram.stretch(low, high)
        self._histogram.add(vectors)
        self._count += len(vectors)
        share = len(vectors) / self._count
        self._mean += (vectors.mean(axis=0) - self._mean) * share
        self._mean_of_squares += ((vectors**2).mean(axis=0) - self._mean_of_squares) * share

    def get_statistics(self) -> NormStats:
        """The statistics of everything added so far.

        Raises:
            ValueError: fewer than two vectors were added.
        """
        if self._count < 2:
            raise ValueError(f"Statistics need at least 2 vectors; {self._count} were added.")
        variance = self._mean_of_squares - self._mean**2
        return NormStats(
            mean=self._mean.copy(),
            std=np.sqrt(np.maximum(variance, 0.0)),
            q01=self._histogram.quantile(0.01 * self._count),
            q99=self._histogram.quantile(0.99 * self._count),
        )

    def _checked(self, batch: np.ndarray) -> np.ndarray:
        if batch.ndim == 0 or batch.size == 0:
            raise ValueError(f"A batch must be [..., d] and not empty; got shape {batch.shape}.")
        vectors = batch.reshape(-1, batch.shape[-1]).astype(np.float64)
        if self._count and vectors.shape[1] != len(self._mean):
            raise ValueError(f"Vectors of {vectors.shape[1]} values came after vectors of {len(self._mean)}.")
        if not np.isfinite(vectors).all():
            bad = np.flatnonzero(~np.isfinite(vectors).all(axis=0)).tolist()
            raise ValueError(f"The batch holds NaN or infinity in dimensions {bad}; remove those samples.")
        return vectors


class _Histogram:
    """One histogram per dimension, re-binned when the range grows."""

    def __init__(self, low: np.ndarray, high: np.ndarray) -> None:
        self._low, self._high = low, high
        self._counts = np.zeros((len(low), NUM_BINS), np.int64)

    def stretch(self, low: np.ndarray, high: np.ndarray) -> None:
        """Widen the range to hold low..high [d]; counts move to the bin that their left edge falls in."""
        low, high = np.minimum(self._low, low), np.maximum(self._high, high)
        grown = np.flatnonzero((low < self._low) | (high > self._high))
        old_edges = self._edges()
        self._low, self._high = low, high
        for dim in grown:
            bins = self._bins(old_edges[dim], dim)
            self._counts[dim] = np.bincount(bins, weights=self._counts[dim], minlength=NUM_BINS)

    def add(self, vectors: np.ndarray) -> None:
        for dim, values in enumerate(vectors.T):
            self._counts[dim] += np.bincount(self._bins(values, dim), minlength=NUM_BINS)

    def quantile(self, target: float) -> np.ndarray:
        """Left edge [d] of the first bin where the cumulative count reaches `target`."""
        reached = np.cumsum(self._counts, axis=1) >= target
        return np.take_along_axis(self._edges(), reached.argmax(axis=1)[:, None], axis=1)[:, 0]

    def _edges(self) -> np.ndarray:
        return np.linspace(self._low, self._high, NUM_BINS, endpoint=False, axis=1)

    def _bins(self, values: np.ndarray, dim: int | np.integer) -> np.ndarray:
        width = (self._high[dim] - self._low[dim]) / NUM_BINS
        if width <= 0:  # a constant so far
            return np.zeros(len(values), np.int64)
        return np.clip((values - self._low[dim]) / width, 0, NUM_BINS - 1).astype(np.int64)


def normalize_zscore(x: Any, stats: NormStats) -> np.ndarray:
    """x [..., d] -> zero mean, unit deviation. Statistics longer than d are cut to it.

    Raises (as the next one does):
        ValueError: x is longer than the statistics.
    """
    x = np.asarray(x)
    return (x - _cut(stats.mean, x)) / (_cut(stats.std, x) + EPS)


def normalize_quantile(x: Any, stats: NormStats) -> np.ndarray:
    """x [..., d] -> q01 at -1, q99 at 1."""
    x = np.asarray(x)
    low, high = _cut(_given(stats.q01), x), _cut(_given(stats.q99), x)
    return (x - low) / (high - low + EPS) * 2.0 - 1.0


def unnormalize_zscore(x: Any, stats: NormStats) -> np.ndarray:
    """Undoes `normalize_zscore`; dimensions past the statistics count as mean 0, deviation 1."""
    x = np.asarray(x)
    missing = max(0, x.shape[-1] - stats.mean.shape[-1])
    mean = np.append(stats.mean, np.zeros(missing))[: x.shape[-1]]
    std = np.append(stats.std, np.ones(missing))[: x.shape[-1]]
    return x * (std + EPS) + mean


def unnormalize_quantile(x: Any, stats: NormStats) -> np.ndarray:
    """Undoes `normalize_quantile`; dimensions past the statistics stay as they are."""
    x = np.asarray(x)
    low, high = _given(stats.q01)[..., : x.shape[-1]], _given(stats.q99)[..., : x.shape[-1]]
    dim = low.shape[-1]
    known = (x[..., :dim] + 1.0) / 2.0 * (high - low + EPS) + low
    return np.concatenate([known, x[..., dim:]], axis=-1) if dim < x.shape[-1] else known


def serialize_json(norm_stats: Mapping[str, NormStats]) -> str:
    """The published file format: {"norm_stats": {key: {"mean": [...], "std": ..., "q01": ..., "q99": ...}}}."""
    entries = {key: {name: _as_list(value) for name, value in vars(stats).items()} for key, stats in norm_stats.items()}
    return json.dumps({"norm_stats": entries}, indent=2)


def deserialize_json(data: str) -> dict[str, NormStats]:
    """Read what `serialize_json` wrote.

    Raises:
        ValueError: the text is no JSON of that format.
    """
    try:
        entries = json.loads(data)["norm_stats"]
        return {key: _from_lists(value) for key, value in entries.items()}
    except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f'These are no normalisation statistics ({error!r}); expected {{"norm_stats": {{key: {{"mean": [...], '
            '"std": [...], "q01": [...] or null, "q99": [...] or null}}}.'
        ) from error


def save(directory: pathlib.Path | str, norm_stats: Mapping[str, NormStats]) -> None:
    """Write `directory`/norm_stats.json, making the folder where needed."""
    path = pathlib.Path(directory) / FILE_NAME
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(serialize_json(norm_stats))


def load(directory: pathlib.Path | str) -> dict[str, NormStats]:
    """Read `directory`/norm_stats.json.

    Raises:
        FileNotFoundError: it is not there.
        ValueError: it is malformed; names the file.
    """
    path = pathlib.Path(directory) / FILE_NAME
    if not path.exists():
        raise FileNotFoundError(f"No normalisation statistics at {path}; make them with `openpi norm-stats CONFIG`.")
    try:
        return deserialize_json(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _as_list(value: np.ndarray | None) -> list[float] | None:
    return None if value is None else np.asarray(value).tolist()


def _from_lists(entry: Mapping[str, Any]) -> NormStats:
    arrays = {name: None if entry.get(name) is None else np.asarray(entry[name], np.float64) for name in ("q01", "q99")}
    return NormStats(mean=np.asarray(entry["mean"], np.float64), std=np.asarray(entry["std"], np.float64), **arrays)


def _cut(stat: np.ndarray, x: np.ndarray) -> np.ndarray:
    if x.shape[-1] > stat.shape[-1]:
        raise ValueError(
            f"An array of {x.shape[-1]} values cannot be normalised with statistics of {stat.shape[-1]}; give it the "
            "length that the statistics were computed with."
        )
    return stat[..., : x.shape[-1]]


def _given(quantile: np.ndarray | None) -> np.ndarray:
    if quantile is None:
        raise ValueError("These statistics have no quantiles; compute them again with `openpi norm-stats`.")
    return quantile
