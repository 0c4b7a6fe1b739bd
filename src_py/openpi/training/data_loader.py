"""From a dataset to batches on the devices.

Order of transforms: repack, robot inputs, normalise, model transforms. The published names are kept; `Torch` in them
stands for random access, the loading itself is done by `grain` and needs no torch.
"""

from __future__ import annotations

import logging
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any, Protocol, SupportsIndex, TypeVar, runtime_checkable

import jax

from openpi import transforms as _transforms
from openpi.models import model as _model
from openpi.training import batching
from openpi.training import config as _config
from openpi.training.datasets import LeRobotDataset, load_metadata
from openpi.training.datasets import droid as _droid
from openpi.training.datasets.errors import OnBad
from openpi.training.datasets.fake import FakeDataset
from openpi.training.datasets.own import OwnDataset
from openpi.training.loaders import DataLoaderImpl, RLDSDataLoader, TorchDataLoader
from openpi.training.transformed import CheckVectors, IterableTransformedDataset, KeptDataset, TransformedDataset

__all__ = [
    "DataLoader",
    "DataLoaderImpl",
    "Dataset",
    "FakeDataset",
    "IterableDataset",
    "IterableTransformedDataset",
    "RLDSDataLoader",
    "TorchDataLoader",
    "TransformedDataset",
    "create_data_loader",
    "create_rlds_data_loader",
    "create_rlds_dataset",
    "create_torch_data_loader",
    "create_torch_dataset",
    "transform_dataset",
    "transform_iterable_dataset",
]

logger = logging.getLogger(__name__)

T_co = TypeVar("T_co", covariant=True)
_FAKE_SAMPLES = 1024


@runtime_checkable
class Dataset(Protocol[T_co]):
    """Samples by index. Any object with these two methods is one."""

    def __getitem__(self, index: SupportsIndex) -> T_co: ...

    def __len__(self) -> int: ...


@runtime_checkable
class IterableDataset(Protocol[T_co]):
    """Samples, or batches of them, in the order they come."""

    def __iter__(self) -> Iterator[T_co]: ...

    def __len__(self) -> int: ...


@runtime_checkable
class DataLoader(Protocol[T_co]):
    """Batches for the training step."""

    def data_config(self) -> _config.DataConfig:
        """The data configuration that the batches were made with."""
        ...

    def __iter__(self) -> Iterator[T_co]: ...


def create_torch_dataset(
    data_config: _config.DataConfig,
    action_horizon: int,
    model_config: _model.BaseModelConfig,
    *,
    episodes: Sequence[int] | None = None,
    on_bad: OnBad = "raise",
    decode_images: bool = True,
) -> Dataset:
    """The LeRobot dataset `data_config.repo_id` with chunks of `action_horizon` actions, or fake data for "fake".

    Only the cameras that the repack transform asks for are decoded.

    Args:
        episodes: use only these; None is all.
        on_bad: episodes without frames or table raise an error, or are left out.
        decode_images: False leaves images out, for passes over the numbers alone.

    Raises:
        ValueError: repo_id is not set.
        DatasetError: the dataset is not there or does not fit the config.
    """
    repo_id = data_config.repo_id
    if repo_id is None:
        raise ValueError("The data config has no repo_id. Set it to a dataset, or to 'fake' for made-up data.")
    if repo_id == "fake":
        return FakeDataset(model_config, num_samples=_FAKE_SAMPLES)
    meta = load_metadata(repo_id)
    dataset: Dataset = LeRobotDataset(
        repo_id,
        episodes=episodes,
        delta_timestamps={
            key: [step / meta.fps for step in range(action_horizon)] for key in data_config.action_sequence_keys
        },
        image_keys=_used_cameras(data_config, meta.cameras) if decode_images else (),
        on_bad=on_bad,
    )
    if data_config.prompt_from_task:
        dataset = TransformedDataset(dataset, [_transforms.PromptFromLeRobotTask(dict(meta.tasks))])
    return dataset


def own_dataset(dataset: Dataset, data_config: _config.DataConfig) -> Dataset:
    """A user's dataset with what the config uses of it checked."""
    return dataset if isinstance(dataset, LeRobotDataset) else OwnDataset(dataset, _used_keys(data_config))


def _used_keys(data_config: _config.DataConfig) -> set[str] | None:
    """The entries of a sample that the repack transforms name; None, all of them, where nothing is repacked."""
    repack = [t for t in data_config.repack_transforms.inputs if isinstance(t, _transforms.RepackTransform)]
    return {name for transform in repack for name in jax.tree.leaves(transform.structure)} if repack else None


def _used_cameras(data_config: _config.DataConfig, cameras: Sequence[str]) -> tuple[str, ...] | None:
    used = _used_keys(data_config)
    return None if used is None else tuple(key for key in cameras if key in used)


