"""The `meta/` folder of a LeRobot dataset (v2.0, v2.1, v3.0) as plain dataclasses."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow.parquet as pq

from openpi.training.datasets.errors import DatasetError

DEFAULT_HOME = "~/.cache/huggingface/lerobot"
IMAGE_DTYPES = ("image", "video")
# Columns every dataset has beside the recorded features.
INDEX_FEATURES = ("timestamp", "frame_index", "episode_index", "index", "task_index")


@dataclasses.dataclass(frozen=True)
class Feature:
    """One recorded stream. `shape` is that of one frame; images are (height, width, channels)."""

    dtype: str
    shape: tuple[int, ...]
    names: Any = None

    @property
    def is_image(self) -> bool:
        return self.dtype in IMAGE_DTYPES

    @property
    def is_text(self) -> bool:
        return self.dtype == "string"


@dataclasses.dataclass(frozen=True)
class VideoSpan:
    """Where an episode's frames of one camera lie: a file, and the second at which the episode begins in it."""

    path: pathlib.Path
    start_s: float = 0.0


@dataclasses.dataclass(frozen=True)
class Episode:
    """One demonstration: `length` rows of `table` from `first_row` on."""

    index: int
    length: int
    tasks: tuple[str, ...]
    table: pathlib.Path
    first_row: int
    videos: Mapping[str, VideoSpan]


@dataclasses.dataclass(frozen=True)
class Metadata:
    """Everything a reader needs to know before it opens a table or a video."""

    name: str
    root: pathlib.Path
    version: str
    fps: float
    features: Mapping[str, Feature]
    tasks: Mapping[int, str]
    episodes: tuple[Episode, ...]
    robot_type: str | None = None

    @property
    def cameras(self) -> tuple[str, ...]:
        return tuple(key for key, feature in self.features.items() if feature.is_image)

    @property
    def video_keys(self) -> tuple[str, ...]:
        return tuple(key for key, feature in self.features.items() if feature.dtype == "video")


def lerobot_home() -> pathlib.Path:
    """The folder that datasets are looked up in by their repo id: `$HF_LEROBOT_HOME` or the usual cache."""
    return pathlib.Path(os.environ.get("HF_LEROBOT_HOME", DEFAULT_HOME)).expanduser()


def resolve_root(repo_id: str, root: str | os.PathLike | None = None) -> pathlib.Path:
    """The dataset's folder: `root` where given, a path that exists, or `$HF_LEROBOT_HOME/<repo_id>`.

    Raises:
        DatasetError: there is no `meta/info.json` in any of them.
    """
    candidates = [pathlib.Path(root)] if root is not None else [pathlib.Path(repo_id), lerobot_home() / repo_id]
    for candidate in candidates:
        if (candidate / "meta" / "info.json").is_file():
            return candidate
    looked = " and ".join(str(candidate) for candidate in candidates)
    raise DatasetError(
        repo_id,
        f"no meta/info.json in {looked}. Give the dataset's folder as repo_id, put it under $HF_LEROBOT_HOME, "
        f"or download it there: hf download --repo-type dataset {repo_id} --local-dir $HF_LEROBOT_HOME/{repo_id}",
    )


def load_metadata(repo_id: str, root: str | os.PathLike | None = None) -> Metadata:
    """Read `meta/` of the dataset `repo_id` (see `resolve_root`).

    Raises:
        DatasetError: the folder is missing, its format is unknown, or a file of it cannot be read.
    """
    folder = resolve_root(repo_id, root)
    info = _read_json(repo_id, folder / "meta" / "info.json")
    version = str(info.get("codebase_version", "unknown"))
    loaders = {"v2": _load_v2, "v3": _load_v3}
    if version[:2] not in loaders:
        raise DatasetError(repo_id, f"codebase_version is {version!r}; v2.0, v2.1 and v3.0 can be read.")
    try:
        tasks, episodes = loaders[version[:2]](folder, info)
    except (OSError, KeyError, ValueError) as error:
        raise DatasetError(repo_id, f"the files in {folder / 'meta'} cannot be read: {error!r}.") from error
    return Metadata(
        name=repo_id,
        root=folder,
        version=version,
        fps=float(info["fps"]),
        features=_features(info["features"]),
        tasks=tasks,
        episodes=tuple(sorted(episodes, key=lambda episode: episode.index)),
        robot_type=info.get("robot_type"),
    )


