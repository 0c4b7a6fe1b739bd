import numpy as np
import pytest

from openpi import codecs
from openpi.cli import convert_recordings_to_lerobot as convert
from openpi.codecs import recordings
from openpi.training.datasets.reader import LeRobotDataset

STEPS = 31


@pytest.fixture
def recording():
    grip = np.linspace(0, 1, STEPS)
    pose = np.tile(np.array([0.1, 0.2, 0.3, 1, 0, 0, 0]), (STEPS, 1))
    pose[:, 0] = np.arange(STEPS)
    pictures = np.full((STEPS, 48, 64, 3), 90, np.uint8)
    return {
        "time": np.arange(STEPS) / 30 + 5.0,
        "robot_state.ee_pose": pose,
        "robot_command.pose": pose + np.array([0.5, 0, 0, 0, 0, 0, 0]),
        "grip": grip,
        "target_grip": grip,
        "image.wrist": pictures,
        "image.exterior": pictures,
        "task": "stack the cubes",
    }


def test_lower_rate_takes_past_states_and_coming_commands(recording):
    slow = recordings.at_rate(recording, 12)
    np.testing.assert_allclose(slow["time"][:3], [5, 5 + 1 / 12, 5 + 2 / 12])
    assert slow["robot_state.ee_pose"][:4, 0].tolist() == [0, 2, 5, 7]
    assert slow["robot_command.pose"][:4, 0].tolist() == [0.5, 3.5, 5.5, 8.5]


def test_same_rate_changes_nothing(recording):
    same = recordings.at_rate(recording, 30)
    for name in ("robot_state.ee_pose", "robot_command.pose", "grip"):
        np.testing.assert_array_equal(same[name], recording[name])


@pytest.mark.parametrize("changes", [{"time": np.zeros(STEPS)}, {"time": np.zeros(0)}, {"grip": np.zeros(3)}])
def test_wrong_recordings_are_refused(recording, changes):
    with pytest.raises(ValueError, match="time"):
        recordings.at_rate(recording | changes, 15)


def test_converted_data_reads_back(recording, tmp_path, capsys):
    np.savez(tmp_path / "one.npz", **recording)
    np.savez(tmp_path / "two.npz", **recording)
    args = convert.Args(input=tmp_path, output=tmp_path / "data", codec="ee", fps=10)
    assert convert.main(args) == 0
    assert capsys.readouterr().out.startswith("2 episodes")
    data = LeRobotDataset(tmp_path / "data")
    columns = codecs.get("ee").training_columns(recordings.at_rate(recording, 10))
    assert len(data) == 2 * len(columns["action"])
    frame = data[3]
    np.testing.assert_allclose(frame["action"], columns["action"][3], atol=1e-6)
    np.testing.assert_allclose(frame["observation.state"], columns["observation.state"][3], atol=1e-6)


def test_an_empty_folder_is_said(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no \.npz"):
        convert.main(convert.Args(input=tmp_path, output=tmp_path / "data"))
