"""Normalisation statistics of a config's dataset, and what looks wrong in them."""

from __future__ import annotations

import dataclasses
import itertools
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, SupportsIndex

import numpy as np

from openpi import transforms as _transforms
from openpi.shared import normalize
from openpi.training import batching, data_loader, transformed
from openpi.training import config as _config
from openpi.training.datasets import Feature, LeRobotDataset
from openpi.training.datasets.droid import grouped
from openpi.training.datasets.errors import OnBad

KEYS = ("state", "actions")
_BATCH = 64
# What counts as suspicious; each is named in the text that `suspicions` prints.
_CONSTANT = 1e-6
_TINY_RANGE = 1e-3
# Grippers run from 0 to 1, or from -1 to 1 with a middle at 0.
_GRIPPER_MARGIN = 0.1
_GRIPPER_TRAVEL = 0.1
# q99 - q01 of a normal distribution in standard deviations, and how far off it may be.
_NORMAL_RANGE = 4.65
_SPREAD = 3.0
_ALOHA_KEYS = ("observation.state", "action")


class _BlankCameras:
    """A dataset with black stamps for its cameras: the statistics need none of them, the robot transforms all."""

    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset
        self._cameras = transformed.source_of(dataset).meta.cameras

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: SupportsIndex) -> dict[str, Any]:
        return self._dataset[index] | {key: np.zeros((3, 8, 8), np.uint8) for key in self._cameras}


@dataclasses.dataclass(frozen=True)
class _Keep(_transforms.DataTransformFn):
    """Drops everything but the vectors that are normalised."""

    def __call__(self, data: dict) -> dict:
        return {key: np.asarray(data[key]) for key in KEYS}


def make_dataset(
    config: _config.TrainConfig, data_config: _config.DataConfig, on_bad: OnBad = "raise"
) -> data_loader.Dataset:
    """State and actions as they are before normalisation; cameras are not decoded."""
    dataset = data_loader.create_torch_dataset(
        data_config, config.model.action_horizon, config.model, on_bad=on_bad, decode_images=False
    )
    if isinstance(transformed.source_of(dataset), LeRobotDataset):
        dataset = _BlankCameras(dataset)
    return transformed.TransformedDataset(dataset, _inputs(data_config))


def _inputs(data_config: _config.DataConfig) -> list[_transforms.DataTransformFn]:
    transforms = [*data_config.repack_transforms.inputs, *data_config.data_transforms.inputs]
    return [*transforms, transformed.CheckVectors(), _Keep()]


