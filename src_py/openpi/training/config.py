"""The registry of named configs, and the names that users of configs import.

`get_config` knows the configs in `openpi.training.configs`, those that installed packages announce (entry points of the
group `openpi.configs`, each naming a module that calls `register_config`), and those in a Python file:
`my_robot.py:my_config`, or just `my_robot.py` where it registers one config only.
"""

import difflib
import importlib.metadata
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

import cloudpickle

from openpi.shared import source_files
from openpi.training import configs
from openpi.training.configs.aloha import LeRobotAlohaDataConfig
from openpi.training.configs.droid import LeRobotDROIDDataConfig, RLDSDroidDataConfig
from openpi.training.configs.libero import LeRobotLiberoDataConfig
from openpi.training.data_config import (
    AssetsConfig,
    DataConfig,
    DataConfigFactory,
    DroidActionSpace,
    FakeDataConfig,
    GroupFactory,
    ModelTransformFactory,
    RLDSDataset,
    SimpleDataConfig,
)
from openpi.training.overrides import override
from openpi.training.train_config import TrainConfig

__all__ = [
    "AssetsConfig",
    "DataConfig",
    "DataConfigFactory",
    "DroidActionSpace",
    "FakeDataConfig",
    "GroupFactory",
    "LeRobotAlohaDataConfig",
    "LeRobotDROIDDataConfig",
    "LeRobotLiberoDataConfig",
    "ModelTransformFactory",
    "RLDSDataset",
    "RLDSDroidDataConfig",
    "SimpleDataConfig",
    "TrainConfig",
    "cli",
    "config_names",
    "get_config",
    "override",
    "register_config",
]

ENTRY_POINT_GROUP = "openpi.configs"

_CONFIGS: dict[str, TrainConfig] = {}
# Modules run for their configs already: entry point or file -> the names it registered.
_loaded: dict[str, list[str]] = {}
# What the file that is being run has registered so far; a file may build on another's, whose run lies within its own.
_running: list[list[str]] = [[]]


def register_config(config: TrainConfig, *, replace: bool = False) -> TrainConfig:
    """Make `get_config(config.name)` find this config; returns it.

    Raises:
        ValueError: the name is taken and `replace` is not set.
    """
    if config.name in _CONFIGS and not replace:
        raise ValueError(f"There is a config '{config.name}' already; choose another name or pass replace=True.")
    _CONFIGS[config.name] = config
    _running[-1].append(config.name)
    return config


def config_names() -> list[str]:
    """The names of all configs, those of installed packages included."""
    _load_entry_points()
    return list(_CONFIGS)


def get_config(config_name: str) -> TrainConfig:
    """The config of that name.

    Args:
        config_name: a registered name, `path/to/file.py:name`, or `path/to/file.py`.

    Raises:
        ValueError: there is none; the message names the nearest.
        FileNotFoundError: the Python file does not exist.
    """
    path, is_file, name = config_name.partition(".py")
    if is_file and name[:1] in ("", ":"):
        return _from_file(pathlib.Path(f"{path}.py"), name.removeprefix(":"))
    if config_name not in _CONFIGS:
        _load_entry_points()
    if config_name not in _CONFIGS:
        raise ValueError(_unknown(config_name, list(_CONFIGS)))
    return _CONFIGS[config_name]


def command_name(config: TrainConfig) -> str:
    """What a command line calls this config: its name, or for one of a file `path/to/file.py:name`."""
    files = [path for path, names in _loaded.items() if config.name in names and path.endswith(".py")]
    return f"{files[0]}:{config.name}" if files else config.name


def cli(*, args: Sequence[str] | None = None, prog: str | None = None) -> TrainConfig:
    """The config that a command line names, with the fields changed that its options set.

    Args:
        args: `CONFIG [--field value ...]`, default the process's own.

    Raises:
        ValueError: there is no such config.
    """
    args = list(sys.argv[1:] if args is None else args)
    if not args or args[0] in ("-h", "--help"):
        print(f"usage: {prog or sys.argv[0]} CONFIG [options]\n\nConfigs: {', '.join(config_names())}")
        raise SystemExit(0 if args else 2)
    config = get_config(args[0])
    return override(config, args[1:], prog=f"{prog or sys.argv[0]} {args[0]}")


def _unknown(name: str, names: list[str]) -> str:
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    hint = f"Did you mean {' or '.join(repr(n) for n in near)}?" if near else f"There are {', '.join(sorted(names))}."
    return f"There is no config '{name}'. {hint} (`openpi info` lists all; a config of your own is FILE.py:NAME.)"


def _from_file(path: pathlib.Path, name: str) -> TrainConfig:
    names = _load_file(path)
    if not name and len(names) == 1:
        return _CONFIGS[names[0]]
    if name in names:
        return _CONFIGS[name]
    what = f"registers no config '{name}'" if name else f"registers {len(names)} configs, so name one"
    raise ValueError(f"{path} {what}: {path}:NAME with NAME one of {names}.")


def _load_file(path: pathlib.Path) -> list[str]:
    key = str(path.resolve())
    if key in _loaded:
        return _loaded[key]
    before, loaded = dict(_CONFIGS), dict(_loaded)
    _running.append([])
    try:
        module = source_files.run(path, "config")
    except BaseException:
        # So that the corrected file can be loaded again.
        _restore(_CONFIGS, before)
        _restore(_loaded, loaded)
        raise
    finally:
        names = _running.pop()
    cloudpickle.register_pickle_by_value(module)  # its transforms go to workers of the data loader, which lack it
    _loaded[key] = list(dict.fromkeys(names))
    return _loaded[key]


def _restore(registry: dict[str, Any], content: dict[str, Any]) -> None:
    registry.clear()
    registry.update(content)


def _load_entry_points() -> None:
    for point in importlib.metadata.entry_points(group=ENTRY_POINT_GROUP):
        if point.value not in _loaded:
            _loaded[point.value] = []
            point.load()


for _config in configs.ALL:
    register_config(_config)
