"""What is written is what is read, in both formats, after a resume and after a kill too."""

import json
import pathlib

import numpy as np
import pytest

from openpi.training.datasets import BadSampleError, DatasetError, LeRobotDataset, LeRobotWriter, VideoSettings, layouts

FPS = 10
FEATURES = {
    "observation.state": {"dtype": "float32", "shape": (3,), "names": ["a", "b", "c"]},
    "action": {"dtype": "float32", "shape": (2,), "names": None},
    "observation.images.top": {"dtype": "video", "shape": (32, 48, 3), "names": ["height", "width", "channels"]},
    "observation.images.wrist": {"dtype": "image", "shape": (16, 16, 3), "names": ["height", "width", "channels"]},
}


def frame(episode: int, step: int) -> dict[str, np.ndarray]:
    level = 20 + 40 * (episode % 5) + 5 * step
    return {
        "observation.state": np.array([episode, step, 0.5], np.float32),
        "action": np.array([step, -step], np.float32) / 10,
        "observation.images.top": np.full((32, 48, 3), level, np.uint8),
        "observation.images.wrist": np.full((16, 16, 3), (level, 0, 255), np.uint8),
    }


def record(writer: LeRobotWriter, lengths: list[int], task: str = "push the cube") -> None:
    for length in lengths:
        episode = writer.num_episodes
        for step in range(length):
            writer.add_frame(frame(episode, step), task=f"{task} {episode % 2}")
        writer.save_episode()


@pytest.fixture(params=["v2.1", "v3.0"])
def version(request: pytest.FixtureRequest) -> str:
    return request.param


def check(root: pathlib.Path, lengths: list[int]) -> None:
    dataset = LeRobotDataset(str(root))
    assert [episode.length for episode in dataset.episodes] == lengths
    assert len(dataset) == sum(lengths)
    index = 0
    for episode, length in enumerate(lengths):
        for step in range(length):
            sample = dataset[index]
            want = frame(episode, step)
            np.testing.assert_array_equal(sample["observation.state"], want["observation.state"])
            np.testing.assert_array_equal(sample["action"], want["action"])
            wrist = np.moveaxis(want["observation.images.wrist"], -1, 0)
            np.testing.assert_array_equal(sample["observation.images.wrist"], wrist)
            top = sample["observation.images.top"]
            assert top.shape == (3, 32, 48)
            assert abs(float(top.mean()) - want["observation.images.top"].mean()) < 2.5, (episode, step)
            assert sample["task"] == f"push the cube {episode % 2}"
            assert (sample["episode_index"], sample["frame_index"], sample["index"]) == (episode, step, index)
            assert sample["timestamp"] == pytest.approx(step / FPS)
            index += 1


def test_written_frames_are_read_back(tmp_path: pathlib.Path, version: str) -> None:
    with LeRobotWriter(tmp_path, fps=FPS, features=FEATURES, version=version, robot_type="toy") as writer:
        record(writer, [4, 1, 3])
    check(tmp_path, [4, 1, 3])
    info = json.loads((tmp_path / "meta/info.json").read_text())
    assert (info["total_episodes"], info["total_frames"], info["total_tasks"]) == (3, 8, 2)
    assert info["robot_type"] == "toy"
    assert not (tmp_path / ".staging").exists()


def test_resumed_dataset_goes_on_where_it_was(tmp_path: pathlib.Path, version: str) -> None:
    for lengths in ([3, 2], [4], [2]):
        with LeRobotWriter(tmp_path, fps=FPS, features=FEATURES, version=version, resume=True) as writer:
            record(writer, lengths)
    check(tmp_path, [3, 2, 4, 2])


def test_episode_that_was_not_saved_leaves_no_trace(tmp_path: pathlib.Path, version: str) -> None:
    with LeRobotWriter(tmp_path, fps=FPS, features=FEATURES, version=version) as writer:
        record(writer, [2])
        writer.add_frame(frame(7, 0), task="fails")
        writer.discard_episode()
        record(writer, [3])
        writer.add_frame(frame(8, 0), task="is never saved")
    check(tmp_path, [2, 3])


