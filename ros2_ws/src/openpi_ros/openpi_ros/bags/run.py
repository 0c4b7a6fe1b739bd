"""A bag as frames at a fixed rate: what the robot's policy would have seen, and what was done."""

from __future__ import annotations

import collections
import dataclasses
import itertools
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64, UInt8
from rosbags.highlevel import AnyReader

from openpi_ros.bags.commands import Joint, action_values, decoders
from openpi_ros.conversions import compressed_array, image_array
from openpi_ros.robot_state import reading, state_topics
from openpi_runtime.joints import JointMerger
from openpi_runtime.robots import Camera, Column, RobotSpec
from openpi_runtime.sync import Missing

CAMERA_AGE_S, JOINT_AGE_S = 0.5, 0.2  # as in the policy node
COMMAND_GAP_S = 0.5  # a command later than this belongs to another motion


@dataclasses.dataclass(frozen=True, kw_only=True)
class Frame:
    """One moment.

    Attributes:
        state: [S] and action: [A], in runtime units, in the order of the robot's columns.
        images: camera -> uint8 [H, W, 3].
    """

    stamp_ns: int
    state: Float64[np.ndarray, " s"]
    action: Float64[np.ndarray, " a"]
    images: dict[str, UInt8[np.ndarray, "h w 3"]]


