"""A user's dataset, any object with `__len__` and `__getitem__`, whose samples are checked as they are read."""

from __future__ import annotations

import collections
import functools
from collections.abc import Set
from typing import Any, SupportsIndex

import numpy as np

from openpi.shared import nested
from openpi.training.datasets.errors import BadSampleError

# Arrays of more axes are images, whose size may change from sample to sample.
_VECTOR_AXES = 2


class OwnDataset:
    """The samples of `dataset`, each checked to have vectors and chunks of the usual shape.

    Errors name the dataset by its `name`, where it has one, and a sample by episode and frame, where it has a method
    `locate(index) -> (episode, frame)` or its samples have `episode_index` and `frame_index`; else by its index.

    Args:
        dataset: samples are (nested) dicts.
        keys: the entries that are used, "/"-joined; None is all.

    Raises:
        BadSampleError: a sample cannot be read, or has another shape than others.
    """

    def __init__(self, dataset: Any, keys: Set[str] | None = None) -> None:
        self._dataset, self._keys = dataset, keys
        self.name = str(getattr(dataset, "name", type(dataset).__name__))

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: SupportsIndex) -> Any:
        try:
            sample = self._dataset[index]
        except Exception as error:  # whatever a user's reader raises: this one sample cannot be used
            raise self._bad(index, f"it cannot be read: {error!r}.") from error
        for key, shape in self._shapes(sample).items():
            usual = self._usual.get(key, shape)
            if shape != usual:
                raise self._bad(index, f"{key!r} has shape {shape}; others have {usual}.", sample)
        return sample

    def locate(self, index: SupportsIndex) -> tuple[int | None, int]:
        """Episode and frame of the sample, or None and its index."""
        try:
            return self._located(index, self._dataset[index])
        except Exception:  # it cannot be read
            return self._located(index, {})

    def _located(self, index: SupportsIndex, sample: Any) -> tuple[int | None, int]:
        locate = getattr(self._dataset, "locate", None)
        if locate is not None:
            return locate(index)
        if "episode_index" in sample and "frame_index" in sample:
            return int(sample["episode_index"]), int(sample["frame_index"])
        return None, int(index)

    def _bad(self, index: SupportsIndex, reason: str, sample: Any = ()) -> BadSampleError:
        return BadSampleError(self.name, *self._located(index, sample), reason)

    @functools.cached_property
    def _usual(self) -> dict[str, tuple[int, ...]]:
        """The shapes that most of the first, the middle and the last sample have."""
        seen: dict[str, collections.Counter] = collections.defaultdict(collections.Counter)
        for index in sorted({0, len(self) // 2, len(self) - 1}):
            try:
                sample = self._dataset[index]
            except Exception:  # said when its turn comes
                continue
            for key, shape in self._shapes(sample).items():
                seen[key][shape] += 1
        return {key: shapes.most_common(1)[0][0] for key, shapes in seen.items()}

    def _shapes(self, sample: Any) -> dict[str, tuple[int, ...]]:
        flat = nested.flatten_dict(sample) if isinstance(sample, dict) else {}
        used = {key: np.asarray(value) for key, value in flat.items() if self._keys is None or key in self._keys}
        return {key: array.shape for key, array in used.items() if 0 < array.ndim <= _VECTOR_AXES}
