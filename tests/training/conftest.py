"""A small ALOHA data set with its statistics, and a config that trains on it in seconds."""

import dataclasses
import functools
import importlib.util
import os
import pathlib
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import jax
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache

from openpi.shared import normalize
from openpi.training import config as _config
from openpi.training import data_config, norm_stats
from openpi.training.datasets import LeRobotWriter, droid

HERE = pathlib.Path(__file__).parent


def _load_tiny() -> ModuleType:
    """The config file as `openpi train FILE.py:NAME` loads it."""
    spec = importlib.util.spec_from_file_location("tiny_config", HERE / "tiny_config.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="package", autouse=True)
def quick_compilation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Compile fast rather than well, and each program once; processes started here inherit it."""
    settings: dict[str, Any] = {
        "jax_disable_most_optimizations": True,
        "jax_compilation_cache_dir": str(tmp_path_factory.mktemp("jax_cache")),
        "jax_persistent_cache_min_compile_time_secs": 0.2,
    }
    before = {name: jax.config.values[name] for name in settings}
    for name, value in settings.items():
        jax.config.update(name, value)
        os.environ[name.upper()] = str(int(value) if isinstance(value, bool) else value)
    yield
    for name, value in before.items():
        jax.config.update(name, value)
        os.environ.pop(name.upper(), None)
    compilation_cache.reset_cache()


@pytest.fixture(scope="session")
def tiny() -> ModuleType:
    return sys.modules.get("tiny_config") or _load_tiny()


def write_episodes(root: pathlib.Path, lengths: list[int], *, seed: int = 0, version: str = "v3.0") -> pathlib.Path:
    """Smooth joint motions; the picture shows where in the motion the robot is."""
    features = {
        "observation.state": {"dtype": "float32", "shape": (14,), "names": None},
        "action": {"dtype": "float32", "shape": (14,), "names": None},
        "observation.images.top": {"dtype": "video", "shape": (28, 28, 3), "names": None},
    }
    rng = np.random.default_rng(seed)
    with LeRobotWriter(root, fps=10, features=features, version=version, robot_type="aloha") as writer:
        for length in lengths:
            phase, speed = rng.uniform(0, 6, 14), rng.uniform(0.1, 0.3, 14)
            motion = 0.5 + 0.4 * np.sin(phase + speed * np.arange(length + 1)[:, None])
            for step in range(length):
                image = np.full((28, 28, 3), 20 + step * 200 // length, np.uint8)
                writer.add_frame(
                    {"observation.state": motion[step], "action": motion[step + 1], "observation.images.top": image},
                    task="push",
                )
            writer.save_episode()
    return root


@pytest.fixture(scope="session")
def episodes_root(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Four episodes of 12 frames."""
    return write_episodes(tmp_path_factory.mktemp("episodes"), [12, 12, 12, 12])


@pytest.fixture(scope="session")
def assets_dir(tiny: ModuleType, episodes_root: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The statistics of `episodes_root`, as <assets_dir>/tiny/tiny/norm_stats.json."""
    folder = tmp_path_factory.mktemp("assets")
    config = dataclasses.replace(tiny.TINY, data=tiny.aloha(str(episodes_root)), assets_base_dir=str(folder))
    stats, skipped = norm_stats.compute(config)
    assert skipped == 0
    normalize.save(folder / "tiny" / "tiny", stats)
    return folder


@pytest.fixture(scope="session")
def tiny_below(tiny: ModuleType, episodes_root: pathlib.Path, assets_dir: pathlib.Path) -> Any:
    """tiny_below(folder, "name", **changes) -> a config of a run in that folder."""

    def make(folder: pathlib.Path, exp_name: str, **changes: Any) -> _config.TrainConfig:
        settings = {
            "exp_name": exp_name,
            "data": tiny.aloha(str(episodes_root)),
            "assets_base_dir": str(assets_dir),
            "checkpoint_base_dir": str(folder),
        }
        return dataclasses.replace(tiny.TINY, **(settings | changes))

    return make


@pytest.fixture
def tiny_run(tiny_below: Any, tmp_path: pathlib.Path) -> Any:
    """tiny_run("name", **changes) -> a config of a run in this test's own folder."""
    return functools.partial(tiny_below, tmp_path)


@pytest.fixture
def rlds_run(tiny_run: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """rlds_run(read, **changes of the data) -> the config of a run on what `read` gives in place of TFDS."""

    def make(read: droid.Read, **changes: Any) -> _config.TrainConfig:
        monkeypatch.setattr(droid, "read_tfds", read)
        monkeypatch.setattr(droid, "require_tfds", lambda: None)
        settings = {
            "repo_id": "droid",
            "rlds_data_dir": "somewhere",
            "action_space": data_config.DroidActionSpace.JOINT_VELOCITY,
            "datasets": (data_config.RLDSDataset("droid", "1.0.1", 1.0),),
            "tokenizer_path": data_config.SMALL_TOKENIZER,
        }
        return tiny_run("rlds", data=_config.RLDSDroidDataConfig(**(settings | changes)))

    return make
