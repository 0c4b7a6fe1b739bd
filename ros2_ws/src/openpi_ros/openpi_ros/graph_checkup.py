"""Does a robot's graph give what its description expects? Listens for some seconds, commands nothing."""

import dataclasses
import time
from collections.abc import Iterator
from typing import Any

import rclpy
from lifecycle_msgs.srv import GetState
from openpi_msgs.msg import ExecutorState
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from sensor_msgs.msg import CompressedImage, Image

from openpi_ros import qos, velocity_guard
from openpi_ros.conversions import time_ns
from openpi_ros.outputs import command_topics
from openpi_ros.outputs.channels import SHADOW
from openpi_ros.robot_state import reading, state_topics
from openpi_runtime.findings import Finding, Heard, Level, Wanted, judge, judge_senders, judge_shadow
from openpi_runtime.modes import Mode
from openpi_runtime.robots import RobotSpec

_CAMERA_AGE_S, _JOINT_AGE_S = 0.5, 0.2  # the nodes' defaults
_MIN_CAMERA_HZ = 5.0
_DISCOVERY_S = 3.0  # at most
_NODES = ("openpi_policy_node", "chunk_executor_node")


def graph_findings(robot: RobotSpec, namespace: str, seconds: float) -> Iterator[Finding]:
    """One finding for each topic, node and controller of a robot."""
    context = rclpy.Context()
    rclpy.init(context=context)
    node = Node("openpi_doctor", context=context, namespace=namespace)
    listener = _Listener(node, context)
    try:
        streams = [_Stream(node, kind, wanted) for kind, wanted in _wanted(robot)]
        states: list[ExecutorState] = []
        node.create_subscription(ExecutorState, "chunk_executor_node/state", states.append, qos.STATE)
        listener.spin(_DISCOVERY_S, lambda: bool(states) and all(stream.is_published() for stream in streams))
        if node.count_publishers("/clock"):
            node.set_parameters([Parameter("use_sim_time", value=True)])
            listener.spin(_DISCOVERY_S, lambda: node.get_clock().now().nanoseconds > 0)
        for stream in streams:
            stream.forget()
        begun_ns = node.get_clock().now().nanoseconds
        listener.spin(seconds)
        elapsed_s = max(0.1, (node.get_clock().now().nanoseconds - begun_ns) / 1e9)  # of the graph's clock
        yield from (judge(stream.wanted, stream.heard(elapsed_s)) for stream in streams)
        yield from _commands(node, robot)
        yield from (_lifecycle(node, listener, name) for name in _NODES)
        yield _mode(states)
    finally:
        listener.close()


class _Listener:
    """Spins a node."""

    def __init__(self, node: Node, context: rclpy.Context) -> None:
        self._node, self._context = node, context
        self._executor = SingleThreadedExecutor(context=context)
        self._executor.add_node(node)

    def spin(self, seconds: float, until: Any = lambda: False) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end and not until():
            self._executor.spin_once(timeout_sec=0.05)

    def close(self) -> None:
        self._executor.shutdown()
        self._node.destroy_node()
        rclpy.try_shutdown(context=self._context)


class _Stream:
    """What comes on one topic."""

    def __init__(self, node: Node, kind: type, wanted: Wanted) -> None:
        self.wanted = wanted
        self._node = node
        self._ages_s: list[float] = []
        self._unstamped = 0
        self._names: set[str] = set()
        self._reads = kind not in (Image, CompressedImage)
        topic = node.create_subscription(kind, wanted.topic, self._on_message, qos.SENSOR).topic_name
        self.wanted = dataclasses.replace(wanted, topic=topic)

    def is_published(self) -> bool:
        """Whether it has a publisher."""
        return self._node.count_publishers(self.wanted.topic) > 0

    def forget(self) -> None:
        """Starts afresh: what came before was compared with another clock."""
        self._ages_s.clear()
        self._unstamped = 0

    def _on_message(self, message: Any) -> None:
        now_ns = self._node.get_clock().now().nanoseconds
        stamp_ns = time_ns(message.header.stamp)
        self._ages_s.append((now_ns - stamp_ns) / 1e9)
        self._unstamped += stamp_ns == 0
        if self._reads:
            self._names.update(reading(message)[0])

    def heard(self, seconds: float) -> Heard:
        """All of it."""
        publishers = self._node.get_publishers_info_by_topic(self.wanted.topic)
        return Heard(
            kinds=tuple(info.topic_type for info in publishers),
            seconds=seconds,
            arrivals=len(self._ages_s),
            ages_s=self._ages_s,
            unstamped=self._unstamped,
            names=frozenset(self._names),
        )