class RecordedRun:
    """A bag, cut where something is missing.

    The state at a time is what was measured last, an image the newest at or before it. The action is the first command
    at or after it; joints that were never commanded take the state one period later. Stamps are those of the headers,
    or where they are zero the time of recording.

    Attributes:
        times_ns: [n] the grid. states: [n, S], actions: [n, A], NaN where they are missing.
        episodes: stretches of frames that have everything.
        prompt: of the first chunk in the bag; empty where there is none.
    """

    def __init__(self, folder: Path, robot: RobotSpec, *, fps: float | None = None, namespace: str = "") -> None:
        """Raises ValueError where the bag lacks a camera or a joint of the robot from the beginning to the end."""
        self._folder, self._robot = folder, robot
        self._root = "/" + namespace.strip("/") + "/" if namespace.strip("/") else "/"
        self._period_ns = round(1e9 / (fps or robot.rate_hz))
        self._cameras = [camera for camera in robot.cameras if camera.required]
        self.prompt = ""
        self._stamps: dict[str, list[int]] = {camera.name: [] for camera in self._cameras}
        self._readings: list[tuple[int, str, Sequence[str], Sequence[float]]] = []
        self._commands: dict[Joint, list[tuple[int, float]]] = collections.defaultdict(list)
        with AnyReader([folder]) as reader:
            self._read(reader)
        self._check()
        self.times_ns = self._grid()
        self.states = self._states()
        self.actions = self._actions()
        self._picks = {camera.name: self._pick(camera) for camera in self._cameras}
        self.episodes = self._cut()

    def frames(self, episode: range) -> Iterator[Frame]:
        """The frames of an episode; images are read from the bag as they are needed."""
        for index, images in zip(episode, self._images(episode), strict=True):
            yield Frame(
                stamp_ns=int(self.times_ns[index]),
                state=self.states[index],
                action=self.actions[index],
                images=images,
            )

    # Reading.

    def _read(self, reader: AnyReader) -> None:
        cameras = {self._root + camera.topic: camera.name for camera in self._cameras}
        states = {self._root + topic for topic in state_topics(self._robot)}
        commands = {self._root + topic: decode for topic, decode in decoders(self._robot).items()}
        chunks = f"{self._root}openpi_policy_node/action_chunk"
        wanted = [c for c in reader.connections if c.topic in {*cameras, *states, *commands, chunks}]
        for connection, recorded_ns, data in reader.messages(wanted):
            if connection.topic in cameras:
                self._stamps[cameras[connection.topic]].append(_stamp_ns(data) or recorded_ns)
                continue
            message: Any = reader.deserialize(data, connection.msgtype)
            if connection.topic in states:
                names, values = reading(message)
                topic = connection.topic.removeprefix(self._root)
                self._readings.append((_stamp_ns(data) or recorded_ns, topic, names, values))
            elif connection.topic in commands:
                for joint, value in commands[connection.topic](message).items():
                    self._commands[joint].append((recorded_ns, value))
            else:
                self.prompt = self.prompt or message.prompt

    def _check(self) -> None:
        silent = [camera.topic for camera in self._cameras if not self._stamps[camera.name]]
        heard = {topic for _, topic, _, _ in self._readings}
        silent += [topic for topic in state_topics(self._robot) if topic not in heard]
        if silent:
            raise ValueError(f"The bag {self._folder} has no messages on {', '.join(self._root + t for t in silent)}.")

    def _grid(self) -> np.ndarray:
        starts = [stamps[0] for stamps in self._stamps.values()] + [self._readings[0][0]]
        ends = [stamps[-1] for stamps in self._stamps.values()] + [self._readings[-1][0]]
        return np.arange(max(starts), min(ends) + 1, self._period_ns, dtype=np.int64)

    # Putting together.

    def _states(self) -> np.ndarray:
        merger = JointMerger(self._robot, self._robot.state, round(JOINT_AGE_S * 1e9))
        states = np.full((len(self.times_ns), len(self._robot.state)), np.nan)
        readings = collections.deque(sorted(self._readings, key=lambda entry: entry[0]))
        for index, time_ns in enumerate(self.times_ns):
            while readings and readings[0][0] <= time_ns:
                stamp_ns, topic, names, values = readings.popleft()
                merger.update(topic, stamp_ns, names, values)
            sample = merger.sample(int(time_ns))
            if not isinstance(sample, Missing):
                states[index] = sample.values
        return states

    def _actions(self) -> np.ndarray:
        columns = [self._action(column) for column in self._robot.action]
        return np.stack(columns, axis=1) if len(self.times_ns) else np.zeros((0, len(columns)))

    def _action(self, column: Column) -> np.ndarray:
        places = {(c.group, c.joint): i for i, c in enumerate(self._robot.state)}
        place = places.get((column.group, column.joint))
        measured = np.full(len(self.times_ns), np.nan) if place is None else self.states[:, place]
        commands = self._commands.get((column.group, column.joint))
        # Where nobody commanded it, as when a robot is led by hand: where it was a period later.
        commanded = _first_at_or_after(commands, self.times_ns) if commands else np.append(measured[1:], np.nan)
        return action_values(self._robot, column, commanded, measured)

    def _pick(self, camera: Camera) -> np.ndarray:
        """Which of the camera's messages is seen at each time; -1 where it is too old."""
        stamps = np.array(self._stamps[camera.name])
        picks = np.searchsorted(stamps, self.times_ns, side="right") - 1
        ages = self.times_ns - stamps[np.maximum(picks, 0)]
        return np.where((picks >= 0) & (ages <= CAMERA_AGE_S * 1e9), picks, -1)

    def _cut(self) -> list[range]:
        complete = np.isfinite(self.states).all(axis=1) & np.isfinite(self.actions).all(axis=1)
        for picks in self._picks.values():
            complete &= picks >= 0
        edges = np.flatnonzero(np.diff(np.concatenate([[0], complete, [0]])))
        stretches = [range(begin, end) for begin, end in zip(edges[::2], edges[1::2], strict=True)]
        return [stretch for stretch in stretches if len(stretch) >= 2]

    def _images(self, episode: range) -> Iterator[dict[str, np.ndarray]]:
        """The images of each frame of an episode; only those between the oldest and the newest needed are held."""
        seen = {name: picks[episode.start : episode.stop] for name, picks in self._picks.items()}
        held: dict[str, dict[int, np.ndarray]] = {name: {} for name in seen}
        index = 0
        for name, number, picture in self._pictures({name: set(picks.tolist()) for name, picks in seen.items()}):
            held[name][number] = picture
            while index < len(episode) and all(seen[name][index] in held[name] for name in seen):
                yield {name: pictures[seen[name][index]] for name, pictures in held.items()}
                index += 1
                for name, pictures in held.items():
                    _forget(pictures, before=seen[name][min(index, len(episode) - 1)])

    def _pictures(self, wanted: dict[str, set[int]]) -> Iterator[tuple[str, int, np.ndarray]]:
        """Camera, number and pixels of the wanted images, in the bag's order."""
        topics = {self._root + camera.topic: camera for camera in self._cameras}
        numbers = {camera.name: itertools.count() for camera in self._cameras}
        with AnyReader([self._folder]) as reader:
            for connection, _, data in reader.messages([c for c in reader.connections if c.topic in topics]):
                camera = topics[connection.topic]
                number = next(numbers[camera.name])
                if number in wanted[camera.name]:
                    message = reader.deserialize(data, connection.msgtype)
                    decode = compressed_array if camera.compressed else image_array
                    yield camera.name, number, decode(message)


def _forget(pictures: dict[int, np.ndarray], *, before: int) -> None:
    for number in [number for number in pictures if number < before]:
        del pictures[number]


def _first_at_or_after(commands: list[tuple[int, float]], times_ns: np.ndarray) -> np.ndarray:
    """[n]: the first command at or after each time, NaN where it comes too late."""
    stamps, values = np.array([stamp for stamp, _ in commands]), np.array([value for _, value in commands])
    following = np.searchsorted(stamps, times_ns, side="left")
    there = following < len(stamps)
    following = np.minimum(following, len(stamps) - 1)
    soon = stamps[following] - times_ns <= COMMAND_GAP_S * 1e9
    return np.where(there & soon, values[following], np.nan)


def _stamp_ns(data: Any) -> int:
    """The header's stamp of a serialised message that begins with one."""
    seconds, nanoseconds = struct.unpack_from("<iI", data, 4)
    return int(seconds * 1_000_000_000 + nanoseconds)