def create_rlds_dataset(
    data_config: _config.DataConfig, action_horizon: int, batch_size: int, *, shuffle: bool = False, **options: Any
) -> _droid.DroidRldsDataset:
    """Batches of DROID (or alike) in RLDS format; needs `tensorflow-datasets`.

    Args:
        shuffle: an endless stream that mixes the datasets, instead of one pass over one after the other.
        options: as for `DroidRldsDataset`: `seed`, `start_batch`, `share`, `on_bad`, `decode_images`.
    """
    if data_config.rlds_data_dir is None or data_config.action_space is None:
        raise ValueError("An RLDS data config needs rlds_data_dir and action_space.")
    return _droid.DroidRldsDataset(
        data_dir=data_config.rlds_data_dir,
        batch_size=batch_size,
        datasets=data_config.datasets,
        action_chunk_size=action_horizon,
        action_space=data_config.action_space,
        shuffle=shuffle,
        **options,
    )


def _input_transforms(data_config: _config.DataConfig, skip_norm_stats: bool) -> list[_transforms.DataTransformFn]:
    norm_stats = {}
    if data_config.repo_id != "fake" and not skip_norm_stats:
        if data_config.norm_stats is None:
            raise ValueError(
                f"There are no normalisation statistics for {data_config.asset_id or data_config.repo_id!r}. Make them "
                "with `openpi norm-stats` for the config, or pass skip_norm_stats=True where raw values are wanted."
            )
        norm_stats = data_config.norm_stats
    return [
        *data_config.repack_transforms.inputs,
        *data_config.data_transforms.inputs,
        CheckVectors(_lengths(data_config)),
        _transforms.Normalize(norm_stats, use_quantiles=data_config.use_quantile_norm),
        *data_config.model_transforms.inputs,
    ]


def _lengths(data_config: _config.DataConfig) -> dict[str, range]:
    """How many values state and actions may have: what is padded may be shorter, what is made of tokens may not."""
    near_model = data_config.model_transforms
    for transform in (*near_model.inputs, *near_model.outputs):
        if isinstance(transform, _transforms.PadStatesAndActions):
            return dict.fromkeys(("state", "actions"), range(transform.model_action_dim + 1))
        if isinstance(transform, _transforms.ExtractFASTActions):
            return {"actions": range(transform.action_dim, transform.action_dim + 1)}
    return {}


def transform_dataset(
    dataset: Dataset, data_config: _config.DataConfig, *, skip_norm_stats: bool = False
) -> TransformedDataset:
    """Repack, robot inputs, normalise, model transforms.

    Raises:
        ValueError: there are no normalisation statistics and `skip_norm_stats` is off; names the command to run.
    """
    return TransformedDataset(dataset, _input_transforms(data_config, skip_norm_stats))


def transform_iterable_dataset(
    dataset: IterableDataset,
    data_config: _config.DataConfig,
    *,
    skip_norm_stats: bool = False,
    is_batched: bool = False,
    on_bad: OnBad = "raise",
) -> IterableTransformedDataset:
    """As `transform_dataset`, for a stream."""
    transforms = _input_transforms(data_config, skip_norm_stats)
    return IterableTransformedDataset(dataset, transforms, is_batched=is_batched, on_bad=on_bad)


def create_data_loader(
    config: _config.TrainConfig,
    *,
    sharding: jax.sharding.Sharding | None = None,
    shuffle: bool = False,
    num_batches: int | None = None,
    skip_norm_stats: bool = False,
    framework: str = "jax",
    dataset: Dataset | None = None,
    episodes: Sequence[int] | None = None,
    on_bad: OnBad = "raise",
    start_batch: int = 0,
    skipped: int = 0,
) -> DataLoaderImpl:
    """Batches of (Observation, actions) for a training config.

    Args:
        sharding: where the batch goes (JAX); default: split over all devices.
        shuffle: every epoch in a new order, pinned by `config.seed`.
        num_batches: stop after so many; None goes on for ever.
        skip_norm_stats: do not normalise.
        framework: "jax", or "pytorch" for torch tensors.
        dataset: a dataset of one's own, instead of `repo_id`; it goes through the config's transforms.
        episodes: use only these of a LeRobot dataset.
        on_bad: "raise" at the first bad sample, or "skip" to the next good one (counted).
        start_batch: number of the first batch, for resuming. RLDS data are read up to there again, undecoded.
        skipped: bad samples skipped before that batch.

    Raises:
        ValueError: there are no normalisation statistics and `skip_norm_stats` is off; names the command to run.
        DatasetError: the dataset is not there or does not fit the config.
    """
    data_config = config.data.create(config.assets_dirs, config.model)
    logger.debug("Data config: %s", data_config)
    if data_config.norm_stats is None and data_config.repo_id != "fake" and not skip_norm_stats:
        raise ValueError(_missing_statistics(config, data_config))
    common: dict[str, Any] = {
        "action_horizon": config.model.action_horizon,
        "batch_size": config.batch_size,
        "sharding": sharding,
        "shuffle": shuffle,
        "num_batches": num_batches,
        "skip_norm_stats": skip_norm_stats,
        "framework": framework,
        "seed": config.seed,
        "on_bad": on_bad,
        "start_batch": start_batch,
        "skipped": skipped,
    }
    if data_config.rlds_data_dir is not None:
        return create_rlds_data_loader(data_config, **common)
    return create_torch_data_loader(
        data_config,
        config.model,
        **common,
        num_workers=config.num_workers,
        dataset=dataset,
        episodes=episodes,
        keep_in_memory=config.loop.keep_in_memory,
    )


