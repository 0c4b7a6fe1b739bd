"""DROID in RLDS format (TensorFlow Datasets), mixed with other datasets recorded in the same way.

Only the reading of files needs `tensorflow-datasets`; choosing, chunking and shuffling are plain numpy.
"""

from __future__ import annotations

import itertools
import json
import pathlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np

from openpi.shared import download
from openpi.training.batching import Share, made, stack
from openpi.training.datasets.droid_episodes import EXTERIOR, WRIST, Cutter, Episode, decoded
from openpi.training.datasets.errors import BadSampleError, DatasetError, OnBad

# Opens a dataset of a folder as episodes, shuffled by a seed or (None) in order.
Read = Callable[[str, "MixturePart", int | None], Iterable[Episode]]
# The published filter of DROID 1.0.1 keeps about this many steps; used where no filter tells.
_DROID_STEPS = 20_000_000


class MixturePart(Protocol):
    """One dataset of a mixture: name and version for TFDS, its weight, and optionally a file of steps to keep."""

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> str: ...

    @property
    def weight(self) -> float: ...

    @property
    def filter_dict_path(self) -> str | None: ...


class DroidRldsDataset:
    """Batches {"actions" [B, H, 8], "observation": {...}, "prompt"} of steps of successful episodes.

    Actions are seven joint positions (rad) or velocities and the gripper position (0 open, 1 closed); the last action
    of an episode is repeated to fill a chunk. Of the two exterior cameras and the three instructions of an episode one
    each is drawn. "dataset", "episode" (recording folder and file) and "frame" say where a sample is from.

    With `shuffle` the stream mixes the datasets by weight, sample by sample, and begins anew where one has ended;
    without it is one pass over one after the other. The seed pins it: several processes draw the same batches, and one
    that begins at a later batch draws what is left.

    Args:
        data_dir: folder of the TFDS datasets.
        batch_size: samples a batch, of all processes together; an incomplete last batch is dropped.
        datasets: the mixture.
        action_chunk_size: H.
        action_space: its value is "joint_position" or "joint_velocity".
        shuffle: draw at random.
        repeat: False ends the shuffled stream, too, when every sample was drawn once.
        seed: pins the draws.
        shuffle_buffer_size: samples (with undecoded images) that are drawn from.
        start_batch: number of the first batch of a shuffled stream; what comes before is read but not decoded.
        share: the part of each batch that this process decodes.
        on_bad: "raise" at a step or an episode that cannot be used, or "skip" it (`skipped` counts).
        decode_images: False gives black stamps for images, for passes over the numbers alone.
        read: opens one dataset as episodes; the default reads TFDS.

    Raises:
        ImportError: `tensorflow-datasets` is not installed.
        ValueError: there is no dataset, a weight is not positive, or `start_batch` is given without `shuffle`.
        BadSampleError: names dataset, episode and frame of what is missing, broken, misshapen or not finite.
        DatasetError: the files of a dataset cannot be read.
    """

    def __init__(
        self,
        data_dir: str,
        batch_size: int,
        *,
        datasets: Sequence[MixturePart],
        action_chunk_size: int,
        action_space: Any,
        shuffle: bool = True,
        repeat: bool = True,
        seed: int = 0,
        shuffle_buffer_size: int = 250_000,
        start_batch: int = 0,
        share: Share | None = None,
        on_bad: OnBad = "raise",
        decode_images: bool = True,
        read: Read | None = None,
    ) -> None:
        if not datasets or any(part.weight <= 0 for part in datasets):
            raise ValueError(f"An RLDS mixture needs datasets with positive weights; got {list(datasets)}.")
        if start_batch and not shuffle:
            raise ValueError(f"Only a shuffled RLDS stream can begin at a later batch ({start_batch}); set shuffle.")
        if read is None:
            require_tfds()
        self.skipped = 0
        self._data_dir, self._parts, self._read = data_dir, tuple(datasets), read or read_tfds
        self._batch_size, self._share, self._start = batch_size, share or Share(), start_batch
        self._shuffle, self._repeat, self._seed, self._buffer_size = shuffle, repeat, seed, shuffle_buffer_size
        self._on_bad = on_bad
        space = str(getattr(action_space, "value", action_space)).lower()
        self._cutters = [
            Cutter(part.name, action_chunk_size, space, load_filter(part.filter_dict_path), decode_images)
            for part in datasets
        ]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """The batches, this process's share of each."""
        batches = grouped(self._samples(), self._batch_size)
        skipped = self.skipped
        for _ in range(self._start):
            next(batches)
        self.skipped = skipped
        for batch in batches:
            if len(batch) == self._batch_size:
                samples, bad = made(decoded, self._share.of(batch), self._on_bad)
                self.skipped += bad
                yield stack(samples)

    def __len__(self) -> int:
        """Number of batches in one pass, as far as the filters tell it."""
        return self.num_samples() // self._batch_size

    def num_samples(self) -> int:
        """Steps in one pass, as far as the filters tell it."""
        filters = [cutter.kept for cutter in self._cutters if cutter.kept]
        known = sum(end - start for kept in filters for ranges in kept.values() for start, end in ranges)
        return known or _DROID_STEPS

    def samples(self) -> Iterator[dict[str, Any]]:
        """One by one, those of the last incomplete batch included; bad ones are left out where they are skipped."""
        for sample in self._samples():
            try:
                yield decoded(sample)
            except BadSampleError as error:
                self._note(error)

    def _samples(self) -> Iterator[dict[str, Any]]:
        """The stream, images as they are stored."""
        rng = np.random.default_rng(self._seed)
        return self._mixed(rng) if self._shuffle else self._in_order(rng)

    def _in_order(self, rng: np.random.Generator) -> Iterator[dict[str, Any]]:
        for part, cutter in zip(self._parts, self._cutters, strict=True):
            yield from self._pass(part, cutter, rng)

    def _mixed(self, rng: np.random.Generator) -> Iterator[dict[str, Any]]:
        weights = np.array([part.weight for part in self._parts], float)
        size = max(1, self._buffer_size // len(self._parts))
        streams = [
            self._passes(part, cutter, size, rng) for part, cutter in zip(self._parts, self._cutters, strict=True)
        ]
        while weights.any():
            chosen = rng.choice(len(streams), p=weights / weights.sum())
            try:
                yield next(streams[chosen])
            except StopIteration:
                weights[chosen] = 0

    def _passes(
        self, part: MixturePart, cutter: Cutter, size: int, rng: np.random.Generator
    ) -> Iterator[dict[str, Any]]:
        """Pass after pass, each shuffled: none begins before the last is through, so a small one is held once."""
        while True:
            count = 0
            for sample in shuffled(self._pass(part, cutter, rng), size, rng):
                count += 1
                yield sample
            if not count:
                raise ValueError(f"No step of {part.name} {part.version} in {self._data_dir} is kept or can be used.")
            if not self._repeat:
                return

    def _pass(self, part: MixturePart, cutter: Cutter, rng: np.random.Generator) -> Iterator[dict[str, Any]]:
        seed = int(rng.integers(1 << 31)) if self._shuffle else None
        for number, episode in enumerate(self._episodes(part, seed)):
            for sample in cutter.samples(number, episode, rng):
                if isinstance(sample, BadSampleError):
                    self._note(sample)
                else:
                    yield sample

    def _episodes(self, part: MixturePart, seed: int | None) -> Iterator[Episode]:
        try:
            yield from self._read(self._data_dir, part, seed)
        except (GeneratorExit, ImportError):
            raise
        except Exception as error:
            raise DatasetError(
                part.name, f"version {part.version} in {self._data_dir} cannot be read: {error}"
            ) from error

    def _note(self, error: BadSampleError) -> None:
        if self._on_bad == "raise":
            raise error
        # Every process comes across it; one counts it.
        self.skipped += self._share.index == 0


def shuffled(samples: Iterator[Any], size: int, rng: np.random.Generator) -> Iterator[Any]:
    """The samples in random order, as far as a buffer of `size` of them allows."""
    buffer: list[Any] = []
    for sample in samples:
        if len(buffer) < size:
            buffer.append(sample)
            continue
        chosen = int(rng.integers(size))
        drawn, buffer[chosen] = buffer[chosen], sample
        yield drawn
    for index in rng.permutation(len(buffer)):
        yield buffer[index]


def grouped(samples: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """Lists of `size` of them; the last may be shorter."""
    iterator = iter(samples)
    while group := list(itertools.islice(iterator, size)):
        yield group


def load_filter(path: str | None) -> dict[str, list[tuple[int, int]]] | None:
    """Steps worth training on (where the robot moves): "<recording folder>--<file>" -> [(first, past the last)]."""
    if path is None:
        return None
    raw = json.loads(pathlib.Path(download.maybe_download(path)).read_text())
    return {key: [(int(start), int(end)) for start, end in ranges] for key, ranges in raw.items()}


def require_tfds() -> Any:
    """The `tensorflow_datasets` module.

    Raises:
        ImportError: it is not installed; says what to install.
    """
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise ImportError(
            "RLDS data is read with TensorFlow Datasets: pip install tensorflow-cpu tensorflow-datasets."
        ) from error
    return tfds


def read_tfds(data_dir: str, part: MixturePart, seed: int | None) -> Iterable[Episode]:
    """The episodes of a TFDS dataset, images undecoded; in an order that the seed pins, or (None) as stored."""
    tfds = require_tfds()
    builder = tfds.builder(part.name, data_dir=data_dir, version=part.version)
    images = {camera: tfds.decode.SkipDecoding() for camera in (*EXTERIOR, WRIST)}
    episodes = builder.as_dataset(
        split="train",
        shuffle_files=seed is not None,
        decoders={"steps": {"observation": images}},
        read_config=tfds.ReadConfig(shuffle_seed=seed),
    )
    return tfds.as_numpy(episodes)