def _batches(
    dataset: data_loader.Dataset, max_frames: int | None, num_workers: int, seed: int, on_bad: OnBad
) -> Iterator[dict[str, Any]]:
    """All frames in order, or `max_frames` of them drawn at random; each once."""
    count = len(dataset)
    order = np.arange(count)
    if max_frames is not None and max_frames < count:
        order = np.sort(np.random.default_rng(seed).permutation(count)[:max_frames])
    size = min(_BATCH, max(len(order), 1))
    plan = batching.BatchPlan(len(order), size, order=order)
    stream = batching.batches(dataset, plan, num_workers=num_workers, on_bad=on_bad)
    for _ in range(len(order) // size):
        yield next(stream)
    rest = order[len(order) // size * size :]
    if len(rest):
        last = batching.BatchPlan(len(rest), len(rest), order=rest)
        yield next(batching.batches(dataset, last, on_bad=on_bad))


def compute(
    config: _config.TrainConfig,
    *,
    max_frames: int | None = None,
    on_bad: OnBad = "raise",
    dataset: data_loader.Dataset | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[dict[str, normalize.NormStats], int]:
    """Statistics of state and actions as the model will see them, before normalisation.

    Args:
        max_frames: use so many frames, drawn at random; None is all.
        on_bad: "raise" at a frame that cannot be used, or "skip" it.
        dataset: a dataset of one's own, instead of the config's `repo_id`.
        progress: told (frames done, frames in all) now and then.

    Returns:
        The statistics by key, and the number of bad frames skipped.

    Raises:
        ValueError: there is no dataset, or too little of it.
        ImportError: the config reads RLDS data and `tensorflow-datasets` is not installed.
    """
    data_config = config.data.create(config.assets_dirs, config.model)
    if dataset is not None:
        own = data_loader.own_dataset(dataset, data_config)
        dataset = transformed.TransformedDataset(own, _inputs(data_config))
    elif data_config.rlds_data_dir is not None:
        return _compute_rlds(config, data_config, max_frames, on_bad, progress)
    else:
        dataset = make_dataset(config, data_config, on_bad)
    running = {key: normalize.RunningStats() for key in KEYS}
    total = min(len(dataset), max_frames or len(dataset))
    done = skipped = 0
    for batch in _batches(dataset, max_frames, config.num_workers, config.seed, on_bad):
        skipped += batch["skipped"]
        for key in KEYS:
            running[key].update(batch["data"][key])
        done += len(batch["data"]["state"])
        progress(done, total)
    return {key: stats.get_statistics() for key, stats in running.items()}, skipped


def _compute_rlds(
    config: _config.TrainConfig,
    data_config: _config.DataConfig,
    max_frames: int | None,
    on_bad: OnBad,
    progress: Callable[[int, int], None],
) -> tuple[dict[str, normalize.NormStats], int]:
    """A stream has no frames to draw from at random: a part of them comes from a shuffled pass."""
    source = data_loader.create_rlds_dataset(
        data_config,
        config.model.action_horizon,
        _BATCH,
        shuffle=max_frames is not None,
        repeat=False,
        seed=config.seed,
        on_bad=on_bad,
        decode_images=False,
    )
    stream = transformed.IterableTransformedDataset(source.samples(), _inputs(data_config), on_bad=on_bad)
    running = {key: normalize.RunningStats() for key in KEYS}
    done, total = 0, max_frames or source.num_samples()
    for samples in grouped(itertools.islice(stream, max_frames), _BATCH):
        for key in KEYS:
            running[key].update(np.stack([sample[key] for sample in samples]))
        done += len(samples)
        progress(done, max(done, total))
    return {key: stats.get_statistics() for key, stats in running.items()}, stream.skipped + source.skipped


def output_dir(config: _config.TrainConfig, data_config: _config.DataConfig) -> pathlib.Path:
    """Where `openpi train` looks for this config's statistics; for a config that takes them from a URL, where it would
    look without it.

    Raises:
        ValueError: the config names no dataset.
    """
    asset_id = data_config.asset_id or data_config.repo_id
    if asset_id is None:
        raise ValueError(f"The config {config.name!r} has no dataset: set --data.repo-id.")
    own = config.data.assets.assets_dir
    return pathlib.Path(f"{config.assets_dirs if own is None or '://' in own else own}/{asset_id}")


@dataclasses.dataclass(frozen=True)
class Suspicion:
    """Something in the statistics that makes a robot jerk."""

    key: str
    dim: int
    text: str


def suspicions(stats: Mapping[str, normalize.NormStats]) -> list[Suspicion]:
    """What looks wrong in the statistics, one finding a dimension and reason."""
    return [
        Suspicion(key, dim, text)
        for key, entry in stats.items()
        for dim in range(len(entry.mean))
        for text in _of_dimension(entry, dim)
    ]


def _of_dimension(entry: normalize.NormStats, dim: int) -> Iterator[str]:
    mean, std = float(entry.mean[dim]), float(entry.std[dim])
    if std <= _CONSTANT * max(1.0, abs(mean)):
        yield f"constant at {mean:.4g}: any other value is normalised to a huge one"
        return
    if entry.q01 is None or entry.q99 is None:
        return
    low, high = float(entry.q01[dim]), float(entry.q99[dim])
    if high - low < _TINY_RANGE:
        yield f"q99 - q01 is only {high - low:.2g}: noise is blown up to [-1, 1]"
    elif not 1 / _SPREAD < (high - low) / (_NORMAL_RANGE * std) < _SPREAD:
        yield f"quantiles and z-score disagree: q99 - q01 is {high - low:.3g} but std {std:.3g}; outliers, or a switch"
    if not low <= mean <= high:
        yield f"the mean {mean:.3g} lies outside the quantiles [{low:.3g}, {high:.3g}]: a few values are far off"


def gripper_suspicions(data_config: _config.DataConfig) -> list[Suspicion]:
    """Recorded grippers that do not run from 0 to 1 or from -1 to 1, in the dataset's own units.

    A dimension is a gripper if its name says so, or if it is the last of an arm of ALOHA's 14 joints.
    """
    if data_config.repo_id in (None, "fake") or data_config.rlds_data_dir is not None:
        return []
    source = LeRobotDataset(str(data_config.repo_id), image_keys=(), on_bad="skip")
    found = []
    for key, feature in source.meta.features.items():
        for dim in _gripper_dims(key, feature):
            low, high = np.quantile(source.column(key).reshape(len(source), -1)[:, dim], [0.01, 0.99])
            if not _is_gripper_range(low, high):
                text = f"gripper runs from {low:.3g} to {high:.3g}, expected 0 to 1 or -1 to 1"
                found.append(Suspicion(key, dim, f"{text}: wrong unit, sign or column, or it never moves"))
    return found


def _is_gripper_range(low: float, high: float) -> bool:
    is_signed = low < -_GRIPPER_MARGIN and high > _GRIPPER_MARGIN
    lowest = -1.0 if is_signed else 0.0
    return lowest - _GRIPPER_MARGIN <= low <= high - _GRIPPER_TRAVEL and high <= 1.0 + _GRIPPER_MARGIN


def _gripper_dims(key: str, feature: Feature) -> list[int]:
    if len(feature.shape) != 1 or not feature.dtype.startswith("float"):
        return []
    names = _flat_names(feature.names)
    named = [dim for dim, name in enumerate(names[: feature.shape[0]]) if "gripper" in name.lower()]
    if named or (len(names) == feature.shape[0] > 1):
        return named
    if "gripper" in key.lower():
        return list(range(feature.shape[0]))
    return [6, 13] if feature.shape == (14,) and key in _ALOHA_KEYS else []


def _flat_names(names: Any) -> list[str]:
    """LeRobot datasets name dimensions by a list, or by a dict of lists."""
    if isinstance(names, dict):
        return [str(name) for part in names.values() for name in (part if isinstance(part, list) else [part])]
    return [str(name) for name in names or []]
