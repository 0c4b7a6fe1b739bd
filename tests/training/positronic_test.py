"""The calls of Positronic's guide, from a codec's dataset to a checkpoint that serves."""

import pathlib

import numpy as np

from openpi import codecs
from openpi.cli import main as command
from openpi.codecs import signals
from openpi.policies import policy_config
from openpi.training import config as _config
from openpi.training import metrics
from openpi.training.datasets import LeRobotWriter

CONFIG = f"{pathlib.Path(__file__).parent / 'tiny_config.py'}:tiny_positronic"


def record(root: pathlib.Path, codec: codecs.Codec, length: int = 10) -> None:
    """One episode along a straight line, in the columns that the codec trains on."""
    example = codec.example()
    episode = {key: np.stack([value] * length) for key, value in example.items() if not isinstance(value, str)}
    target = episode[signals.EE_POSE].copy()
    target[:, :3] += np.linspace(0, 0.1, length)[:, None]
    episode |= {signals.TARGET_POSE: target, signals.TARGET_GRIP: np.linspace(0, 1, length)[:, None]}
    columns = codec.training_columns({**episode, signals.TASK: example[signals.TASK]})
    features = {
        name: {"dtype": "video" if column.dtype == np.uint8 else "float32", "shape": column.shape[1:]}
        for name, column in columns.items()
    }
    with LeRobotWriter(root, fps=codec.fps, features=features) as writer:
        for step in range(length):
            writer.add_frame({name: column[step] for name, column in columns.items()}, task="pick up the cube")
        writer.save_episode()


def test_statistics_training_and_inference(tmp_path: pathlib.Path) -> None:
    codec = codecs.get("ee")
    record(tmp_path / "data", codec)
    data = [f"--config_name={CONFIG}", f"--input_path={tmp_path / 'data'}"]
    assert command.dispatch(["norm-stats", *data, f"--output_path={tmp_path / 'openpi_assets'}"]) == 0
    paths = [f"--stats_path={tmp_path / 'openpi_assets' / 'assets'}/", f"--output_path={tmp_path / 'checkpoints'}"]
    assert command.dispatch(["train", *data, *paths, "--exp_name=experiment_v1", "--num_train_steps=2"]) == 0
    folder = tmp_path / "checkpoints" / "tiny_positronic" / "experiment_v1"
    assert [row["step"] for row in metrics.read_metrics(folder) if "loss" in row] == [0, 1]
    policy = policy_config.create_trained_policy(_config.get_config(CONFIG), folder / "1")
    assert policy.infer(codec.encode(codec.example()))["actions"].shape == (4, 8)
