"""DROID in RLDS format (TensorFlow Datasets), mixed with other datasets recorded in the same way.

Only the reading of files needs `tensorflow-datasets`; choosing, chunking and shuffling are plain numpy.
"""

from __future__ import annotations

import io
import json
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from PIL import Image

from openpi.shared import download
from openpi.training.batching import stack

Episode = Mapping[str, Any]
# The published filter of DROID 1.0.1 keeps about this many steps; used where no filter tells.
_DROID_STEPS = 20_000_000
_INSTRUCTIONS = ("language_instruction", "language_instruction_2", "language_instruction_3")
_EXTERIOR = ("exterior_image_1_left", "exterior_image_2_left")


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
    each is drawn. With `shuffle` the stream is endless and mixes the datasets by weight, sample by sample; without
    it is one pass over one after the other.

    Args:
        data_dir: folder of the TFDS datasets.
        batch_size: samples a batch; an incomplete last batch is dropped.
        datasets: the mixture.
        action_chunk_size: H.
        action_space: its value is "joint_position" or "joint_velocity".
        shuffle: draw at random.
        seed: pins the draws.
        shuffle_buffer_size: samples (with undecoded images) that are drawn from.
        read: opens one dataset as episodes; the default reads TFDS.

    Raises:
        ImportError: `tensorflow-datasets` is not installed.
        ValueError: there is no dataset, or a weight is not positive.
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
        seed: int = 0,
        shuffle_buffer_size: int = 250_000,
        read: Callable[[str, MixturePart, bool], Iterable[Episode]] | None = None,
    ) -> None:
        if not datasets or any(part.weight <= 0 for part in datasets):
            raise ValueError(f"An RLDS mixture needs datasets with positive weights; got {list(datasets)}.")
        if read is None:
            require_tfds()
        self._data_dir, self._parts, self._read = data_dir, tuple(datasets), read or read_tfds
        self._batch_size, self._chunk = batch_size, action_chunk_size
        self._action_key = str(getattr(action_space, "value", action_space)).lower()
        self._shuffle, self._seed, self._buffer_size = shuffle, seed, shuffle_buffer_size
        self._kept = [load_filter(part.filter_dict_path) for part in datasets]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        rng = np.random.default_rng(self._seed)
        samples = self._mixed(rng) if self._shuffle else self._in_order(rng)
        batch = []
        for sample in samples:
            batch.append(_decoded(sample))
            if len(batch) == self._batch_size:
                yield stack(batch)
                batch = []

    def __len__(self) -> int:
        """Number of batches in one pass, as far as the filters tell it."""
        known = [sum(end - start for ranges in kept.values() for start, end in ranges) for kept in self._kept if kept]
        return (sum(known) or _DROID_STEPS) // self._batch_size

    def _in_order(self, rng: np.random.Generator) -> Iterator[dict[str, Any]]:
        for part, kept in zip(self._parts, self._kept, strict=True):
            yield from self._pass(part, kept, rng)

    def _mixed(self, rng: np.random.Generator) -> Iterator[dict[str, Any]]:
        weights = np.array([part.weight for part in self._parts])
        size = max(1, self._buffer_size // len(self._parts))
        streams = [
            shuffled(self._endless(part, kept, rng), size, rng)
            for part, kept in zip(self._parts, self._kept, strict=True)
        ]
        while True:
            yield next(streams[rng.choice(len(streams), p=weights / weights.sum())])

    def _endless(self, part: MixturePart, kept: Mapping | None, rng: np.random.Generator) -> Iterator[dict[str, Any]]:
        while True:
            count = 0
            for sample in self._pass(part, kept, rng):
                count += 1
                yield sample
            if not count:
                raise ValueError(f"The filters keep no step of {part.name} {part.version} in {self._data_dir}.")

    def _pass(self, part: MixturePart, kept: Mapping | None, rng: np.random.Generator) -> Iterator[dict[str, Any]]:
        for episode in self._read(self._data_dir, part, self._shuffle):
            yield from samples_of_episode(episode, self._chunk, self._action_key, kept, rng)


def samples_of_episode(
    episode: Episode, chunk: int, action_key: str, kept: Mapping[str, Any] | None, rng: np.random.Generator
) -> Iterator[dict[str, Any]]:
    """One sample for each kept step of a successful episode; images stay as they are stored."""
    folder, path = (_text(episode["episode_metadata"][key]) for key in ("recording_folderpath", "file_path"))
    if "success" not in path:
        return
    steps = list(episode["steps"])
    actions = np.stack([_action(step, action_key) for step in steps])
    camera = _EXTERIOR[rng.integers(len(_EXTERIOR))]
    prompts = [text for key in _INSTRUCTIONS if (text := _text(steps[0].get(key, b"")))]
    prompt = prompts[rng.integers(len(prompts))] if prompts else ""
    for start, end in _ranges(kept, f"{folder}--{path}", len(steps)):
        for index in range(start, min(end, len(steps))):
            ahead = np.minimum(np.arange(index, index + chunk), len(steps) - 1)
            yield {
                "actions": actions[ahead],
                "observation": _observation(steps[index]["observation"], camera),
                "prompt": prompt,
            }


def _ranges(kept: Mapping[str, Any] | None, key: str, length: int) -> Sequence[tuple[int, int]]:
    return [(0, length)] if kept is None else kept.get(key, [])


def _action(step: Mapping[str, Any], key: str) -> np.ndarray:
    parts = step["action_dict"]
    if key not in parts:
        raise ValueError(f"action_space {key!r} is not recorded; the steps have {sorted(parts)}.")
    return np.concatenate([np.ravel(parts[key]), np.ravel(parts["gripper_position"])]).astype(np.float32)


def _observation(observation: Mapping[str, Any], camera: str) -> dict[str, Any]:
    return {
        "image": observation[camera],
        "wrist_image": observation["wrist_image_left"],
        "joint_position": np.asarray(observation["joint_position"], np.float32),
        "gripper_position": np.asarray(observation["gripper_position"], np.float32),
    }


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _decoded(sample: dict[str, Any]) -> dict[str, Any]:
    images = {key: _image(sample["observation"][key]) for key in ("image", "wrist_image")}
    return sample | {"observation": sample["observation"] | images}


def _image(stored: Any) -> np.ndarray:
    """uint8 [H, W, 3] from an encoded image, or as it is."""
    if isinstance(stored, bytes):
        return np.asarray(Image.open(io.BytesIO(stored)).convert("RGB"))
    return np.asarray(stored)


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


def read_tfds(data_dir: str, part: MixturePart, shuffle: bool) -> Iterable[Episode]:
    """The episodes of a TFDS dataset, images undecoded."""
    tfds = require_tfds()
    builder = tfds.builder(part.name, data_dir=data_dir, version=part.version)
    images = {camera: tfds.decode.SkipDecoding() for camera in (*_EXTERIOR, "wrist_image_left")}
    decoders = {"steps": {"observation": images}}
    return tfds.as_numpy(builder.as_dataset(split="train", shuffle_files=shuffle, decoders=decoders))
