"""`openpi norm-stats` and `openpi train` on a data set given by its path."""

import dataclasses
import pathlib
from typing import Any

import numpy as np
import pytest

from openpi.cli import main as command
from openpi.cli import norm_stats as norm_stats_command
from openpi.cli import train as train_command
from openpi.shared import normalize
from openpi.training import config as _config
from openpi.training import data_loader, norm_stats
from openpi.training.datasets import BadSampleError, LeRobotDataset, LeRobotWriter

HERE = pathlib.Path(__file__).parent


def recorded(root: pathlib.Path, key: str) -> np.ndarray:
    return LeRobotDataset(str(root), image_keys=()).column(key)


@pytest.fixture
def plain(tiny: Any, episodes_root: pathlib.Path, tmp_path: pathlib.Path) -> _config.TrainConfig:
    """Without the conversion of joints, so that statistics are those of the recorded numbers."""
    data = dataclasses.replace(tiny.aloha(str(episodes_root)), adapt_to_pi=False)
    return dataclasses.replace(tiny.TINY, data=data, assets_base_dir=str(tmp_path))


def test_statistics_are_those_of_all_frames_and_chunks(plain: Any, episodes_root: pathlib.Path) -> None:
    stats, skipped = norm_stats.compute(plain)
    states = recorded(episodes_root, "observation.state")
    np.testing.assert_allclose(stats["state"].mean, states.mean(0), atol=1e-6)
    np.testing.assert_allclose(stats["state"].std, states.std(0), atol=1e-6)
    actions = recorded(episodes_root, "action").reshape(4, 12, 14)
    ahead = np.minimum(np.arange(12)[:, None] + np.arange(4), 11)
    np.testing.assert_allclose(stats["actions"].mean, actions[:, ahead].mean((0, 1, 2)), atol=1e-6)
    assert np.all(stats["actions"].q01 < stats["actions"].q99)
    assert skipped == 0


def test_a_part_of_the_frames(plain: Any) -> None:
    told: list[tuple[int, int]] = []
    some, _ = norm_stats.compute(plain, max_frames=10, progress=lambda *numbers: told.append(numbers))
    again, _ = norm_stats.compute(plain, max_frames=10)
    whole, _ = norm_stats.compute(plain)
    assert told[-1] == (10, 10)
    np.testing.assert_array_equal(some["state"].mean, again["state"].mean)
    assert not np.allclose(some["state"].mean, whole["state"].mean)


def write(
    root: pathlib.Path, gripper: float = 1.0, bad_frame: int | None = None, frames: int = 30, **changed: Any
) -> None:
    """Uniform numbers from 0 to 1, grippers scaled; `changed` has the actions of some joints, by number."""
    features = {
        "observation.state": {"dtype": "float32", "shape": (14,), "names": None},
        "action": {"dtype": "float32", "shape": (14,), "names": None},
        "observation.images.top": {"dtype": "video", "shape": (28, 28, 3), "names": None},
    }
    rng = np.random.default_rng(0)
    with LeRobotWriter(root, fps=10, features=features) as writer:
        for step in range(frames):
            values = rng.uniform(0, 1, 14)
            values[[6, 13]] *= gripper
            action = np.full(14, np.nan) if step == bad_frame else values.copy()
            for joint, column in changed.items():
                action[int(joint.removeprefix("joint"))] = column[step]
            image = np.zeros((28, 28, 3), np.uint8)
            writer.add_frame({"observation.state": values, "action": action, "observation.images.top": image}, task="t")
        writer.save_episode()


def test_command_writes_where_training_looks_and_says_what_looks_wrong(
    tiny: Any, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "cubes", gripper=90.0)
    name = f"{HERE / 'tiny_config.py'}:tiny"
    arguments = ["norm-stats", name, "--input_path", str(tmp_path / "cubes"), "--output_path", str(tmp_path / "out")]
    assert command.dispatch(arguments) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "observation.state[6] gripper runs from" in printed
    assert "expected 0 to 1" in printed
    file = tmp_path / "out" / "assets" / "tiny" / "norm_stats.json"
    assert str(file) in printed.replace(" ", "")
    config = train_command.parse(
        [
            f"--config_name={name}",
            f"--input_path={tmp_path / 'cubes'}",
            f"--stats_path={tmp_path / 'out' / 'assets'}/",
            f"--output_path={tmp_path / 'runs'}",
            "--exp_name=one",
            "--resume=True",
            "--num_train_steps=7",
            "--loop.val-fraction=0.5",
        ]
    )
    data_config = config.data.create(config.assets_dirs, config.model)
    written = normalize.load(file.parent)
    np.testing.assert_array_equal(data_config.norm_stats["state"].mean, written["state"].mean)
    assert config.checkpoint_dir == tmp_path / "runs" / "tiny" / "one"
    assert (config.resume, config.num_train_steps, config.loop.val_fraction) == (True, 7, 0.5)
    assert data_config.asset_id == "tiny"


