"""Our reader and writer against the `lerobot` package's, value by value."""

import os
import pathlib
import subprocess
from typing import Any

import numpy as np
import pytest
from tests.training.lerobot import by_lerobot

from openpi.training.datasets import LeRobotDataset, LeRobotWriter, VideoSettings, layouts

HERE = pathlib.Path(__file__).parent / "lerobot"
PYTHONS = [python for python in os.environ.get("OPENPI_LEROBOT_PYTHON", "").split(os.pathsep) if python]


def lerobot(python: str, *arguments: Any) -> None:
    command = [python, "-I", str(HERE / "by_lerobot.py"), *map(str, arguments)]
    process = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"HF_HUB_OFFLINE": "1"})
    assert process.returncode == 0, process.stderr[-3000:]


def ours(root: pathlib.Path) -> dict[str, np.ndarray]:
    deltas = {key: [step / by_lerobot.FPS for step in steps] for key, steps in by_lerobot.DELTAS.items()}
    dataset = LeRobotDataset(str(root), delta_timestamps=deltas)
    samples = [dataset[index] for index in range(len(dataset))]
    return {key: np.stack([np.asarray(sample[key]) for sample in samples]) for key in samples[0]}


def compare(root: pathlib.Path, samples: Any, episodes: int = len(by_lerobot.LENGTHS)) -> None:
    """All of our samples equal theirs, decoded images included, bit by bit."""
    read = ours(root)
    assert set(read) == set(samples)
    assert len(np.unique(read["episode_index"])) == episodes
    assert read["action_is_pad"].any()
    for key, expected in samples.items():
        # lerobot drops the axis of a feature of one number.
        np.testing.assert_array_equal(read[key].reshape(expected.shape), expected, err_msg=key)
        assert read[key].dtype == expected.dtype, key


def reread(python: str, root: pathlib.Path, out: pathlib.Path) -> Any:
    lerobot(python, "read", root, out)
    return np.load(out)


def record(root: pathlib.Path, version: Any, episodes: range, **settings: Any) -> None:
    options = {"features": by_lerobot.FEATURES, "fps": by_lerobot.FPS, "resume": episodes.start > 0}
    with LeRobotWriter(root, version=version, **options, **settings) as writer:
        for episode in episodes:
            for step in range(by_lerobot.LENGTHS[episode]):
                writer.add_frame(by_lerobot.frame(episode, step), task=by_lerobot.TASKS[episode])
            writer.save_episode()


@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
def test_a_dataset_that_lerobot_wrote(version: str) -> None:
    compare(HERE / version, np.load(HERE / f"{version}.npz"))
    dataset = LeRobotDataset(str(HERE / version))
    assert (dataset.meta.version, dataset.meta.fps, dataset.meta.robot_type) == (version, by_lerobot.FPS, "toy")
    assert [(e.length, e.tasks) for e in dataset.episodes] == [
        (length, (task,)) for length, task in zip(by_lerobot.LENGTHS, by_lerobot.TASKS, strict=True)
    ]
    for index, sample in enumerate(dataset[i] for i in range(len(dataset))):
        recorded = by_lerobot.frame(int(sample["episode_index"]), int(sample["frame_index"]))
        wrist, top = (np.moveaxis(recorded[camera], -1, 0) for camera in reversed(by_lerobot.CAMERAS))
        np.testing.assert_array_equal(sample[by_lerobot.CAMERAS[1]], wrist)
        assert np.abs(sample[by_lerobot.CAMERAS[0]] - top.astype(float)).mean() < 4, index


@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
def test_our_writer_goes_on_with_a_dataset_of_lerobot(version: str, tmp_path: pathlib.Path) -> None:
    root = copied(version, tmp_path)
    before = ours(root)
    record(root, version, range(1, 3))
    after = ours(root)
    for key, values in before.items():
        np.testing.assert_array_equal(after[key][: len(values)], values, err_msg=key)
    assert after["episode_index"].tolist() == [0] * 4 + [1] * 3 + [2] * 2 + [3] * 3 + [4] * 2
    assert after["task"][-5:].tolist() == ["lift the cube"] * 3 + ["push the cube"] * 2


def copied(version: str, folder: pathlib.Path) -> pathlib.Path:
    for path in (HERE / version).rglob("*.*"):
        if path.is_file():
            target = folder / path.relative_to(HERE / version)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    return folder


@pytest.fixture(params=PYTHONS or [None])
def python(request: pytest.FixtureRequest) -> str:
    if request.param is None:
        pytest.skip("OPENPI_LEROBOT_PYTHON names no Python with lerobot")
    return request.param


def test_what_lerobot_writes_here_is_read_as_it_reads_it(python: str, tmp_path: pathlib.Path) -> None:
    lerobot(python, "write", tmp_path / "theirs")
    compare(tmp_path / "theirs", reread(python, tmp_path / "theirs", tmp_path / "samples.npz"))


@pytest.mark.parametrize("kind", ["plain", "resumed", "many files", "av1", "resumed lerobot's"])
def test_lerobot_reads_what_we_write(
    python: str, kind: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = subprocess.check_output(
        [python, "-I", "-c", "from lerobot.datasets.lerobot_dataset import CODEBASE_VERSION as v; print(v)"], text=True
    ).strip()
    root, count = tmp_path / "ours", len(by_lerobot.LENGTHS)
    if kind == "many files":
        monkeypatch.setattr(layouts, "_DATA_FILE_MB", 1e-6)
        monkeypatch.setattr(layouts, "_VIDEO_FILE_MB", 1e-6)
    if kind == "resumed lerobot's":
        copied(version, root)
        record(root, version, range(1, 3))
        count += 2
    elif kind == "resumed":
        record(root, version, range(2))
        record(root, version, range(2, 3))
    else:
        record(root, version, range(3), video=VideoSettings(codec="libsvtav1", crf=30) if kind == "av1" else None)
    compare(root, reread(python, root, tmp_path / "samples.npz"), count)
