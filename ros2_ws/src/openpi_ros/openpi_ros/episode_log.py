"""What a run of a stack did, from its topics: for the demo's status line and report."""

import dataclasses
import threading

import numpy as np
from openpi_msgs.msg import ActionChunk, ExecutorState
from rclpy.node import Node
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import Bool, Float32
from trajectory_msgs.msg import JointTrajectory

from openpi_ros import qos
from openpi_ros.conversions import image_array, time_ns
from openpi_runtime.joints import JointMerger, JointSample
from openpi_runtime.modes import Mode
from openpi_runtime.robots import Group, RobotSpec

_VIDEO_STRIDE = 2  # every other image, every other pixel of it
_NO_LIMIT_NS = 10**18
# A log may be late, but must not miss anything: four seconds of ticks wait for it.
_EVERY_TICK = QoSProfile(depth=200)


@dataclasses.dataclass
class Episode:
    """One episode. Times are seconds of the node clock.

    Attributes:
        jitter_ms: of every report of the executor while RUNNING.
        commands: group -> (time, [joints]) of every command published while the executor was RUNNING.
        measured: (time, [dim]) merged joint states.
        chunks: time of the observation of each chunk.
        frames: uint8 [h, w, 3] of the first camera.
    """

    seed: int
    success: bool = False
    jitter_ms: list[float] = dataclasses.field(default_factory=list)
    commands: dict[str, list[tuple[float, np.ndarray]]] = dataclasses.field(default_factory=dict)
    measured: list[tuple[float, np.ndarray]] = dataclasses.field(default_factory=list)
    chunks: list[float] = dataclasses.field(default_factory=list)
    inference_ms: list[float] = dataclasses.field(default_factory=list)
    pipeline_ms: list[float] = dataclasses.field(default_factory=list)
    frames: list[np.ndarray] = dataclasses.field(default_factory=list)

    @property
    def control_hz(self) -> float:
        """Commands a second of the node clock; 0 with fewer than two."""
        times = [time for time, _ in next(iter(self.commands.values()), [])]
        return (len(times) - 1) / (times[-1] - times[0]) if len(times) > 1 and times[-1] > times[0] else 0.0


class EpisodeLog:
    """Subscribes to a robot's topics and keeps the present episode. Callbacks come from the node's executor."""

    def __init__(self, node: Node, robot: RobotSpec, *, video: bool) -> None:
        self._robot = robot
        self._lock = threading.Lock()
        self._joints = JointMerger(robot, robot.state, _NO_LIMIT_NS)
        self._images = 0
        self.episode: Episode | None = None
        self.state: ExecutorState | None = None
        self.reward = 0.0
        self.success = False
        self.real_time_factor = 0.0
        node.create_subscription(ExecutorState, "chunk_executor_node/state", self._on_state, _EVERY_TICK)
        node.create_subscription(ActionChunk, "openpi_policy_node/action_chunk", self._on_chunk, qos.CHUNK)
        node.create_subscription(Bool, "sim/success", self._on_success, qos.STATE)
        node.create_subscription(Float32, "sim/reward", self._on_reward, qos.STATE)
        node.create_subscription(Float32, "sim/real_time_factor", self._on_factor, qos.STATE)
        for group in robot.groups:
            self._follow(node, group)
        if video:
            node.create_subscription(Image, robot.cameras[0].topic, self._on_image, qos.SENSOR)

    def begin(self, seed: int) -> Episode:
        """Starts the log of an episode."""
        with self._lock:
            self.episode = Episode(seed=seed)
            self.success, self.reward = False, 0.0
        return self.episode

    def end(self) -> None:
        """Ends it; what comes now belongs to no episode."""
        with self._lock:
            self.episode = None

    def _follow(self, node: Node, group: Group) -> None:
        def on_joints(message: JointState) -> None:
            stamp_ns = time_ns(message.header.stamp)
            self._joints.update(group.joint_states, stamp_ns, message.name, message.position)
            sample = self._joints.sample(stamp_ns)
            with self._lock:
                if self.episode is not None and isinstance(sample, JointSample):
                    self.episode.measured.append((stamp_ns * 1e-9, sample.values))

        def on_command(message: JointTrajectory) -> None:
            with self._lock:
                if self.episode is not None and self.state is not None and self.state.mode == Mode.RUNNING:
                    now = time_ns(self.state.header.stamp) * 1e-9
                    row = np.array(message.points[0].positions)
                    self.episode.commands.setdefault(group.name, []).append((now, row))

        node.create_subscription(JointState, group.joint_states, on_joints, qos.SENSOR)
        if "joint_trajectory" in group.controllers:
            topic = group.controllers["joint_trajectory"]["topic"]
            node.create_subscription(JointTrajectory, topic, on_command, _EVERY_TICK)

    def _on_state(self, message: ExecutorState) -> None:
        with self._lock:
            self.state = message
            if self.episode is not None and message.mode == Mode.RUNNING:
                self.episode.jitter_ms.append(abs(message.tick_jitter_ms))

    def _on_chunk(self, message: ActionChunk) -> None:
        with self._lock:
            if self.episode is not None:
                self.episode.chunks.append(time_ns(message.header.stamp) * 1e-9)
                self.episode.inference_ms.append(message.inference_ms)
                self.episode.pipeline_ms.append(message.pipeline_ms)

    def _on_success(self, message: Bool) -> None:
        self.success = message.data

    def _on_reward(self, message: Float32) -> None:
        self.reward = message.data

    def _on_factor(self, message: Float32) -> None:
        self.real_time_factor = message.data

    def _on_image(self, message: Image) -> None:
        self._images += 1
        with self._lock:
            if self.episode is not None and self._images % _VIDEO_STRIDE == 0:
                self.episode.frames.append(image_array(message)[::_VIDEO_STRIDE, ::_VIDEO_STRIDE].copy())
