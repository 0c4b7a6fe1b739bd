"""Datasets whose samples go through transforms as they are read, and what is said where a transform fails."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, SupportsIndex

import numpy as np

from openpi import transforms as _transforms
from openpi.training import batching
from openpi.training.datasets import BadSampleError, LeRobotDataset
from openpi.training.datasets.errors import OnBad
from openpi.training.datasets.own import OwnDataset

# What a transform raises at a sample that it cannot take.
_SAMPLE_ERRORS = (KeyError, ValueError, TypeError, IndexError)


class TransformedDataset:
    """Applies transforms to each sample as it is read.

    Raises:
        BadSampleError: a transform failed; names dataset, episode and frame where the sample has them.
    """

    def __init__(self, dataset: batching.RandomAccess, transforms: Sequence[_transforms.DataTransformFn]) -> None:
        self.dataset = dataset
        self._transform = _transforms.compose(transforms)

    def __getitem__(self, index: SupportsIndex) -> Any:
        sample = self.dataset[index]
        try:
            return self._transform(sample)
        except BadSampleError:
            raise
        except _SAMPLE_ERRORS as error:
            source = source_of(self.dataset)
            if not isinstance(source, LeRobotDataset | OwnDataset):
                raise
            raise _failed(source.name, *source.locate(index), error) from error

    def __len__(self) -> int:
        return len(self.dataset)


class IterableTransformedDataset:
    """Applies transforms to a stream of samples; batches are taken apart for it, since transforms take one sample.

    Args:
        on_bad: "skip" leaves bad samples out, in batches with good ones in their place (`skipped` counts).

    Raises:
        BadSampleError: a transform failed; names dataset, episode and frame where the sample has them.
    """

    def __init__(
        self,
        dataset: Iterable[Any],
        transforms: Sequence[_transforms.DataTransformFn],
        *,
        is_batched: bool = False,
        on_bad: OnBad = "raise",
    ) -> None:
        self.dataset = dataset
        self._transform = _transforms.compose(transforms)
        self._is_batched, self._on_bad = is_batched, on_bad
        self._skipped = 0

    @property
    def skipped(self) -> int:
        """Bad samples skipped so far, those that the dataset itself skipped included."""
        return self._skipped + getattr(self.dataset, "skipped", 0)

    def __iter__(self) -> Iterator[Any]:
        for item in self.dataset:
            if self._is_batched:
                samples, skipped = batching.made(self._transformed, batching.unstack(item), self._on_bad)
                self._skipped += skipped
                yield batching.stack(samples)
                continue
            try:
                sample = self._transformed(item)
            except BadSampleError:
                if self._on_bad == "raise":
                    raise
                self._skipped += 1
            else:
                yield sample

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]

    def _transformed(self, sample: Any) -> Any:
        try:
            return self._transform(sample)
        except _SAMPLE_ERRORS as error:
            if not isinstance(sample, Mapping) or not {"dataset", "episode", "frame"} <= sample.keys():
                raise
            raise _failed(str(sample["dataset"]), str(sample["episode"]), int(sample["frame"]), error) from error


class KeptDataset:
    """Makes each sample once and keeps it."""

    def __init__(self, dataset: batching.RandomAccess) -> None:
        self._dataset = dataset
        self._kept: dict[int, Any] = {}

    def __getitem__(self, index: SupportsIndex) -> Any:
        position = int(index)
        if position not in self._kept:
            self._kept[position] = self._dataset[position]
        return self._kept[position]

    def __len__(self) -> int:
        return len(self._dataset)


def source_of(dataset: Any) -> Any:
    """The dataset that transforms were put around."""
    while isinstance(dataset, TransformedDataset):
        dataset = dataset.dataset
    return dataset


def _failed(dataset: str, episode: int | str | None, frame: int, error: Exception) -> BadSampleError:
    # The text of a bare KeyError is the key alone.
    reason = str(error) if " " in str(error) else repr(error)
    return BadSampleError(dataset, episode, frame, f"a transform failed: {reason}")


@dataclasses.dataclass(frozen=True)
class CheckVectors(_transforms.DataTransformFn):
    """Lets a sample pass whose state and actions are numbers that a model can learn from.

    Attributes:
        lengths: by key, how many values a vector may have, where the model says so.

    Raises:
        ValueError: one of them is empty, holds NaN or infinity, or has another number of values.
    """

    lengths: Mapping[str, range] = dataclasses.field(default_factory=dict)

    def __call__(self, data: dict) -> dict:
        for key in ("state", "actions"):
            values = np.asarray(data.get(key, 0.0))
            if not values.size:
                raise ValueError(f"'{key}' is empty, of shape {values.shape}.")
            if not np.isfinite(values).all():
                raise ValueError(f"'{key}' is not finite: {values.tolist()}.")
            allowed = self.lengths.get(key)
            if allowed and values.ndim and values.shape[-1] not in allowed:
                most = f"{'at most ' if len(allowed) > 1 else ''}{allowed[-1]}"
                raise ValueError(f"'{key}' has {values.shape[-1]} values; the model takes {most}.")
        return data
