"""The paths that `openpi train` and `openpi norm-stats` take on the command line, put into a training config."""

import dataclasses
import pathlib

from openpi.training.train_config import TrainConfig

# What is trained on a dataset given by its path, where no config is named.
DEFAULT_CONFIG = "pi05_positronic_lowmem"


def config_name(positional: str | None, option: str | None, input_path: str | None) -> str:
    """The config that the command line names, by position or by --config-name.

    Raises:
        ValueError: it names none, or two different ones.
    """
    if positional and option and positional != option:
        raise ValueError(f"Two configs are given, {positional!r} and {option!r}; give one.")
    name = positional or option or (DEFAULT_CONFIG if input_path else None)
    if name is None:
        raise ValueError("Give a config: as the first argument, or with --config-name. `openpi info` lists them.")
    return name


def with_paths(
    config: TrainConfig,
    *,
    input_path: str | None = None,
    stats_path: str | None = None,
    output_path: str | None = None,
) -> TrainConfig:
    """The config reading the dataset `input_path` and the statistics below `stats_path`, writing to `output_path`.

    Its statistics go by the config's asset_id, so that the config finds them in the checkpoint when it serves; where
    it has none, by the folder's name.

    Raises:
        FileNotFoundError: `input_path` is no folder of a LeRobot dataset.
    """
    if input_path is not None:
        folder = pathlib.Path(input_path).expanduser().resolve()
        if not (folder / "meta" / "info.json").is_file():
            raise FileNotFoundError(f"--input-path {input_path} is no LeRobot dataset: it has no meta/info.json.")
        asset_id = config.data.assets.asset_id or folder.name
        assets = dataclasses.replace(config.data.assets, assets_dir=None, asset_id=asset_id)
        config = dataclasses.replace(config, data=dataclasses.replace(config.data, repo_id=str(folder), assets=assets))
    if stats_path is not None:
        config = with_stats_path(config, stats_path)
    if output_path is not None:
        config = dataclasses.replace(config, checkpoint_base_dir=output_path)
    return config


def with_stats_path(config: TrainConfig, stats_path: str) -> TrainConfig:
    """The config with its statistics in `<stats_path>/<asset_id>/norm_stats.json`."""
    assets = dataclasses.replace(config.data.assets, assets_dir=str(pathlib.Path(stats_path).expanduser().resolve()))
    return dataclasses.replace(config, data=dataclasses.replace(config.data, assets=assets))
