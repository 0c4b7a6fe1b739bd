"""Windows, filters, and what is said about bad data."""

import json
import pathlib
import pickle

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from openpi.training.datasets import BadSampleError, DatasetError, LeRobotDataset, LeRobotWriter

FPS = 20
LENGTHS = (6, 9, 4)


def level(episode: int, step: int) -> int:
    return 15 + 70 * episode + 7 * step


def make_dataset(root: pathlib.Path, version: str = "v3.0") -> pathlib.Path:
    features = {
        "state": {"dtype": "float32", "shape": (2,), "names": None},
        "action": {"dtype": "float32", "shape": (2,), "names": None},
        "cam": {"dtype": "video", "shape": (32, 32, 3), "names": None},
    }
    with LeRobotWriter(root, fps=FPS, features=features, version=version) as writer:
        for episode, length in enumerate(LENGTHS):
            for step in range(length):
                values = np.array([episode, step], np.float32)
                image = np.full((32, 32, 3), level(episode, step), np.uint8)
                writer.add_frame({"state": values, "action": values, "cam": image}, task=f"task {episode}")
            writer.save_episode()
    return root


@pytest.fixture(scope="module", params=["v2.1", "v3.0"])
def root(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return make_dataset(tmp_path_factory.mktemp("dataset"), request.param)


def test_windows_are_padded_at_both_ends_of_an_episode(root: pathlib.Path) -> None:
    offsets = [step / FPS for step in (-1, 0, 1, 2)]
    dataset = LeRobotDataset(str(root), delta_timestamps={"action": offsets}, image_keys=())
    first, last = dataset[6], dataset[14]
    np.testing.assert_array_equal(first["action"][:, 1], [0, 0, 1, 2])
    np.testing.assert_array_equal(first["action_is_pad"], [True, False, False, False])
    np.testing.assert_array_equal(last["action"][:, 1], [7, 8, 8, 8])
    np.testing.assert_array_equal(last["action_is_pad"], [False, False, True, True])
    assert set(first["action"][:, 0]) == set(last["action"][:, 0]) == {1.0}
    assert "cam" not in first


def test_cameras_can_be_windowed_too(root: pathlib.Path) -> None:
    dataset = LeRobotDataset(str(root), delta_timestamps={"cam": [-0.05, 0.0]})
    images = dataset[8]["cam"]
    assert images.shape == (2, 3, 32, 32)
    np.testing.assert_allclose(images.mean((1, 2, 3)), [level(1, 1), level(1, 2)], atol=2.5)


def test_any_order_gives_the_right_frames(root: pathlib.Path) -> None:
    dataset = LeRobotDataset(str(root))
    for index in np.random.default_rng(0).permutation(len(dataset)):
        sample = dataset[index]
        want = level(int(sample["episode_index"]), int(sample["frame_index"]))
        assert abs(sample["cam"].mean() - want) < 2.5


def test_episode_filter(root: pathlib.Path) -> None:
    dataset = LeRobotDataset(str(root), episodes=[2, 0], image_keys=())
    assert len(dataset) == LENGTHS[2] + LENGTHS[0]
    assert [int(dataset[i]["episode_index"]) for i in (0, 3, 4, 9)] == [2, 2, 0, 0]
    assert dataset[0]["task"] == "task 2"
    with pytest.raises(DatasetError, match="no episode 3; it has 3 episodes"):
        LeRobotDataset(str(root), episodes=[3])


def test_a_pickled_dataset_reads_on(root: pathlib.Path) -> None:
    dataset = LeRobotDataset(str(root))
    before = dataset[3]
    after = pickle.loads(pickle.dumps(dataset))[3]
    np.testing.assert_array_equal(before["cam"], after["cam"])


def test_index_past_the_end(root: pathlib.Path) -> None:
    with pytest.raises(IndexError, match="has 19 frames, no frame 19"):
        LeRobotDataset(str(root))[19]


def test_unknown_names_are_errors_that_list_the_known(root: pathlib.Path) -> None:
    with pytest.raises(DatasetError, match=r"no feature 'actions'; it has state, action, cam"):
        LeRobotDataset(str(root), delta_timestamps={"actions": [0.0]})
    with pytest.raises(DatasetError, match="no multiple of the frame period 1/20 s"):
        LeRobotDataset(str(root), delta_timestamps={"action": [0.0, 0.03]})


def test_missing_dataset_says_what_to_do(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_LEROBOT_HOME", str(tmp_path))
    with pytest.raises(DatasetError, match="hf download --repo-type dataset lab/cubes"):
        LeRobotDataset("lab/cubes")


def test_repo_id_is_found_in_the_home_folder(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_dataset(tmp_path / "lab" / "cubes")
    monkeypatch.setenv("HF_LEROBOT_HOME", str(tmp_path))
    assert len(LeRobotDataset("lab/cubes", image_keys=())) == sum(LENGTHS)


def replace_column(path: pathlib.Path, key: str, values: pa.Array) -> None:
    table = pq.read_table(path)
    pq.write_table(table.set_column(table.schema.get_field_index(key), key, values), path)


def test_nan_actions_name_dataset_episode_and_frame(tmp_path: pathlib.Path) -> None:
    root = make_dataset(tmp_path)
    path = root / "data/chunk-000/file-000.parquet"
    actions = [
        row if i != 8 else [float("nan"), 0.0] for i, row in enumerate(pq.read_table(path)["action"].to_pylist())
    ]
    replace_column(path, "action", pa.array(actions, pa.list_(pa.float32())))
    dataset = LeRobotDataset(str(root), delta_timestamps={"action": [0.0, 0.05]}, image_keys=())
    with pytest.raises(BadSampleError, match=r"episode 1, frame 2: 'action' is not finite") as caught:
        dataset[7]
    assert (caught.value.dataset, caught.value.episode, caught.value.frame) == (str(root), 1, 2)
    dataset[6]
    assert [(e.episode, e.frame) for e in dataset.problems()] == [(1, 2)]
    copy = pickle.loads(pickle.dumps(caught.value))
    assert str(copy) == str(caught.value)


def test_wrong_dimensions_and_missing_columns(tmp_path: pathlib.Path) -> None:
    root = make_dataset(tmp_path)
    path = root / "data/chunk-000/file-000.parquet"
    intact = pq.read_table(path)
    replace_column(path, "state", pa.array([[0.0] * 3] * 19, pa.list_(pa.float32())))
    dataset = LeRobotDataset(str(root), image_keys=())
    with pytest.raises(BadSampleError, match=r"'state' has shape \(3,\); meta/info.json says \(2,\)"):
        dataset[0]
    pq.write_table(intact.drop_columns(["action"]), path)
    with pytest.raises(BadSampleError, match=r"episode 0, all frames: 'action' cannot be read"):
        LeRobotDataset(str(root), image_keys=(), delta_timestamps={"action": [0.0]})[0]["action"]


def test_table_shorter_than_its_episodes(tmp_path: pathlib.Path) -> None:
    root = make_dataset(tmp_path)
    path = root / "data/chunk-000/file-000.parquet"
    pq.write_table(pq.read_table(path).slice(0, 16), path)
    dataset = LeRobotDataset(str(root), image_keys=())
    dataset[14]
    with pytest.raises(BadSampleError, match=r"episode 2, all frames: file-000.parquet ends before"):
        dataset[15]


def test_broken_video_names_the_camera(tmp_path: pathlib.Path) -> None:
    root = make_dataset(tmp_path, "v2.1")
    video = root / "videos/chunk-000/cam/episode_000001.mp4"
    data = bytearray(video.read_bytes())
    video.write_bytes(bytes(data[:40]))
    with pytest.raises(BadSampleError, match=r"episode 1, frame 0: camera 'cam': video .* cannot be opened"):
        LeRobotDataset(str(root))[6]
    assert LeRobotDataset(str(root))[5]["cam"].shape == (3, 32, 32)


def test_video_shorter_than_its_episode(tmp_path: pathlib.Path) -> None:
    root = make_dataset(tmp_path, "v2.1")
    folder = root / "videos/chunk-000/cam"
    (folder / "episode_000001.mp4").write_bytes((folder / "episode_000002.mp4").read_bytes())
    dataset = LeRobotDataset(str(root))
    dataset[6 + 3]
    with pytest.raises(BadSampleError, match=r"episode 1, frame 4: camera 'cam': .* has no frame at 0.200 s"):
        dataset[6 + 4]
    assert {(e.episode, e.frame) for e in dataset.problems(decode=True)} == {(1, f) for f in range(4, 9)}


def test_empty_episode(tmp_path: pathlib.Path) -> None:
    root = make_dataset(tmp_path, "v2.1")
    path = root / "meta/episodes.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[1]["length"] = 0
    path.write_text("\n".join(json.dumps(row) for row in rows))
    with pytest.raises(BadSampleError, match="episode 1, all frames: the episode is empty"):
        LeRobotDataset(str(root))
    dataset = LeRobotDataset(str(root), on_bad="skip", image_keys=())
    assert dataset.skipped_episodes == (1,)
    assert {int(dataset[i]["episode_index"]) for i in range(len(dataset))} == {0, 2}


def test_unknown_format_version(tmp_path: pathlib.Path) -> None:
    root = make_dataset(tmp_path)
    path = root / "meta/info.json"
    path.write_text(path.read_text().replace("v3.0", "v9.0"))
    with pytest.raises(DatasetError, match=r"codebase_version is 'v9.0'; v2.0, v2.1 and v3.0 can be read"):
        LeRobotDataset(str(root))
