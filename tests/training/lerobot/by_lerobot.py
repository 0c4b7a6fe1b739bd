"""Has the `lerobot` package write a tiny dataset, or read one. Runs in a Python that has lerobot, with nothing of ours:

python -I by_lerobot.py write ROOT            # v2.1 with lerobot 0.3.x, v3.0 from 0.4 on
python -I by_lerobot.py read ROOT OUT.npz     # every sample, stacked: what its reader makes of the dataset
"""

import pathlib
import sys
from typing import Any

import numpy as np

FPS = 10
LENGTHS = (4, 3, 2)
TASKS = ("push the cube", "lift the cube", "push the cube")
CAMERAS = ("observation.images.top", "observation.images.wrist")
FEATURES: dict[str, dict[str, Any]] = {
    "observation.state": {"dtype": "float32", "shape": (3,), "names": ["x", "y", "gripper"]},
    "action": {"dtype": "float32", "shape": (2,), "names": ["x", "y"]},
    "next.done": {"dtype": "bool", "shape": (1,), "names": None},
    CAMERAS[0]: {"dtype": "video", "shape": (64, 64, 3), "names": ["height", "width", "channels"]},
    CAMERAS[1]: {"dtype": "image", "shape": (16, 16, 3), "names": ["height", "width", "channels"]},
}
# Offsets in frames that a sample is read with, outside of its episode at both ends.
DELTAS = {"action": (0, 1, 2), "observation.state": (-1, 0), CAMERAS[0]: (-1, 0)}


def frame(episode: int, step: int) -> dict[str, Any]:
    """A frame that is like no other: the cameras show a slope that turns and brightens."""
    rows, columns = np.mgrid[0:64, 0:64]
    slope = rows * episode // 2 + columns * (1 + step) // 2 + 10 * step
    top = np.stack([slope, 255 - slope, np.full_like(slope, 40 * episode + 20 * step)], -1).astype(np.uint8)
    return {
        "observation.state": np.array([episode, step, 0.5], np.float32),
        "action": np.array([step / 10, -episode / 10], np.float32),
        "next.done": np.array([step + 1 == LENGTHS[episode]]),
        CAMERAS[0]: top,
        CAMERAS[1]: np.ascontiguousarray(top[::4, ::4]),
    }


def write(root: pathlib.Path) -> None:
    """The dataset of `frame`s, one episode for each of LENGTHS."""
    from lerobot.datasets.lerobot_dataset import CODEBASE_VERSION, LeRobotDataset

    dataset = LeRobotDataset.create("local/tiny", fps=FPS, features=FEATURES, root=root, robot_type="toy")
    for episode, length in enumerate(LENGTHS):
        for step in range(length):
            if CODEBASE_VERSION.startswith("v2"):
                dataset.add_frame(frame(episode, step), task=TASKS[episode])
            else:
                dataset.add_frame(frame(episode, step) | {"task": TASKS[episode]})
        dataset.save_episode()
    if hasattr(dataset, "finalize"):
        dataset.finalize()


def read(root: pathlib.Path) -> dict[str, np.ndarray]:
    """Every sample of lerobot's reader, stacked; images as uint8 [N, ..., 3, H, W]. Keys of DELTAS are windows."""
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    deltas = {key: [step / FPS for step in steps] for key, steps in DELTAS.items()}
    dataset = LeRobotDataset("local/tiny", root=root, delta_timestamps=deltas)
    samples = [dataset[index] for index in range(len(dataset))]
    return {key: np.stack([_as_numpy(key, sample[key]) for sample in samples]) for key in samples[0]}


def _as_numpy(key: str, value: Any) -> np.ndarray:
    array = np.asarray(value)
    return np.round(array * 255).astype(np.uint8) if key in CAMERAS else array


if __name__ == "__main__":
    command, folder, *rest = sys.argv[1:]
    if command == "write":
        write(pathlib.Path(folder))
    else:
        np.savez_compressed(rest[0], **read(pathlib.Path(folder)))
