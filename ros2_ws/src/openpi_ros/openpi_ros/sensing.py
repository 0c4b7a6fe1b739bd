"""A robot's cameras and joint states as observations: the ROS side of `openpi_runtime.sync` and `.joints`."""

import collections
import dataclasses
import time
from collections.abc import Callable, Sequence

import numpy as np
from rclpy.node import Node
from sensor_msgs.msg import CompressedImage, Image

from openpi_ros import qos
from openpi_ros.backends.base import MEASURED, STAMP
from openpi_ros.conversions import compressed_array, image_array, time_ns
from openpi_ros.robot_state import StateMessage, reading, state_topics
from openpi_runtime.joints import JointMerger
from openpi_runtime.observations import ObservationLayout
from openpi_runtime.robots import Camera, RobotSpec
from openpi_runtime.sync import Gap, Missing, Observation, ObservationSync, Stream

STATE = "state"
_RATE_WINDOW_S = 2.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class SensingRules:
    """How old inputs may be, and how far apart; in nanoseconds of the node's clock."""

    camera_max_age_ns: int
    joint_max_age_ns: int
    max_skew_ns: int


class Rate:
    """Messages per second of wall time over the last two seconds."""

    def __init__(self) -> None:
        self._arrivals: collections.deque[float] = collections.deque()

    def tick(self) -> None:
        self._arrivals.append(time.monotonic())
        self._forget()

    def hz(self) -> float:
        self._forget()
        return len(self._arrivals) / _RATE_WINDOW_S

    def _forget(self) -> None:
        oldest = time.monotonic() - _RATE_WINDOW_S
        while self._arrivals and self._arrivals[0] < oldest:
            self._arrivals.popleft()


class Sensing:
    """Subscribes to cameras and what measures the state; `on_new` is called after each message that brought news."""

    def __init__(
        self,
        node: Node,
        robot: RobotSpec,
        cameras: Sequence[Camera],
        rules: SensingRules,
        on_new: Callable[[], None],
    ) -> None:
        self._node = node
        self._rules = rules
        self._on_new = on_new
        streams = [Stream(name=camera.name, max_age_ns=rules.camera_max_age_ns) for camera in cameras]
        streams.append(Stream(name=STATE, max_age_ns=rules.joint_max_age_ns))
        self._sync = ObservationSync(streams)
        self._joints = JointMerger(robot, robot.state, rules.joint_max_age_ns)
        self._newest_ns: dict[str, int | None] = {stream.name: None for stream in streams}
        self.rates: dict[str, Rate] = {}
        self.topics: dict[str, str] = {}
        for camera in cameras:
            self._subscribe_camera(camera)
        for topic, kind in state_topics(robot).items():
            self._subscribe_state(topic, kind)

    def reference_ns(self) -> int | None:
        """The time the next observation is for; None while a stream is still to come.

        It is the newest time for which every stream has news, so that all values belong together; but a slow stream
        holds it back by no more than the allowed skew.
        """
        stamps = [stamp for stamp in self._newest_ns.values() if stamp is not None]
        if len(stamps) < len(self._newest_ns):
            return None
        return max(min(stamps), max(stamps) - self._rules.max_skew_ns)

    def observe(self, reference_ns: int, now_ns: int) -> Observation | Missing:
        """The values at the reference time, or what is missing or too old now."""
        missing = self.missing(now_ns)
        return missing if missing is not None else self._sync.sample(reference_ns)

    def missing(self, now_ns: int) -> Missing | None:
        """What is missing or too old now: cameras, then joints by name. None while all is there."""
        cameras = self._sync.sample(now_ns)
        joints = self._joints.sample(now_ns)
        gaps = [gap for gap in _gaps(cameras) if gap.name != STATE] + list(_gaps(joints))
        return Missing(tuple(gaps)) if gaps else None

    def ages_s(self, now_ns: int) -> dict[str, float | None]:
        """Age of each stream's newest value; None where nothing came yet."""
        return self._sync.ages_s(now_ns)

    def clear(self) -> None:
        """Forgets everything, as after a jump of the clock."""
        self._sync.clear()
        self._joints.clear()
        self._newest_ns = dict.fromkeys(self._newest_ns)

    def _subscribe_camera(self, camera: Camera) -> None:
        kind: type = CompressedImage if camera.compressed else Image
        self._subscribe(kind, camera.name, camera.topic, lambda message: self._on_image(camera.name, message))

    def _subscribe_state(self, topic: str, kind: type) -> None:
        self._subscribe(kind, topic, topic, lambda message: self._on_state(topic, message))

    def _subscribe(self, kind: type, name: str, topic: str, callback: Callable) -> None:
        rate = self.rates[name] = Rate()

        def on_message(message: object) -> None:
            rate.tick()
            callback(message)

        subscription = self._node.create_subscription(kind, topic, on_message, qos.SENSOR)
        self.topics[name] = subscription.topic_name

    def _on_image(self, name: str, message: Image | CompressedImage) -> None:
        self._add(name, time_ns(message.header.stamp), message)

    def _on_state(self, topic: str, message: StateMessage) -> None:
        now_ns = self._now_ns()
        self._joints.update(topic, time_ns(message.header.stamp), *reading(message), now_ns)
        sample = self._joints.sample(now_ns)
        if not isinstance(sample, Missing):
            self._add(STATE, sample.stamp_ns, sample.values)

    def _add(self, stream: str, stamp_ns: int, value: object) -> None:
        if self._sync.add(stream, stamp_ns, value, self._now_ns()):
            self._newest_ns[stream] = stamp_ns
            self._on_new()

    def _now_ns(self) -> int:
        return self._node.get_clock().now().nanoseconds


def _gaps(sample: object) -> tuple[Gap, ...]:
    return sample.gaps if isinstance(sample, Missing) else ()


def policy_input(layout: ObservationLayout, observation: Observation, prompt: str) -> dict:
    """An observation as a backend takes it (`backends.base.Backend.infer`), no pixel copied.

    Raises:
        ValueError: an image has an encoding or a size that cannot be read; names the camera.
    """
    pictures = {name: _picture(name, value) for name, value in observation.values.items() if name != STATE}
    state: np.ndarray = observation.values[STATE]
    return layout.observation(state, pictures, prompt) | {STAMP: observation.stamp_ns, MEASURED: state}


def _picture(camera: str, message: Image | CompressedImage) -> np.ndarray:
    try:
        return compressed_array(message) if isinstance(message, CompressedImage) else image_array(message)
    except ValueError as error:
        raise ValueError(f"Camera '{camera}': {error}") from error
