"""Batches of a random-access dataset, in an order pinned by a seed, made ahead by `grain`'s threads or workers.

Batch k is a pure function of (seed, k): a run that resumes at step k asks for batch k and goes on exactly, in the
middle of an epoch too, whatever the number of workers or of processes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, SupportsIndex, TypeVar

import absl.flags
import grain.python as grain
import jax
import numpy as np

from openpi.training.datasets.errors import BadSampleError, OnBad

T = TypeVar("T")
Item = TypeVar("Item")
# Batches kept ready by each worker, or by the background thread where there are no workers.
_BATCHES_AHEAD = 2
_ENDLESS = 1 << 40
# After this many bad samples in a row the dataset is broken, not a sample.
_MAX_SKIPS = 1000


class RandomAccess(Protocol):
    """Any object with a length and samples by index."""

    def __getitem__(self, index: SupportsIndex) -> Any: ...

    def __len__(self) -> int: ...


@dataclasses.dataclass(frozen=True)
class Share:
    """Which part of each global batch this process loads: the `index`-th of `count` equal ones, in order."""

    index: int = 0
    count: int = 1

    def of(self, batch: Sequence[T]) -> Sequence[T]:
        """This process's part of a global batch."""
        size = len(batch) // self.count
        return batch[self.index * size : (self.index + 1) * size]


@dataclasses.dataclass(frozen=True)
class BatchPlan:
    """The order of samples: epoch by epoch, each shuffled anew; what does not fill a batch is left out of its epoch."""

    num_samples: int
    batch_size: int
    shuffle: bool = False
    seed: int = 0
    order: Sequence[int] | np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.num_samples < self.batch_size:
            raise ValueError(
                f"The dataset has {self.num_samples} samples, less than one batch of {self.batch_size}. "
                f"Lower batch_size or add data."
            )

    def indices(self, number: int) -> np.ndarray:
        """The samples of batch `number`, int64 [batch_size]."""
        epoch, place = divmod(number, self.num_samples // self.batch_size)
        chosen = place * self.batch_size + np.arange(self.batch_size)
        if self.shuffle:
            chosen = _permutation(self.num_samples, self.seed, epoch)[chosen]
        return chosen if self.order is None else np.asarray(self.order)[chosen]


# Whole epochs: an index at a time, as grain shuffles, takes a millisecond each where there are few of them.
@functools.lru_cache(maxsize=2)
def _permutation(count: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(count)


@dataclasses.dataclass(frozen=True)
class _LoadBatch:
    """Batch number -> {"data": samples stacked on a new first axis, "skipped": bad samples replaced}."""

    dataset: RandomAccess
    plan: BatchPlan
    share: Share
    on_bad: OnBad

    def __call__(self, number: int) -> dict[str, Any]:
        loaded = [self._sample(index) for index in self.share.of(self.plan.indices(number).tolist())]
        return {"data": stack([sample for sample, _ in loaded]), "skipped": sum(skipped for _, skipped in loaded)}

    def _sample(self, index: int) -> tuple[Any, int]:
        if self.on_bad == "raise":
            return self.dataset[index], 0
        for skipped in range(min(_MAX_SKIPS, len(self.dataset))):
            try:
                return self.dataset[(index + skipped) % len(self.dataset)], skipped
            except BadSampleError as error:
                last = error
        raise last


def batches(
    dataset: RandomAccess,
    plan: BatchPlan,
    *,
    share: Share | None = None,
    start: int = 0,
    num_workers: int = 0,
    on_bad: OnBad = "raise",
) -> grain.DatasetIterator:
    """Endless batches from number `start` on; `close()` of the iterator stops its workers.

    Args:
        dataset: samples are (nested) dicts of arrays; with workers it must pickle.
        plan: order and size of the global batches.
        share: the part that this process loads.
        start: number of the first batch: the step to resume at.
        num_workers: worker processes; 0 loads on a background thread of this one.
        on_bad: what a `BadSampleError` does: "raise", or "skip": the next good sample takes the place.

    Yields:
        {"data": batch, "skipped": number of samples replaced in it}
    """
    load = _LoadBatch(dataset, plan, share or Share(), on_bad)
    loaded = grain.MapDataset.range(start, _ENDLESS).map(load)
    # One reading thread: a user's dataset need not be safe for several.
    stream = loaded.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=_BATCHES_AHEAD))
    if num_workers:
        if not absl.flags.FLAGS.is_parsed():
            # grain reads its flags through absl; their defaults are what we want.
            absl.flags.FLAGS.mark_as_parsed()
        options = grain.MultiprocessingOptions(num_workers=num_workers, per_worker_buffer_size=_BATCHES_AHEAD)
        stream = stream.mp_prefetch(options)
    return iter(stream)


@contextlib.contextmanager
def closing(stream: Iterator[T]) -> Iterator[Iterator[T]]:
    """Closes the iterator at the end of the block, if it can be closed: its workers stop then."""
    try:
        yield stream
    finally:
        close = getattr(stream, "close", None)
        if close is not None:
            close()


def made(make: Callable[[Item], T], items: Sequence[Item], on_bad: OnBad) -> tuple[list[T], int]:
    """`make(item)` of every item. With "skip", what a bad one would have been is replaced by what good ones gave.

    Returns:
        The results, and how many of them were replaced.

    Raises:
        BadSampleError: an item is bad, or with "skip" all are.
    """
    results: list[T | BadSampleError] = []
    for item in items:
        try:
            results.append(make(item))
        except BadSampleError as error:
            if on_bad == "raise":
                raise
            results.append(error)
    good = [result for result in results if not isinstance(result, BadSampleError)]
    bad = [result for result in results if isinstance(result, BadSampleError)]
    if bad and not good:
        raise bad[0]
    spare = itertools.cycle(good)
    return [next(spare) if isinstance(result, BadSampleError) else result for result in results], len(bad)


def stack(samples: Sequence[Any]) -> Any:
    """Equal nested dicts as one with arrays [len(samples), ...]; text becomes an array of str."""
    first = samples[0]
    if isinstance(first, dict):
        return {key: stack([sample[key] for sample in samples]) for key in first}
    return np.stack([np.asarray(sample) for sample in samples])


def unstack(batch: Any) -> list[Any]:
    """The samples of a batch: the inverse of `stack`."""
    size = len(jax.tree.leaves(batch)[0])
    return [jax.tree.map(lambda array, i=i: array[i], batch) for i in range(size)]


def numeric(tree: Any) -> Any:
    """The nested dict without its text leaves, which no accelerator takes."""
    if not isinstance(tree, dict):
        return tree
    kept = {key: numeric(value) for key, value in tree.items()}
    return {key: value for key, value in kept.items() if isinstance(value, dict) or value.dtype.kind not in "USO"}