def test_kill_before_info_json_loses_only_that_episode(
    tmp_path: pathlib.Path, version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = LeRobotWriter(tmp_path, fps=FPS, features=FEATURES, version=version)
    record(writer, [2, 3])
    with monkeypatch.context() as patch:
        patch.setattr(layouts.Layout, "write_info", lambda *args: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            record(writer, [5])
    check(tmp_path, [2, 3])
    with LeRobotWriter(tmp_path, fps=FPS, features=FEATURES, version=version, resume=True) as writer:
        record(writer, [4, 1])
    check(tmp_path, [2, 3, 4, 1])


def test_large_files_are_followed_by_new_ones(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layouts, "_DATA_FILE_MB", 0)
    monkeypatch.setattr(layouts, "_VIDEO_FILE_MB", 0)
    with LeRobotWriter(tmp_path, fps=FPS, features=FEATURES) as writer:
        record(writer, [2, 3])
    assert len(list(tmp_path.glob("data/*/*.parquet"))) == 2
    assert len(list(tmp_path.glob("videos/*/*/*.mp4"))) == 2
    check(tmp_path, [2, 3])


def test_statistics_are_those_of_all_frames(tmp_path: pathlib.Path) -> None:
    with LeRobotWriter(tmp_path, fps=FPS, features=FEATURES) as writer:
        record(writer, [3, 2])
    with LeRobotWriter(tmp_path, fps=FPS, features=FEATURES, resume=True) as writer:
        record(writer, [4])
    states = np.array([[e, s, 0.5] for e, n in enumerate([3, 2, 4]) for s in range(n)])
    stats = json.loads((tmp_path / "meta/stats.json").read_text())["observation.state"]
    np.testing.assert_allclose(stats["mean"], states.mean(0), atol=1e-6)
    np.testing.assert_allclose(stats["std"], states.std(0), atol=1e-6)
    np.testing.assert_allclose(stats["max"], states.max(0))
    assert stats["count"] == [9]


def test_existing_dataset_is_not_overwritten(tmp_path: pathlib.Path) -> None:
    with LeRobotWriter(tmp_path, fps=FPS, features=FEATURES) as writer:
        record(writer, [2])
    with pytest.raises(DatasetError, match="already is a dataset"):
        LeRobotWriter(tmp_path, fps=FPS, features=FEATURES)
    with pytest.raises(DatasetError, match=r"v3.0 at 10 fps .* cannot be resumed as v2.1"):
        LeRobotWriter(tmp_path, fps=FPS, features=FEATURES, version="v2.1", resume=True)


def test_frame_that_does_not_fit_is_refused(tmp_path: pathlib.Path) -> None:
    writer = LeRobotWriter(tmp_path, fps=FPS, features=FEATURES)
    good = frame(0, 0)
    with pytest.raises(ValueError, match=r"missing or unknown: \['action'\]"):
        writer.add_frame({key: value for key, value in good.items() if key != "action"}, task="t")
    with pytest.raises(ValueError, match=r"'action' has shape \(3,\); the dataset was made for \(2,\)"):
        writer.add_frame(good | {"action": np.zeros(3)}, task="t")
    with pytest.raises(ValueError, match="must be uint8"):
        writer.add_frame(good | {"observation.images.top": np.zeros((32, 48, 3))}, task="t")
    with pytest.raises(ValueError, match="no frames"):
        writer.save_episode()


def test_odd_image_sizes_are_named(tmp_path: pathlib.Path) -> None:
    features = {"cam": {"dtype": "video", "shape": (33, 48, 3)}}
    writer = LeRobotWriter(tmp_path, fps=FPS, features=features)
    with pytest.raises(ValueError, match="33x48 pixels cannot be encoded"):
        writer.add_frame({"cam": np.zeros((33, 48, 3), np.uint8)}, task="t")


def test_av1_is_read_too(tmp_path: pathlib.Path) -> None:
    features = {"cam": {"dtype": "video", "shape": (64, 64, 3)}}
    settings = VideoSettings(codec="libsvtav1", crf=30)
    with LeRobotWriter(tmp_path, fps=FPS, features=features, video=settings) as writer:
        for episode in range(2):
            for step in range(3):
                writer.add_frame({"cam": np.full((64, 64, 3), 30 + 60 * episode + 20 * step, np.uint8)}, task="t")
            writer.save_episode()
    dataset = LeRobotDataset(str(tmp_path))
    levels = [float(dataset[i]["cam"].mean()) for i in (4, 0, 5, 2, 1, 3)]
    np.testing.assert_allclose(levels, [110, 30, 130, 70, 50, 90], atol=3)


def test_missing_episode_is_named(tmp_path: pathlib.Path) -> None:
    with LeRobotWriter(tmp_path, fps=FPS, features=FEATURES, version="v2.1") as writer:
        record(writer, [2, 2])
    (tmp_path / "data/chunk-000/episode_000001.parquet").unlink()
    with pytest.raises(BadSampleError, match=r"episode 1, all frames: its table .* is missing"):
        LeRobotDataset(str(tmp_path))
    dataset = LeRobotDataset(str(tmp_path), on_bad="skip")
    assert dataset.skipped_episodes == (1,)
    assert len(dataset) == 2
