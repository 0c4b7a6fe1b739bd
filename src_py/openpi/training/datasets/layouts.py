"""Where the two LeRobot formats put an episode. `meta/info.json` is written last: it decides what counts as saved."""

from __future__ import annotations

import abc
import dataclasses
import json
import os
import pathlib
import shutil
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from openpi.training.datasets import stats as _stats
from openpi.training.datasets.errors import DatasetError
from openpi.training.datasets.metadata import Feature, Metadata, load_metadata, read_jsonl
from openpi.training.datasets.video import can_join, count_frames, join_videos

_CHUNK_SIZE = 1000
# Sizes at which v3.0 begins a new file; LeRobot's own defaults.
_DATA_FILE_MB: float = 100
_VIDEO_FILE_MB: float = 200
_MB = 1 << 20
# Encoded images are read by row group, so these stay small.
_IMAGE_ROW_GROUP = 32


@dataclasses.dataclass
class Totals:
    """What is in the dataset so far."""

    episodes: int = 0
    frames: int = 0
    tasks: list[str] = dataclasses.field(default_factory=list)
    stats: dict[str, _stats.Stats] = dataclasses.field(default_factory=dict)

    def task_index(self, task: str) -> int:
        """The task's number, given to it here if it is new."""
        if task not in self.tasks:
            self.tasks.append(task)
        return self.tasks.index(task)

    def add(self, episode: EpisodeData) -> None:
        self.episodes += 1
        self.frames += episode.length
        for key, part in episode.stats.items():
            self.stats[key] = _stats.merge_stats([self.stats[key], part]) if key in self.stats else part


@dataclasses.dataclass(frozen=True)
class EpisodeData:
    """A finished episode: columns [length, ...], and one encoded file a camera."""

    index: int
    first_frame: int
    length: int
    tasks: list[str]
    columns: Mapping[str, Any]
    videos: Mapping[str, pathlib.Path]
    stats: Mapping[str, _stats.Stats]


class Layout(abc.ABC):
    """Appends episodes to a dataset folder in one format."""

    version: str

    def __init__(self, root: pathlib.Path, fps: float, features: Mapping[str, Feature], robot_type: str | None) -> None:
        self.root = root
        self.fps = fps
        self.features = features
        self.robot_type = robot_type

    @abc.abstractmethod
    def append(self, episode: EpisodeData, totals: Totals) -> None:
        """Write the episode and count it in `totals`."""

    @abc.abstractmethod
    def load_stats(self, meta: Metadata) -> dict[str, _stats.Stats]:
        """The statistics of all episodes saved so far."""

    @abc.abstractmethod
    def paths(self) -> dict[str, Any]:
        """The entries of `meta/info.json` that only this format has."""

    def open_existing(self) -> Totals:
        """What the folder holds already.

        Raises:
            DatasetError: another format, rate or set of features.
        """
        meta = load_metadata(str(self.root), self.root)
        recorded = {key: feature for key, feature in meta.features.items() if key in self.features}
        same = {key: (f.dtype, f.shape) for key, f in recorded.items()} == {
            key: (f.dtype, f.shape) for key, f in self.features.items()
        }
        if (meta.version, meta.fps, same) != (self.version, float(self.fps), True):
            raise DatasetError(
                str(self.root),
                f"it is {meta.version} at {meta.fps:g} fps with {sorted(meta.features)}: it cannot be resumed as "
                f"{self.version} at {self.fps:g} fps with {sorted(self.features)}.",
            )
        self.robot_type = self.robot_type or meta.robot_type
        frames = sum(episode.length for episode in meta.episodes)
        tasks = [meta.tasks[index] for index in sorted(meta.tasks)]
        return Totals(len(meta.episodes), frames, tasks, self.load_stats(meta))

    def write_info(self, totals: Totals) -> None:
        """Write `meta/info.json`: from here on the last episode counts."""
        info = {
            "codebase_version": self.version,
            "robot_type": self.robot_type,
            "total_episodes": totals.episodes,
            "total_frames": totals.frames,
            "total_tasks": len(totals.tasks),
            "chunks_size": _CHUNK_SIZE,
            "fps": int(self.fps) if float(self.fps).is_integer() else self.fps,
            "splits": {"train": f"0:{totals.episodes}"},
            "features": self._info_features(),
        } | self.paths()
        _write_text(self.root / "meta" / "info.json", json.dumps(info, indent=4))

    def _info_features(self) -> dict[str, Any]:
        index = {key: Feature("int64", (1,)) for key in ("frame_index", "episode_index", "index", "task_index")}
        every = {**self.features, "timestamp": Feature("float32", (1,)), **index}
        return {key: {"dtype": f.dtype, "shape": list(f.shape), "names": f.names} for key, f in every.items()}


