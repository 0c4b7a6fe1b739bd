"""Writing LeRobot datasets: frame by frame, episode by episode; a kill between episodes loses at most the open one."""

from __future__ import annotations

import io
import logging
import os
import pathlib
import shutil
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Literal

import numpy as np
from PIL import Image

from openpi.training.datasets import stats as _stats
from openpi.training.datasets.errors import DatasetError
from openpi.training.datasets.layouts import EpisodeData, Layout, LayoutV21, LayoutV30, Totals
from openpi.training.datasets.metadata import INDEX_FEATURES, Feature
from openpi.training.datasets.video import VideoEncoder, VideoSettings

logger = logging.getLogger(__name__)

Version = Literal["v2.1", "v3.0"]
_LAYOUTS: dict[str, type[Layout]] = {"v2.1": LayoutV21, "v3.0": LayoutV30}
# Image statistics come from every so many frames and pixels: their mean over thousands of pixels is steady.
_STATS_FRAME_STRIDE = 10
_STATS_PIXEL_STRIDE = 4


class LeRobotWriter:
    """Writes a LeRobot dataset that `LeRobotDataset` and the `lerobot` package read.

        with LeRobotWriter(root, fps=50, features=features) as writer:
            for frame in demonstration:
                writer.add_frame(frame, task="transfer the cube")
            writer.save_episode()

    Args:
        root: the dataset's folder.
        fps: frames per second of every stream.
        features: name -> {"dtype", "shape", "names"} as in `meta/info.json` (or `Feature`). dtype "video" and "image"
            take frames uint8 [H, W, 3] (video: height and width even); other dtypes are numpy's, or "string".
        version: "v3.0" (many episodes a file) or "v2.1" (one file an episode).
        robot_type: noted in `meta/info.json`.
        resume: go on with an existing dataset (same fps, features and version); new episodes are appended.
        video: codec and quality.

    Raises:
        DatasetError: the folder already has a dataset and `resume` is off, or it does not fit.
        ValueError: a frame that does not match the features.
    """

    def __init__(
        self,
        root: str | os.PathLike,
        *,
        fps: float,
        features: Mapping[str, Mapping[str, Any] | Feature],
        version: Version = "v3.0",
        robot_type: str | None = None,
        resume: bool = False,
        video: VideoSettings | None = None,
    ) -> None:
        if version not in _LAYOUTS:
            raise ValueError(f"Dataset version {version!r} cannot be written; allowed: {', '.join(_LAYOUTS)}.")
        self.root = pathlib.Path(root)
        self.fps = fps
        self.features = {key: _as_feature(feature) for key, feature in features.items() if key not in INDEX_FEATURES}
        self._video = video or VideoSettings()
        self._layout = _LAYOUTS[version](self.root, fps, self.features, robot_type)
        exists = (self.root / "meta" / "info.json").is_file()
        if exists and not resume:
            raise DatasetError(str(self.root), "there already is a dataset. Resume it, or choose another folder.")
        self._totals = self._layout.open_existing() if exists else Totals()
        self._staging = self.root / ".staging"
        shutil.rmtree(self._staging, ignore_errors=True)
        self._begin()

    @property
    def num_episodes(self) -> int:
        """Episodes saved so far, those from before a resume included."""
        return self._totals.episodes

    def add_frame(self, frame: Mapping[str, Any], *, task: str) -> None:
        """Append one frame to the open episode. Images go to the encoder at once and take no memory.

        Args:
            frame: exactly one value for each feature.
            task: what the robot is asked to do, in words.
        """
        values = self._checked(frame)
        for key, feature in self.features.items():
            self._add_image(key, feature, values[key]) if feature.is_image else self._rows[key].append(values[key])
        self._tasks.append(task)

    def save_episode(self) -> int:
        """Write the open episode to disk and begin the next. Returns its index.

        Raises:
            ValueError: it has no frames.
        """
        if not self._tasks:
            raise ValueError("The episode has no frames. Add some, or do not save it.")
        for encoder in self._encoders.values():
            encoder.close()
        index = self._totals.episodes
        self._layout.append(self._episode(index), self._totals)
        self._begin()
        return index

    def discard_episode(self) -> None:
        """Forget the open episode's frames (a failed demonstration)."""
        for encoder in self._encoders.values():
            encoder.close()
        self._begin()

    def close(self) -> None:
        """Drop an episode that was not saved, and the temporary files."""
        if self._tasks:
            logger.warning("Dataset %s: %d frames of an unsaved episode were dropped.", self.root, len(self._tasks))
        self.discard_episode()
        shutil.rmtree(self._staging, ignore_errors=True)

    def __enter__(self) -> LeRobotWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def _begin(self) -> None:
        self._rows: dict[str, list[Any]] = {key: [] for key in self.features}
        self._image_samples: dict[str, list[np.ndarray]] = {key: [] for key, f in self.features.items() if f.is_image}
        self._encoders: dict[str, VideoEncoder] = {}
        self._tasks: list[str] = []

    def _checked(self, frame: Mapping[str, Any]) -> dict[str, Any]:
        wrong = set(frame) ^ set(self.features)
        if wrong:
            raise ValueError(
                f"A frame must have exactly the features {sorted(self.features)}; missing or unknown: {sorted(wrong)}."
            )
        return {key: _checked_value(key, feature, frame[key]) for key, feature in self.features.items()}

    def _add_image(self, key: str, feature: Feature, image: np.ndarray) -> None:
        if len(self._tasks) % _STATS_FRAME_STRIDE == 0:
            self._image_samples[key].append(image[::_STATS_PIXEL_STRIDE, ::_STATS_PIXEL_STRIDE].copy())
        if feature.dtype == "image":
            self._rows[key].append(_png(image))
            return
        if key not in self._encoders:
            path = self._staging / f"{key}.mp4"
            self._encoders[key] = VideoEncoder(path, self.fps, image.shape[0], image.shape[1], self._video)
        self._encoders[key].write(image)

    def _episode(self, index: int) -> EpisodeData:
        length = len(self._tasks)
        task_rows = np.array([self._totals.task_index(task) for task in self._tasks], np.int64)
        columns: dict[str, Any] = {
            key: self._rows[key] for key, feature in self.features.items() if feature.dtype != "video"
        }
        columns |= {
            "timestamp": np.arange(length, dtype=np.float32) / np.float32(self.fps),
            "frame_index": np.arange(length, dtype=np.int64),
            "episode_index": np.full(length, index, np.int64),
            "index": np.arange(self._totals.frames, self._totals.frames + length, dtype=np.int64),
            "task_index": task_rows,
        }
        return EpisodeData(
            index=index,
            first_frame=self._totals.frames,
            length=length,
            tasks=list(dict.fromkeys(self._tasks)),
            columns=columns,
            videos={key: self._staging / f"{key}.mp4" for key in self._encoders},
            stats=self._episode_stats(columns),
        )

    def _episode_stats(self, columns: Mapping[str, Any]) -> dict[str, _stats.Stats]:
        images = {key: _stats.image_stats(samples) for key, samples in self._image_samples.items()}
        numeric = [key for key in columns if key not in images and self._dtype(key) != "string"]
        return images | {key: _stats.feature_stats(np.asarray(columns[key])) for key in numeric}

    def _dtype(self, key: str) -> str:
        return self.features[key].dtype if key in self.features else "int64"


def _as_feature(raw: Mapping[str, Any] | Feature) -> Feature:
    return raw if isinstance(raw, Feature) else Feature(raw["dtype"], tuple(raw["shape"]), raw.get("names"))


def _checked_value(key: str, feature: Feature, value: Any) -> Any:
    if feature.is_text:
        return str(value)
    array = np.asarray(value)
    if feature.is_image and array.dtype != np.uint8:
        raise ValueError(f"Images must be uint8 [H, W, 3]; {key!r} is {array.dtype}.")
    if feature.shape == (1,) and array.shape == ():
        array = array.reshape(1)
    if array.shape != feature.shape:
        raise ValueError(f"{key!r} has shape {array.shape}; the dataset was made for {feature.shape}.")
    return array if feature.is_image else array.astype(feature.dtype)


def _png(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG")
    return buffer.getvalue()
