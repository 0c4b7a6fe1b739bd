"""A robot's episode in a bag: its state, commands and pictures, found by the robot's description."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rosbags.highlevel import AnyReader
from rosbags.interfaces import Connection
from rosbags.typesys import Stores, get_typestore

from openpi_ros.bag_commands import command_sources
from openpi_ros.conversions import compressed_array, image_array, time_ns
from openpi_ros.robot_state import reading
from openpi_runtime.demonstrations import Stamps, Stream
from openpi_runtime.joints import JointMerger
from openpi_runtime.robots import Camera, RobotSpec

_STATE_MAX_AGE_NS = 200_000_000  # of one arm's joints beside the other's
_CHUNKS = "openpi_policy_node/action_chunk"
_OTHER_CLOCK_NS = 1_000_000_000  # no message takes that long: its stamp is of another clock than its arrival


class Bag:
    """Reads one bag of one robot, also below a namespace.

    Raises:
        FileNotFoundError: there is no bag.
        ValueError: it holds topics of several robots, or nothing of this one.
    """

    def __init__(self, path: Path, robot: RobotSpec, namespace: str | None = None) -> None:
        """namespace: of the robot's topics; None finds it."""
        if not path.exists():
            raise FileNotFoundError(f"There is no bag {path}.")
        self._robot = robot
        self._reader = AnyReader([path], default_typestore=get_typestore(Stores.ROS2_JAZZY))
        self._reader.open()
        self._prefix = self._find_prefix(path) if namespace is None else f"/{namespace.strip('/')}/".replace("//", "/")

    def __enter__(self) -> Bag:
        return self

    def __exit__(self, *_: object) -> None:
        self._reader.close()

    def state(self) -> Stream:
        """The merged state at every time at which it changed."""
        merger = JointMerger(self._robot, self._robot.state, _STATE_MAX_AGE_NS)
        samples: dict[int, np.ndarray] = {}
        for topic, _, message in self._messages(*merger.topics):
            stamp_ns = time_ns(message.header.stamp)
            merger.update(topic, stamp_ns, *reading(message))
            if (sample := merger.at(stamp_ns)) is not None:
                samples[sample.stamp_ns] = sample.values
        stamps = np.array(sorted(samples), np.int64)
        values = np.array([samples[stamp] for stamp in stamps]).reshape(-1, len(self._robot.state))
        return Stream(name="the state", stamps_ns=stamps, values=values)

    def commands(self) -> list[Stream]:
        """Every command recorded, in rad and runtime units; of a group's controllers the one that was commanded."""
        streams = []
        stamped = self._clock()
        for source in command_sources(self._robot, self._has):
            pairs = [(at_ns, source.values(message)) for _, at_ns, message in self._messages(source.topic)]
            stamps, values = stamped([at_ns for at_ns, _ in pairs]), [value for _, value in pairs]
            width = len(values[0])
            streams.append(
                Stream(
                    name=self._prefix + source.topic,
                    stamps_ns=stamps,
                    values=np.array(values, np.float64),
                    columns=source.columns[:width],
                )
            )
        return streams

    def cameras(self) -> dict[str, Stamps]:
        """When each camera took its pictures [ns]: those that the robot needs, and further ones that were recorded."""
        used = [camera for camera in self._robot.cameras if camera.required or self._has(camera.topic)]
        return {camera.name: np.array([stamp for stamp, _ in self._raw(camera)], np.int64) for camera in used}

    def pictures(self, chosen: Mapping[str, np.ndarray]) -> Iterator[dict[str, np.ndarray]]:
        """Step by step, the picture [H, W, 3] of each camera whose number is `chosen[camera][step]`."""
        cameras = [self._decoded(self._camera(name), numbers) for name, numbers in chosen.items()]
        for pictures in zip(*cameras, strict=True):
            yield dict(zip(chosen, pictures, strict=True))

    def prompt(self) -> str:
        """What the policy was told last; empty where none was recorded."""
        return next((message.prompt for _, _, message in reversed(list(self._messages(_CHUNKS)))), "")

    def _clock(self) -> Callable[[Sequence[int]], np.ndarray]:
        """Makes times of arrival times of the robot's clock, on which stamps are.

        The two differ where a simulated robot was recorded without simulated time; then the joint states, which have
        both, tell how one goes with the other.
        """
        topics = (*self._robot.joint_topics, *self._robot.pose_topics)
        both = [(at_ns, time_ns(message.header.stamp)) for _, at_ns, message in self._messages(*topics)]
        arrivals, stamps = np.array(both, np.int64).reshape(-1, 2).T
        if not len(both) or np.median(np.abs(arrivals - stamps)) < _OTHER_CLOCK_NS:
            return lambda times: np.array(times, np.int64)
        return lambda times: np.interp(times, arrivals, stamps).astype(np.int64)

    def _camera(self, name: str) -> Camera:
        return next(camera for camera in self._robot.cameras if camera.name == name)

    def _decoded(self, camera: Camera, numbers: np.ndarray) -> Iterator[np.ndarray]:
        """One camera's pictures, decoded when they are needed; `numbers` never falls."""
        raw = enumerate(self._raw(camera))
        number, picture = -1, np.empty(0)
        connection = self._connections(camera.topic)[0]
        for wanted in numbers:
            if number < wanted:
                number, (_, data) = next(entry for entry in raw if entry[0] == wanted)
                message: Any = self._reader.deserialize(data, connection.msgtype)
                picture = compressed_array(message) if camera.compressed else image_array(message)
            yield picture

    def _raw(self, camera: Camera) -> Iterator[tuple[int, bytes]]:
        """Stamp and bytes of a camera's messages, without those whose stamp does not grow."""
        newest = -1
        for _, _, data in self._reader.messages(self._connections(camera.topic)):
            seconds, nanoseconds = struct.unpack_from("<iI", data, 4)  # the header is first in both kinds of image
            stamp = seconds * 1_000_000_000 + nanoseconds
            if stamp > newest:
                newest = stamp
                yield stamp, data

    def _messages(self, *topics: str) -> Iterator[tuple[str, int, Any]]:
        """Relative topic, time of arrival [ns] and message."""
        connections = [connection for topic in topics for connection in self._connections(topic)]
        for connection, at_ns, data in self._reader.messages(connections) if connections else ():
            yield (
                connection.topic.removeprefix(self._prefix),
                at_ns,
                self._reader.deserialize(data, connection.msgtype),
            )

    def _has(self, topic: str) -> bool:
        return any(connection.msgcount for connection in self._connections(topic))

    def _connections(self, topic: str) -> list[Connection]:
        return [connection for connection in self._reader.connections if connection.topic == self._prefix + topic]

    def _find_prefix(self, path: Path) -> str:
        """What stands before the topics of the robot's state."""
        wanted = (*self._robot.joint_topics, *self._robot.pose_topics)
        there = {c.topic for c in self._reader.connections}
        found = {topic.removesuffix(wanted[0]) for topic in there if topic.endswith(f"/{wanted[0]}")}
        found = {prefix for prefix in found if all(prefix + topic in there for topic in wanted)}
        if len(found) != 1:
            self._reader.close()
            if found:
                several = ", ".join(sorted(found))
                raise ValueError(f"The bag {path} has joint states below {several}; say by --namespace which is meant.")
            raise ValueError(
                f"The bag {path} has no topic {' and '.join(wanted)}, which is wanted for robot {self._robot.name}; "
                "name robot and --namespace."
            )
        return found.pop()
