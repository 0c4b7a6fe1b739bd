"""Random access to the frames of a LeRobot dataset."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, SupportsIndex

import numpy as np

from openpi.training.datasets.errors import BadSampleError, DatasetError, OnBad
from openpi.training.datasets.metadata import INDEX_FEATURES, Episode, Feature, load_metadata
from openpi.training.datasets.tables import TableCache
from openpi.training.datasets.video import VideoCache, VideoError

logger = logging.getLogger(__name__)


class LeRobotDataset:
    """A LeRobot dataset (v2.0, v2.1, v3.0): `dataset[i]` is one frame as a flat dict.

    A sample has every feature under its own name (images uint8 [3, H, W]; the rest with the recorded dtype), the
    index columns (`timestamp`, `frame_index`, `episode_index`, `index`, `task_index`) and the text `task`. A feature
    named in `delta_timestamps` is stacked over the given offsets in seconds, [T, ...]; offsets outside the episode
    repeat its first or last frame and are marked in `<feature>_is_pad`, bool [T].

    Args:
        repo_id: a folder, or a name under `$HF_LEROBOT_HOME`.
        root: the folder, where it is not found by `repo_id`.
        episodes: indices of the episodes to use; None is all of them.
        delta_timestamps: offsets in seconds for each feature to be stacked.
        image_keys: cameras to decode; None is all of them, () none (much faster where only numbers are wanted).
        on_bad: "raise" on an episode without frames or table, or "skip" it (`skipped_episodes` lists those).

    Raises:
        DatasetError: unknown format, feature or episode.
        BadSampleError: names dataset, episode and frame of what is missing, broken, misshapen or not finite.
    """

    def __init__(
        self,
        repo_id: str,
        *,
        root: str | os.PathLike | None = None,
        episodes: Sequence[int] | None = None,
        delta_timestamps: Mapping[str, Sequence[float]] | None = None,
        image_keys: Sequence[str] | None = None,
        on_bad: OnBad = "raise",
    ) -> None:
        self.meta = load_metadata(repo_id, root)
        self.skipped_episodes: tuple[int, ...] = ()
        self._deltas = {key: self._steps(key, offsets) for key, offsets in (delta_timestamps or {}).items()}
        self._features = self._used_features(image_keys)
        self._episodes = self._usable(self._chosen(episodes), on_bad)
        self._ends = np.cumsum([episode.length for episode in self._episodes], dtype=np.int64)
        self._tables = TableCache()
        self._videos = VideoCache()

    @property
    def episodes(self) -> tuple[Episode, ...]:
        """The episodes in use, in order."""
        return self._episodes

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def __getitem__(self, index: SupportsIndex) -> dict[str, Any]:
        episode, frame = self._find(index)
        sample: dict[str, Any] = {}
        for key, feature in self._features.items():
            if key in self._deltas:
                frames, padded = self._window(episode, frame, self._deltas[key])
                sample[key] = self._stack(episode, frames, key, feature)
                sample[f"{key}_is_pad"] = padded
            else:
                sample[key] = self._value(episode, frame, key, feature)
        sample["task"] = self._task(episode, sample)
        return sample

    @property
    def name(self) -> str:
        """What errors call the dataset."""
        return self.meta.name

    def locate(self, index: SupportsIndex) -> tuple[int, int]:
        """The number of the episode of sample `index`, and its frame number in it."""
        episode, frame = self._find(index)
        return episode.index, frame

    def _find(self, index: SupportsIndex) -> tuple[Episode, int]:
        position = int(index)
        if not 0 <= position < len(self):
            raise IndexError(f"Dataset {self.meta.name!r} has {len(self)} frames, no frame {position}.")
        which = int(np.searchsorted(self._ends, position, side="right"))
        episode = self._episodes[which]
        return episode, position - (int(self._ends[which]) - episode.length)

    def column(self, key: str) -> np.ndarray:
        """All values of a feature that is no image, [frames, ...]."""
        parts = [
            self._rows(episode, key)[episode.first_row : episode.first_row + episode.length]
            for episode in self._episodes
        ]
        return np.concatenate(parts)

    def problems(self, keys: Sequence[str] | None = None, *, decode: bool = False) -> Iterator[BadSampleError]:
        """Look through the whole dataset: one error for each episode or frame that cannot be used.

        Args:
            keys: features to check; None is every one that is read.
            decode: also decode every image (slow); otherwise images are not looked at.
        """
        checked = {key: f for key, f in self._features.items() if keys is None or key in keys}
        for episode in self._episodes:
            for key, feature in checked.items():
                if feature.is_image and not decode:
                    continue
                for frame in range(episode.length):
                    try:
                        self._value(episode, frame, key, feature)
                    except BadSampleError as error:
                        yield error
                        if error.frame is None:
                            break

    def _used_features(self, image_keys: Sequence[str] | None) -> dict[str, Feature]:
        unknown = set(image_keys or ()) - set(self.meta.features)
        if unknown:
            raise self._unknown_feature(sorted(unknown)[0])
        used = {
            key: feature
            for key, feature in self.meta.features.items()
            if image_keys is None or not feature.is_image or key in image_keys
        }
        return used | {key: Feature("int64", (1,)) for key in INDEX_FEATURES if key not in used}

    def _steps(self, key: str, offsets: Sequence[float]) -> np.ndarray:
        if key not in self.meta.features:
            raise self._unknown_feature(key)
        steps = np.asarray(offsets, np.float64) * self.meta.fps
        if not np.allclose(steps, np.round(steps), atol=0.05):
            wrong = offsets[int(np.argmax(np.abs(steps - np.round(steps))))]
            raise DatasetError(
                self.meta.name,
                f"delta_timestamps of {key!r} has {wrong} s, which is no multiple of the frame period "
                f"1/{self.meta.fps:g} s.",
            )
        return np.round(steps).astype(np.int64)

    def _unknown_feature(self, key: str) -> DatasetError:
        return DatasetError(self.meta.name, f"no feature {key!r}; it has {', '.join(self.meta.features)}.")

    def _chosen(self, episodes: Sequence[int] | None) -> list[Episode]:
        if episodes is None:
            return list(self.meta.episodes)
        known = {episode.index: episode for episode in self.meta.episodes}
        missing = [index for index in episodes if index not in known]
        if missing:
            raise DatasetError(self.meta.name, f"no episode {missing[0]}; it has {len(known)} episodes.")
        return [known[index] for index in episodes]

    def _usable(self, episodes: list[Episode], on_bad: OnBad) -> tuple[Episode, ...]:
        kept, skipped = [], []
        for episode in episodes:
            reason = _unusable(episode)
            if reason is None:
                kept.append(episode)
            elif on_bad == "raise":
                raise BadSampleError(self.meta.name, episode.index, None, reason)
            else:
                skipped.append(episode.index)
        if skipped:
            logger.warning("Dataset %r: skipped %d unusable episodes: %s", self.meta.name, len(skipped), skipped)
        self.skipped_episodes = tuple(skipped)
        return tuple(kept)

    def _window(self, episode: Episode, frame: int, steps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        wanted = frame + steps
        inside = np.clip(wanted, 0, episode.length - 1)
        return inside, wanted != inside

    def _stack(self, episode: Episode, frames: np.ndarray, key: str, feature: Feature) -> np.ndarray:
        distinct = {int(frame): self._value(episode, int(frame), key, feature) for frame in frames}
        return np.stack([distinct[int(frame)] for frame in frames])

    def _value(self, episode: Episode, frame: int, key: str, feature: Feature) -> Any:
        if feature.dtype == "video":
            return self._decode(episode, frame, key, feature)
        if feature.dtype == "image":
            return self._stored_image(episode, frame, key, feature)
        value = self._rows(episode, key)[episode.first_row + frame]
        return value if feature.is_text else self._checked(episode, frame, key, feature, value)

    def _rows(self, episode: Episode, key: str) -> np.ndarray:
        try:
            column = self._tables.column(episode.table, key)
        except (OSError, KeyError, ValueError) as error:
            reason = f"{key!r} cannot be read from {episode.table.name}: {error}."
            raise BadSampleError(self.meta.name, episode.index, None, reason) from error
        if len(column) < episode.first_row + episode.length:
            reason = f"{episode.table.name} ends before the episode's {episode.length} frames do."
            raise BadSampleError(self.meta.name, episode.index, None, reason)
        return column

    def _checked(self, episode: Episode, frame: int, key: str, feature: Feature, value: np.ndarray) -> np.ndarray:
        # Scalars are recorded with or without their axis of one.
        value = np.asarray(value)
        scalar = feature.shape in ((), (1,)) and value.shape in ((), (1,))
        if key in INDEX_FEATURES:
            return value.reshape(())
        if not scalar and value.shape != feature.shape:
            reason = f"{key!r} has shape {value.shape}; meta/info.json says {feature.shape}."
            raise BadSampleError(self.meta.name, episode.index, frame, reason)
        if value.dtype.kind == "f" and not np.isfinite(value).all():
            raise BadSampleError(self.meta.name, episode.index, frame, f"{key!r} is not finite: {value.tolist()}.")
        return value.reshape(feature.shape)

    def _stored_image(self, episode: Episode, frame: int, key: str, feature: Feature) -> np.ndarray:
        try:
            image = self._tables.image(episode.table, key, episode.first_row + frame)
        except (OSError, KeyError, ValueError, IndexError, TypeError) as error:
            raise BadSampleError(self.meta.name, episode.index, frame, f"image {key!r}: {error}.") from error
        return self._channels_first(episode, frame, key, feature, image)

    def _decode(self, episode: Episode, frame: int, key: str, feature: Feature) -> np.ndarray:
        span = episode.videos[key]
        try:
            image = self._videos.frame_at(span.path, span.start_s + frame / self.meta.fps, 0.5 / self.meta.fps)
        except VideoError as error:
            raise BadSampleError(self.meta.name, episode.index, frame, f"camera {key!r}: {error}.") from error
        return self._channels_first(episode, frame, key, feature, image)

    def _channels_first(self, episode: Episode, frame: int, key: str, feature: Feature, image: np.ndarray) -> Any:
        # Some datasets declare images as (channels, height, width).
        chw = tuple(np.moveaxis(image, -1, 0).shape)
        if feature.shape and feature.shape not in (image.shape, chw):
            reason = f"camera {key!r} has images of shape {image.shape}; meta/info.json says {feature.shape}."
            raise BadSampleError(self.meta.name, episode.index, frame, reason)
        # A view: robot transforms turn it back, and a copy each way is a third of the work on a sample.
        return np.moveaxis(image, -1, 0)

    def _task(self, episode: Episode, sample: Mapping[str, Any]) -> str:
        index = int(sample["task_index"])
        if index not in self.meta.tasks:
            frame = int(sample["frame_index"])
            raise BadSampleError(self.meta.name, episode.index, frame, f"task_index {index} is not in meta/tasks.")
        return self.meta.tasks[index]


def _unusable(episode: Episode) -> str | None:
    if episode.length <= 0:
        return "the episode is empty."
    if not episode.table.is_file():
        return f"its table {episode.table} is missing."
    missing = [span.path for span in episode.videos.values() if not span.path.is_file()]
    return f"its video {missing[0]} is missing." if missing else None
