"""The loaders themselves: batches of random-access data or of a stream, put on the devices."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import grain.python as grain
import jax
import numpy as np
from jax.experimental import multihost_utils

from openpi.models import model as _model
from openpi.models_pytorch import require_torch
from openpi.training import batching
from openpi.training import config as _config

logger = logging.getLogger(__name__)


class SkipCount:
    """How many bad samples were skipped up to each batch: batches are made ahead of the step that uses them.

    Args:
        start: number of the first batch.
    """

    def __init__(self, start: int) -> None:
        self._start = start
        self._sums = [0]

    def add(self, skipped: int) -> None:
        """Count those of the next batch."""
        self._sums.append(self._sums[-1] + skipped)
        if skipped:
            logger.warning("Skipped %d bad samples so far.", self._sums[-1])

    def before(self, batch: int) -> int:
        """Those of the batches that come before this one."""
        return self._sums[min(batch - self._start, len(self._sums) - 1)]


class TorchDataLoader:
    """Batches of a random-access dataset, as arrays on the devices or as torch tensors.

    Args:
        dataset: samples are nested dicts of arrays.
        local_batch_size: samples a batch in this process.
        sharding: where the global batch goes (JAX); default: split over all devices.
        shuffle: every epoch in a new order.
        sampler: the order of one epoch as indices, instead of 0..len-1.
        num_batches: stop after so many; None goes on for ever.
        num_workers: worker processes; 0 loads on a background thread.
        seed: pins the order.
        framework: "jax" or "pytorch".
        on_bad: see `batching.batches`; `skips` counts.
        start_batch: number of the first batch.

    Raises:
        ValueError: the dataset is smaller than a batch.
    """

    def __init__(
        self,
        dataset: batching.RandomAccess,
        local_batch_size: int,
        *,
        sharding: jax.sharding.Sharding | None = None,
        shuffle: bool = False,
        sampler: Sequence[int] | None = None,
        num_batches: int | None = None,
        num_workers: int = 0,
        seed: int = 0,
        framework: str = "jax",
        on_bad: batching.OnBad = "raise",
        start_batch: int = 0,
    ) -> None:
        self._dataset = dataset
        self._share = _share(framework)
        order = None if sampler is None else np.asarray(list(sampler))
        self._plan = batching.BatchPlan(
            num_samples=len(dataset) if order is None else len(order),
            batch_size=local_batch_size * self._share.count,
            shuffle=shuffle,
            seed=seed,
            order=order,
        )
        self._num_batches, self._num_workers = num_batches, num_workers
        self._on_bad, self._start = on_bad, start_batch
        self._convert = _converter(framework, sharding)
        self.skips = SkipCount(start_batch)

    @property
    def torch_loader(self) -> grain.DatasetIterator:
        """The batches as the loader makes them: numpy, before they go to a device."""
        return batching.batches(
            self._dataset,
            self._plan,
            share=self._share,
            start=self._start,
            num_workers=self._num_workers,
            on_bad=self._on_bad,
        )

    def __iter__(self) -> Iterator[Any]:
        self.skips = SkipCount(self._start)
        # Closing stops the workers now, not when the interpreter ends.
        with batching.closing(self.torch_loader) as stream:
            for batch in itertools.islice(stream, self._num_batches):
                self.skips.add(batch["skipped"])
                yield self._convert(batch["data"])


class RLDSDataLoader:
    """Batches of a stream on the devices; its passes follow each other until `num_batches`.

    Args:
        dataset: yields this process's part of each batch; if it has `skipped`, the bad samples it skipped so far.
        sharding: where the global batch goes; default: split over all devices.
        num_batches: stop after so many; None goes on for ever.
        start_batch: number of the stream's first batch.

    Raises:
        ValueError: a pass has no batch.
    """

    def __init__(
        self,
        dataset: Iterable[Any],
        *,
        sharding: jax.sharding.Sharding | None = None,
        num_batches: int | None = None,
        start_batch: int = 0,
    ) -> None:
        self._dataset = dataset
        self._num_batches, self._start = num_batches, start_batch
        self._convert = _converter("jax", sharding)
        self.skips = SkipCount(start_batch)

    def __iter__(self) -> Iterator[Any]:
        self.skips = SkipCount(self._start)
        for batch, skipped in itertools.islice(self._passes(), self._num_batches):
            self.skips.add(skipped)
            yield self._convert(batch)

    def _passes(self) -> Iterator[tuple[Any, int]]:
        """The batches, and how many bad samples were skipped for each."""
        before, any_batch = getattr(self._dataset, "skipped", 0), True
        while any_batch:
            any_batch = False
            for batch in self._dataset:
                any_batch = True
                now = getattr(self._dataset, "skipped", 0)
                yield batch, now - before
                before = now
        raise ValueError("The RLDS dataset has no batch: its filters keep nothing, or it is empty.")


class DataLoaderImpl:
    """Turns batches into (Observation, actions).

    Args:
        skipped: bad samples skipped in the batches before the loader's first one.
    """

    def __init__(
        self, data_config: _config.DataConfig, data_loader: TorchDataLoader | RLDSDataLoader, *, skipped: int = 0
    ) -> None:
        self._data_config = data_config
        self._data_loader = data_loader
        self._skipped = skipped

    def data_config(self) -> _config.DataConfig:
        return self._data_config

    def skipped_before(self, batch: int) -> int:
        """Bad samples skipped in the batches before this one, by all processes, which must call this together."""
        here = np.asarray(self._data_loader.skips.before(batch))
        return self._skipped + int(np.sum(multihost_utils.process_allgather(here)))

    def __iter__(self) -> Iterator[tuple[_model.Observation, _model.Actions]]:
        with batching.closing(iter(self._data_loader)) as batches:
            for batch in batches:
                yield _model.Observation.from_dict(batch), batch["actions"]


def _share(framework: str) -> batching.Share:
    if framework == "jax":
        return batching.Share(jax.process_index(), jax.process_count())
    return batching.Share()


def _converter(framework: str, sharding: jax.sharding.Sharding | None) -> Callable[[Any], Any]:
    if framework == "pytorch":
        require_torch()
        import torch

        return lambda batch: jax.tree.map(torch.as_tensor, batching.numeric(batch))
    if framework != "jax":
        raise ValueError(f"framework is {framework!r}; allowed: 'jax', 'pytorch'.")
    placed = sharding or jax.sharding.NamedSharding(
        jax.sharding.Mesh(np.asarray(jax.devices()), ("batch",)), jax.sharding.PartitionSpec("batch")
    )
    return lambda batch: jax.tree.map(
        lambda x: jax.make_array_from_process_local_data(placed, _as_jax(x)), batching.numeric(batch)
    )


def _as_jax(array: np.ndarray) -> np.ndarray:
    # JAX has no 64-bit types by default; casting here keeps the transfer half as large. A copy, as JAX on a CPU would
    # hold on to a worker's shared memory, and let go of it too late for it to be freed in good order.
    dtype = {"float64": np.float32, "int64": np.int32}.get(array.dtype.name, array.dtype)
    return np.array(array, dtype)