def test_bad_frames_stop_the_pass_or_are_counted(plain: Any, tmp_path: pathlib.Path) -> None:
    write(tmp_path / "bad", gripper=1.0, bad_frame=7)
    config = dataclasses.replace(plain, data=dataclasses.replace(plain.data, repo_id=str(tmp_path / "bad")))
    with pytest.raises(BadSampleError, match="episode 0, frame 7: 'action' is not finite"):
        norm_stats.compute(config)
    _, skipped = norm_stats.compute(config, on_bad="skip")
    assert skipped > 0


@pytest.mark.parametrize("name", ["norm-stats", "train"])
def test_a_folder_that_is_no_dataset_is_named(
    name: str, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.dispatch([name, "debug", f"--input-path={tmp_path}"]) == 1
    assert f"--input-path {tmp_path} is no LeRobot dataset: it has no meta/info.json" in capsys.readouterr().err


def test_no_config_is_an_error_that_says_how_to_name_one() -> None:
    with pytest.raises(ValueError, match="--config-name"):
        norm_stats_command.main(norm_stats_command.Args())
    assert train_command.parse(["debug", "--exp-name", "x"]).exp_name == "x"


def test_data_that_are_bad_on_purpose_are_found_out(
    tiny: Any, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(1)
    outlier = rng.uniform(0, 1, 300)
    outlier[11] = 100
    columns = {"joint1": np.full(300, 0.3), "joint2": 1e-5 * rng.uniform(0, 1, 300), "joint3": outlier}
    grippers = {"joint6": np.linspace(0, 90, 300), "joint13": np.linspace(-1, 1, 300)}
    write(tmp_path / "bad", frames=300, **columns, **grippers)
    name = f"{HERE / 'tiny_config.py'}:tiny_raw"
    assert command.dispatch(["norm-stats", name, f"--input_path={tmp_path / 'bad'}", f"--output_path={tmp_path}"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    for finding in (
        "actions[1] constant at 0.3",
        "actions[2] q99 - q01 is only",
        "actions[3] quantiles and z-score disagree",
        "action[6] gripper runs from 0",
    ):
        assert f"Looks wrong: {finding}" in printed
    assert "gripper" not in printed.replace("action[6] gripper", "")
    write(tmp_path / "good", frames=300)
    assert command.dispatch(["norm-stats", name, f"--input_path={tmp_path / 'good'}", f"--output_path={tmp_path}"]) == 0
    assert "Nothing looks wrong." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("low", "high", "is_fine"),
    [(0, 1, True), (-1, 1, True), (0.02, 0.8, True), (0, 90, False), (-1, 0, False), (0, 0.04, False), (-2, 2, False)],
)
def test_ranges_of_grippers(tmp_path: pathlib.Path, low: float, high: float, is_fine: bool) -> None:
    features = {"action": {"dtype": "float32", "shape": (2,), "names": ["joint", "gripper"]}}
    with LeRobotWriter(tmp_path, fps=10, features=features) as writer:
        for value in np.linspace(low, high, 20):
            writer.add_frame({"action": np.array([50.0, value])}, task="t")
        writer.save_episode()
    found = norm_stats.gripper_suspicions(_config.DataConfig(repo_id=str(tmp_path)))
    assert [finding.dim for finding in found] == ([] if is_fine else [1])


def test_the_command_in_the_error_is_the_one_to_run(tiny: Any, tmp_path: pathlib.Path) -> None:
    write(tmp_path / "cubes")
    name = f"{HERE / 'tiny_config.py'}:tiny"
    paths = [f"--input_path={tmp_path / 'cubes'}", f"--stats_path={tmp_path / 'own' / 'assets'}"]
    config = train_command.parse([f"--config_name={name}", *paths, "--exp_name=one", "--num_workers=0"])
    with pytest.raises(ValueError, match="openpi norm-stats") as caught:
        data_loader.create_data_loader(config)
    _, *arguments = str(caught.value).split("`")[1].split()
    assert command.dispatch(arguments) == 0
    assert next(iter(data_loader.create_data_loader(config)))[1].shape == (4, 4, 14)


def test_a_dataset_of_one_s_own(plain: Any, episodes_root: pathlib.Path) -> None:
    class Own:
        def __len__(self) -> int:
            return 20

        def __getitem__(self, index: Any) -> dict[str, Any]:
            value = np.full(14, float(index))
            return {
                "observation.state": value,
                "action": np.stack([value] * 4),
                "observation.images.top": np.zeros((3, 28, 28), np.uint8),
            }

    stats, _ = norm_stats.compute(plain, dataset=Own())
    np.testing.assert_allclose(stats["state"].mean, 9.5)
    np.testing.assert_allclose(stats["actions"].std, np.arange(20).std())
