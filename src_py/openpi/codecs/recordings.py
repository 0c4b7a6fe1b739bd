"""Recorded episodes: read from .npz files, brought to one rate, written as training data through a codec."""

import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from openpi.codecs import signals
from openpi.codecs.codec import Codec
from openpi.training.datasets.writer import LeRobotWriter

TIME = "time"
COMMANDS = (signals.TARGET_POSE, signals.TARGET_JOINTS, signals.TARGET_GRIP)


def read(path: pathlib.Path) -> dict[str, Any]:
    """One episode: signals by name [t, ...], `time` [t] in seconds, `task` a string. Nothing in it is executed."""
    with np.load(path, allow_pickle=False) as file:
        episode = {name: file[name] for name in file.files}
    return {**episode, signals.TASK: str(episode.get(signals.TASK, ""))}


def at_rate(recording: Mapping[str, Any], fps: float) -> dict[str, Any]:
    """The episode at `fps`: states as they last were, commands as they next came.

    Raises:
        ValueError: `time` is missing, does not grow, or is not as long as the signals.
    """
    times = np.asarray(recording.get(TIME, ()), np.float64)
    if times.ndim != 1 or not len(times) or (np.diff(times) <= 0).any():
        raise ValueError(f"A recording needs '{TIME}', growing seconds [t]; there are {sorted(recording)}.")
    wanted = times[0] + np.arange(int(np.floor((times[-1] - times[0]) * fps + 1e-6)) + 1) / fps
    last = np.searchsorted(times, wanted + 1e-6, side="right") - 1
    following = np.minimum(np.searchsorted(times, wanted - 1e-6, side="left"), len(times) - 1)
    result: dict[str, Any] = {TIME: wanted}
    for name, values in recording.items():
        if name == signals.TASK:
            result[name] = values
        elif name != TIME:
            if len(values) != len(times):
                raise ValueError(f"'{name}' has {len(values)} samples, '{TIME}' {len(times)}.")
            result[name] = np.asarray(values)[following if name in COMMANDS else last]
    return result


def write(
    codec: Codec,
    recordings: Iterable[Mapping[str, Any]],
    root: pathlib.Path,
    fps: float | None = None,
    *,
    resume: bool = False,
) -> int:
    """Write a LeRobot data set, or add to one; `fps` is the codec's own where it is not given.

    Returns:
        The number of episodes in it.
    """
    fps = fps or codec.fps
    with LeRobotWriter(root, fps=fps, features=codec.features(), resume=resume) as writer:
        for recording in recordings:
            episode = at_rate(recording, fps)
            columns = codec.training_columns(episode)
            for step in range(len(episode[TIME])):
                frame = {name: values[step] for name, values in columns.items()}
                writer.add_frame(frame, task=episode[signals.TASK])
            writer.save_episode()
        return writer.num_episodes