class LayoutV21(Layout):
    """One parquet file and one video per camera an episode; `meta/*.jsonl`."""

    version = "v2.1"
    _data = "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
    _video = "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"

    def paths(self) -> dict[str, Any]:
        return {"data_path": self._data, "video_path": self._video}

    def append(self, episode: EpisodeData, totals: Totals) -> None:
        where = {"episode_index": episode.index, "episode_chunk": episode.index // _CHUNK_SIZE}
        for key, source in episode.videos.items():
            _move(source, self.root / self._video.format(video_key=key, **where))
        _write_table(self.root / self._data.format(**where), to_table(self.features, episode.columns))
        row = {"episode_index": episode.index, "tasks": episode.tasks, "length": episode.length}
        self._set_row("episodes.jsonl", row)
        self._set_row("episodes_stats.jsonl", {"episode_index": episode.index, "stats": _stats.to_json(episode.stats)})
        tasks = [json.dumps({"task_index": i, "task": task}) + "\n" for i, task in enumerate(totals.tasks)]
        _write_text(self.root / "meta" / "tasks.jsonl", "".join(tasks))
        totals.add(episode)
        self.write_info(totals)

    def load_stats(self, meta: Metadata) -> dict[str, _stats.Stats]:
        rows = read_jsonl(self.root / "meta" / "episodes_stats.jsonl")[: len(meta.episodes)]
        parts = [_stats.from_json(row["stats"]) for row in rows]
        return {key: _stats.merge_stats([part[key] for part in parts]) for key in (parts[0] if parts else ())}

    def _set_row(self, name: str, row: Mapping[str, Any]) -> None:
        """Make `row` the last one: a row left by a killed writer is replaced."""
        path = self.root / "meta" / name
        kept = path.read_text().splitlines(keepends=True)[: row["episode_index"]] if path.is_file() else []
        _write_text(path, "".join([*kept, json.dumps(row) + "\n"]))


class LayoutV30(Layout):
    """Many episodes in each parquet file and video, up to a size; `meta/episodes` says where each one lies."""

    version = "v3.0"
    _data = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
    _video = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
    _episodes = "meta/episodes/chunk-000/file-000.parquet"

    def paths(self) -> dict[str, Any]:
        sizes = {"data_files_size_in_mb": _DATA_FILE_MB, "video_files_size_in_mb": _VIDEO_FILE_MB}
        return {"data_path": self._data, "video_path": self._video} | sizes

    def append(self, episode: EpisodeData, totals: Totals) -> None:
        rows = self._saved_rows(episode.index)
        last = rows[-1] if rows else None
        row: dict[str, Any] = {"episode_index": episode.index, "tasks": episode.tasks, "length": episode.length}
        for key, source in episode.videos.items():
            row |= self._append_video(key, source, episode.length, last)
        row |= self._append_data(episode, rows)
        row |= {"dataset_from_index": episode.first_frame, "dataset_to_index": episode.first_frame + episode.length}
        row |= {"meta/episodes/chunk_index": 0, "meta/episodes/file_index": 0}
        row |= {f"stats/{key}/{name}": v.tolist() for key, part in episode.stats.items() for name, v in part.items()}
        _write_table(self.root / self._episodes, pa.Table.from_pylist([*rows, row]))
        _write_table(self.root / "meta" / "tasks.parquet", _tasks_table(totals.tasks))
        totals.add(episode)
        _write_text(self.root / "meta" / "stats.json", json.dumps(_stats.to_json(totals.stats), indent=4))
        self.write_info(totals)

    def load_stats(self, meta: Metadata) -> dict[str, _stats.Stats]:
        return _stats.from_json(json.loads((self.root / "meta" / "stats.json").read_text()))

    def _saved_rows(self, count: int) -> list[dict[str, Any]]:
        path = self.root / self._episodes
        return pq.read_table(path).to_pylist()[:count] if count else []

    def _append_video(
        self, key: str, source: pathlib.Path, length: int, last: Mapping[str, Any] | None
    ) -> dict[str, Any]:
        place = (0, 0) if last is None else _place(last, f"videos/{key}")
        path = self._video_path(key, place)
        before = 0
        if last is not None and _fits(path, source, _VIDEO_FILE_MB) and can_join(path, source):
            before = count_frames(path)
            joined = source.with_suffix(".joined.mp4")
            join_videos([path, source], joined, self.fps)
            _move(joined, path)
        else:
            place = place if last is None else _next_place(place)
            path = self._video_path(key, place)
            _move(source, path)
        return _placed(f"videos/{key}", place) | {
            f"videos/{key}/from_timestamp": before / self.fps,
            f"videos/{key}/to_timestamp": (before + length) / self.fps,
        }

    def _append_data(self, episode: EpisodeData, rows: list[dict[str, Any]]) -> dict[str, Any]:
        table = to_table(self.features, episode.columns)
        if not rows:
            place = (0, 0)
        else:
            place = _place(rows[-1], "data")
            path = self._data_path(place)
            if path.stat().st_size < _DATA_FILE_MB * _MB:
                first = min(row["dataset_from_index"] for row in rows if _place(row, "data") == place)
                # Rows past the saved ones were left by a writer that was killed.
                saved = pq.read_table(path).slice(0, episode.first_frame - first)
                # Other writers have lists of a fixed size where we have lists.
                table = pa.concat_tables([saved, table.select(saved.column_names).cast(saved.schema)])
            else:
                place = _next_place(place)
        _write_table(self._data_path(place), table)
        return _placed("data", place)

    def _video_path(self, key: str, place: tuple[int, int]) -> pathlib.Path:
        return self.root / self._video.format(video_key=key, chunk_index=place[0], file_index=place[1])

    def _data_path(self, place: tuple[int, int]) -> pathlib.Path:
        return self.root / self._data.format(chunk_index=place[0], file_index=place[1])


def to_table(features: Mapping[str, Feature], columns: Mapping[str, Any]) -> pa.Table:
    """Columns [rows, ...] as an arrow table: scalars as values, vectors as lists, images as {bytes, path}."""
    arrays = {key: _to_arrow(features.get(key), values) for key, values in columns.items()}
    table = pa.table(arrays)
    if any(feature.dtype == "image" for feature in features.values()):
        hints = {key: _hub_feature(features.get(key), array.type) for key, array in arrays.items()}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": hints}})})
    return table


def _to_arrow(feature: Feature | None, values: Any) -> pa.Array:
    if feature is not None and feature.dtype == "image":
        kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        return pa.array([{"bytes": data, "path": None} for data in values], kind)
    if feature is not None and feature.is_text:
        return pa.array(values, pa.string())
    array = np.asarray(values)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    return _nested(array)


def _nested(array: np.ndarray) -> pa.Array:
    if array.ndim == 1:
        return pa.array(array)
    offsets = np.arange(0, array.shape[0] * array.shape[1] + 1, array.shape[1], dtype=np.int32)
    return pa.ListArray.from_arrays(offsets, _nested(array.reshape(-1, *array.shape[2:])))


def _hub_feature(feature: Feature | None, kind: pa.DataType) -> dict[str, Any]:
    """How the `datasets` package names the column's type; only needed where it must decode images."""
    if feature is not None and feature.dtype == "image":
        return {"_type": "Image"}
    if pa.types.is_list(kind):
        return {"feature": _hub_feature(None, kind.value_type), "_type": "Sequence"}
    names = {pa.float32(): "float32", pa.float64(): "float64"}
    return {"dtype": names.get(kind, str(kind)), "_type": "Value"}


def _tasks_table(tasks: list[str]) -> pa.Table:
    """Tasks as a data frame indexed by their text, which is how LeRobot looks them up."""
    columns = [
        {"name": "task_index", "field_name": "task_index", "pandas_type": "int64", "numpy_type": "int64"},
        {"name": "task", "field_name": "task", "pandas_type": "unicode", "numpy_type": "object"},
    ]
    pandas = {
        "index_columns": ["task"],
        "column_indexes": [],
        "columns": [column | {"metadata": None} for column in columns],
    }
    table = pa.table({"task_index": pa.array(range(len(tasks)), pa.int64()), "task": pa.array(tasks, pa.string())})
    return table.replace_schema_metadata({"pandas": json.dumps(pandas)})


def _place(row: Mapping[str, Any], prefix: str) -> tuple[int, int]:
    return row[f"{prefix}/chunk_index"], row[f"{prefix}/file_index"]


def _placed(prefix: str, place: tuple[int, int]) -> dict[str, int]:
    return {f"{prefix}/chunk_index": place[0], f"{prefix}/file_index": place[1]}


def _next_place(place: tuple[int, int]) -> tuple[int, int]:
    chunk, file = place
    return (chunk, file + 1) if file + 1 < _CHUNK_SIZE else (chunk + 1, 0)


def _fits(path: pathlib.Path, addition: pathlib.Path, limit_mb: float) -> bool:
    return path.is_file() and path.stat().st_size + addition.stat().st_size <= limit_mb * _MB


def _move(source: pathlib.Path, target: pathlib.Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(source, target)


def _write_table(path: pathlib.Path, table: pa.Table) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    has_images = any(pa.types.is_struct(field.type) for field in table.schema)
    pq.write_table(table, temporary, row_group_size=_IMAGE_ROW_GROUP if has_images else None)
    os.replace(temporary, path)


def _write_text(path: pathlib.Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(path.suffix + ".tmp")
    temporary.write_text(text)
    os.replace(temporary, path)