def _wanted(robot: RobotSpec) -> Iterator[tuple[type, Wanted]]:
    for camera in robot.cameras:
        if camera.required:
            kind: type = CompressedImage if camera.compressed else Image
            yield kind, _want(camera.topic, kind, _MIN_CAMERA_HZ, _CAMERA_AGE_S)
    for topic, kind in state_topics(robot).items():
        yield kind, _want(topic, kind, robot.rate_hz, _JOINT_AGE_S, _joints_on(robot, topic))


def _want(topic: str, kind: Any, min_hz: float, max_age_s: float, names: tuple[str, ...] = ()) -> Wanted:
    name = f"{kind.__module__.split('.')[0]}/msg/{kind.__name__}"
    return Wanted(topic=topic, kind=name, min_hz=min_hz, max_age_s=max_age_s, names=names)


def _joints_on(robot: RobotSpec, topic: str) -> tuple[str, ...]:
    """Names that a topic has to give."""
    names: list[str] = []
    for group in robot.groups:
        fingers = (group.gripper.state_joint,) if group.gripper else ()
        names += [joint for joint in (*group.joints, *group.sensed, *fingers) if group.source(joint) == topic]
    return tuple(dict.fromkeys(names))


def _commands(node: Node, robot: RobotSpec) -> Iterator[Finding]:
    for group in robot.groups:
        for _, topic in command_topics(group):
            name, shadow = node.resolve_topic_name(topic), node.resolve_topic_name(SHADOW + topic)
            findings = (
                judge_senders(name, _senders(node, name), node.count_subscribers(name)),
                judge_shadow(shadow, _senders(node, shadow)),
            )
            yield from (finding for finding in findings if finding is not None)


def _senders(node: Node, topic: str) -> list[str]:
    publishers = [info.node_name for info in node.get_publishers_info_by_topic(topic)]
    return [sender for sender in publishers if not sender.startswith(velocity_guard.NAME)]


def _lifecycle(node: Node, listener: _Listener, name: str) -> Finding:
    client = node.create_client(GetState, f"{name}/get_state")
    if not client.service_is_ready():
        return Finding(level=Level.WARN, subject=name, text="does not run", advice="Start the stack: openpi-up.")
    answer = client.call_async(GetState.Request())
    listener.spin(2.0, answer.done)
    label = answer.result().current_state.label if answer.done() else "silent"
    if label == "active":
        return Finding(level=Level.OK, subject=name, text="active")
    advice = "Its log says why; a lifecycle manager or `ros2 lifecycle set` can bring it up."
    return Finding(level=Level.ERROR, subject=name, text=f"is {label}", advice=advice)


def _mode(states: list[ExecutorState]) -> Finding:
    subject = "executor"
    if not states:
        return Finding(level=Level.WARN, subject=subject, text="reports nothing", advice="Start the stack.")
    mode, reason = Mode(states[-1].mode), states[-1].reason
    if mode in (Mode.IDLE, Mode.RUNNING):
        return Finding(level=Level.OK, subject=subject, text=mode.name)
    level = Level.ERROR if mode is Mode.ESTOP else Level.WARN
    advice = "docs/safety.md says what ends it; ~/reset releases an ESTOP and a HOLD for limits."
    return Finding(level=level, subject=subject, text=f"{mode.name}: {reason}", advice=advice)