def _features(raw: Mapping[str, Mapping[str, Any]]) -> dict[str, Feature]:
    return {key: Feature(f["dtype"], tuple(f.get("shape") or ()), f.get("names")) for key, f in raw.items()}


def _read_json(name: str, path: pathlib.Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise DatasetError(name, f"{path} cannot be read: {error}.") from error


def read_jsonl(path: pathlib.Path) -> list[dict[str, Any]]:
    """The objects of a file with one JSON object a line."""
    return [json.loads(line) for line in path.read_text().splitlines() if line.strip()]


def _load_v2(folder: pathlib.Path, info: Mapping[str, Any]) -> tuple[dict[int, str], list[Episode]]:
    tasks = {int(row["task_index"]): row["task"] for row in read_jsonl(folder / "meta" / "tasks.jsonl")}
    video_keys = [key for key, feature in info["features"].items() if feature["dtype"] == "video"]
    episodes = []
    # Rows past the total were left by a writer that was killed before it had saved the episode.
    for row in read_jsonl(folder / "meta" / "episodes.jsonl")[: int(info["total_episodes"])]:
        index = int(row["episode_index"])
        where = {"episode_index": index, "episode_chunk": index // int(info["chunks_size"])}
        videos = {key: VideoSpan(folder / info["video_path"].format(video_key=key, **where)) for key in video_keys}
        table = folder / info["data_path"].format(**where)
        episodes.append(Episode(index, int(row["length"]), tuple(row.get("tasks", ())), table, 0, videos))
    return tasks, episodes


def _load_v3(folder: pathlib.Path, info: Mapping[str, Any]) -> tuple[dict[int, str], list[Episode]]:
    rows = [row for row in _episode_rows(folder) if row["episode_index"] < int(info["total_episodes"])]
    first_index = _first_index_of_files(rows)
    video_keys = [key for key, feature in info["features"].items() if feature["dtype"] == "video"]
    episodes = []
    for row in rows:
        place = (row["data/chunk_index"], row["data/file_index"])
        table = folder / info["data_path"].format(chunk_index=place[0], file_index=place[1])
        videos = {key: _video_span(folder, info["video_path"], key, row) for key in video_keys}
        first_row = int(row["dataset_from_index"]) - first_index[place]
        tasks = tuple(row.get("tasks") or ())
        episodes.append(Episode(int(row["episode_index"]), int(row["length"]), tasks, table, first_row, videos))
    return _tasks_v3(folder), episodes


def _episode_rows(folder: pathlib.Path) -> list[dict[str, Any]]:
    """The rows of every `meta/episodes` file, without the bulky `stats/...` columns."""
    rows: list[dict[str, Any]] = []
    for path in sorted((folder / "meta" / "episodes").glob("*/*.parquet")):
        names = [name for name in pq.read_schema(path).names if not name.startswith("stats/")]
        rows += pq.read_table(path, columns=names).to_pylist()
    return rows


def _first_index_of_files(rows: Iterable[Mapping[str, Any]]) -> dict[tuple[int, int], int]:
    first: dict[tuple[int, int], int] = {}
    for row in rows:
        place = (row["data/chunk_index"], row["data/file_index"])
        first[place] = min(first.get(place, int(row["dataset_from_index"])), int(row["dataset_from_index"]))
    return first


def _video_span(folder: pathlib.Path, pattern: str, key: str, row: Mapping[str, Any]) -> VideoSpan:
    path = pattern.format(
        video_key=key, chunk_index=row[f"videos/{key}/chunk_index"], file_index=row[f"videos/{key}/file_index"]
    )
    return VideoSpan(folder / path, float(row[f"videos/{key}/from_timestamp"]))


def _tasks_v3(folder: pathlib.Path) -> dict[int, str]:
    """`tasks.parquet` was a data frame indexed by the task: the text column's name depends on its writer."""
    table = pq.read_table(folder / "meta" / "tasks.parquet")
    text = next(name for name in table.column_names if name != "task_index")
    return dict(zip(table["task_index"].to_pylist(), table[text].to_pylist(), strict=True))