def _missing_statistics(config: _config.TrainConfig, data_config: _config.DataConfig) -> str:
    """Names the command with the paths that `openpi train` was given."""
    folder = str(config.data.assets.assets_dir or config.assets_dirs).rstrip("/")
    command = f"openpi norm-stats {_config.command_name(config)}"
    if pathlib.Path(str(data_config.repo_id)).is_dir():
        command += f" --input-path {data_config.repo_id}"
    if config.data.assets.assets_dir is not None and "://" not in folder and folder.endswith("/assets"):
        command += f" --output-path {folder.removesuffix('/assets')}"
    return (
        f"There are no normalisation statistics in {folder}/{data_config.asset_id}. Make them with `{command}`, or "
        "pass skip_norm_stats=True where raw values are wanted."
    )


def create_torch_data_loader(
    data_config: _config.DataConfig,
    model_config: _model.BaseModelConfig,
    action_horizon: int,
    batch_size: int,
    *,
    sharding: jax.sharding.Sharding | None = None,
    skip_norm_stats: bool = False,
    shuffle: bool = False,
    num_batches: int | None = None,
    num_workers: int = 0,
    seed: int = 0,
    framework: str = "jax",
    dataset: Dataset | None = None,
    episodes: Sequence[int] | None = None,
    on_bad: OnBad = "raise",
    start_batch: int = 0,
    skipped: int = 0,
    keep_in_memory: bool = False,
) -> DataLoaderImpl:
    """As `create_data_loader`, from the parts; `batch_size` is that of all processes together.

    Args:
        keep_in_memory: make each sample once, for data that fits in memory.
    """
    if dataset is None:
        dataset = create_torch_dataset(data_config, action_horizon, model_config, episodes=episodes, on_bad=on_bad)
    else:
        dataset = own_dataset(dataset, data_config)
    dataset = transform_dataset(dataset, data_config, skip_norm_stats=skip_norm_stats)
    if keep_in_memory:
        dataset = KeptDataset(dataset)
    loader = TorchDataLoader(
        dataset,
        local_batch_size=_local_batch_size(batch_size, framework),
        sharding=sharding if framework == "jax" else None,
        shuffle=shuffle,
        num_batches=num_batches,
        num_workers=num_workers,
        seed=seed,
        framework=framework,
        on_bad=on_bad,
        start_batch=start_batch,
    )
    return DataLoaderImpl(data_config, loader, skipped=skipped)


def _local_batch_size(batch_size: int, framework: str) -> int:
    count = jax.process_count() if framework == "jax" else 1
    if batch_size % count:
        raise ValueError(f"batch_size {batch_size} is no multiple of the {count} processes.")
    return batch_size // count


def create_rlds_data_loader(
    data_config: _config.DataConfig,
    action_horizon: int,
    batch_size: int,
    *,
    sharding: jax.sharding.Sharding | None = None,
    skip_norm_stats: bool = False,
    shuffle: bool = False,
    num_batches: int | None = None,
    framework: str = "jax",
    seed: int = 0,
    on_bad: OnBad = "raise",
    start_batch: int = 0,
    skipped: int = 0,
) -> DataLoaderImpl:
    """As `create_data_loader`, from an RLDS dataset, which is read as a stream; `batch_size` is that of all processes.

    Each process reads the whole stream, in the same order, and decodes its share of every batch.
    """
    if framework != "jax":
        raise ValueError(f"RLDS data is loaded for JAX only; framework is {framework!r}.")
    _local_batch_size(batch_size, framework)
    dataset = create_rlds_dataset(
        data_config,
        action_horizon,
        batch_size,
        shuffle=shuffle,
        seed=seed,
        start_batch=start_batch,
        share=batching.Share(jax.process_index(), jax.process_count()),
        on_bad=on_bad,
    )
    transformed = transform_iterable_dataset(
        dataset, data_config, skip_norm_stats=skip_norm_stats, is_batched=True, on_bad=on_bad
    )
    loader = RLDSDataLoader(transformed, sharding=sharding, num_batches=num_batches, start_batch=start_batch)
    return DataLoaderImpl(data_config, loader, skipped=skipped)
