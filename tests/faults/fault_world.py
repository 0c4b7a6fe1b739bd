"""Real processes on real DDS, a robot that is told to break, and a recorder that trusts nobody.

The recorder takes the limits from the robot's URDF by itself and looks only at the controllers' topics.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import signal
import subprocess
import sys
import threading
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: source setup/env.sh")
pytest.importorskip("openpi_msgs.msg", reason="needs the built workspace: make setup")

import rclpy
import xacro
from diagnostic_msgs.msg import DiagnosticArray
from openpi_msgs.msg import ActionChunk as ActionChunkMsg
from openpi_msgs.msg import ExecutorState
from rclpy.executors import SingleThreadedExecutor
from rosgraph_msgs.msg import Clock
from std_srvs.srv import SetBool, Trigger

from openpi_ros import qos
from openpi_ros.conversions import chunk_message, to_time
from openpi_ros.mock_robot import MockRobot
from openpi_runtime.chunk import ActionChunk
from openpi_runtime.robots import Group, RobotSpec, load_robot

Report = Callable[[str, float], None]
"""What the fixture `report` gives: takes what was measured, and the seconds."""

PERIOD_S = 0.02
CHUNK_S = 50 * PERIOD_S
SLACK_S = 0.5  # on top of what the table allows: the machine that runs the tests does other things too
START_TIMEOUT_S = 90.0
HOME = np.array([0.0, -0.96, 1.16, 0.0, -0.3, 0.0, 0.5] * 2)
POLICY, EXECUTOR = "openpi_policy_node", "chunk_executor_node"
ERROR = b"\x02"
IDLE, RUNNING, HOLD, ESTOP = ExecutorState.IDLE, ExecutorState.RUNNING, ExecutorState.HOLD, ExecutorState.ESTOP


class World:
    """The test's side of the graph: robot, policy, clock and recorder in one node, spun in a thread."""

    def __init__(self, folder: Path, *, simulated_time: bool = False, image_size: tuple[int, int] | None = None):
        self.domain = random.randint(1, 100)
        self.folder = folder
        self.simulated = simulated_time
        self._context = rclpy.Context()
        rclpy.init(context=self._context, domain_id=self.domain)
        self.node = rclpy.create_node("recorder", context=self._context)
        self.robot = load_robot("aloha")
        self._limits = urdf_limits(self.robot)
        self.mock = MockRobot(self.node, self.robot, HOME, image_size)
        self.states: list[tuple[float, ExecutorState]] = []
        self.diagnostics: list[tuple[float, str, bytes, str]] = []
        self.chunks: list[tuple[float, ActionChunkMsg]] = []
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.clock_runs, self.clock_ns, self.joints_run, self.stamped = True, 50_000_000_000, True, True
        self.chunk_id = 0
        self.moved_by_hand: list[float] = []
        self._chunk_publisher = self.node.create_publisher(ActionChunkMsg, "stub/action_chunk", qos.CHUNK)
        self._clock_publisher = self.node.create_publisher(Clock, "/clock", qos.STATE)
        node = self.node
        node.create_subscription(ExecutorState, "chunk_executor_node/state", self._on_state, qos.STATE)
        node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 50)
        node.create_subscription(ActionChunkMsg, "openpi_policy_node/action_chunk", self._on_chunk, qos.CHUNK)
        self._run = node.create_client(SetBool, "chunk_executor_node/run")
        self._estop = node.create_client(Trigger, "chunk_executor_node/estop")
        self._reset = node.create_client(Trigger, "chunk_executor_node/reset")
        node.create_timer(PERIOD_S, self._period)
        node.create_timer(0.1, lambda: self.mock.publish_images(self.now_ns()))
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(node)
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._thread.start()

    # Processes.

    def start(self, module: str, **parameters: Any) -> None:
        """Starts a node's process, and waits for nothing."""
        settings = {"use_sim_time": self.simulated} | parameters
        arguments = [part for name, value in settings.items() for part in ("-p", f"{name}:={_yaml(value)}")]
        log = (self.folder / f"{module}.log").open("ab")
        self.processes[module] = subprocess.Popen(
            [sys.executable, "-m", f"openpi_ros.{module}", "--ros-args", *arguments],
            env=os.environ | {"ROS_DOMAIN_ID": str(self.domain)},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        log.close()

    def start_executor(self, **parameters: Any) -> None:
        """Starts the executor's process and waits until it reports."""
        seen = len(self.states)
        settings = {"chunk_topic": "stub/action_chunk", "controller": "joint_trajectory"} | parameters
        self.start("chunk_executor_node", **settings)
        self.wait(lambda: len(self.states) > seen, START_TIMEOUT_S, "the executor reports")

    def kill(self, module: str) -> float:
        """SIGKILL; returns when."""
        process = self.processes.pop(module)
        process.send_signal(signal.SIGKILL)
        at = time.monotonic()
        process.wait(10)
        return at

    def close(self) -> None:
        """Ends every process and the node."""
        for process in self.processes.values():
            process.send_signal(signal.SIGCONT)
            process.terminate()
        for process in self.processes.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
            process.kill()
        self._executor.shutdown(2.0)
        self._thread.join(5.0)
        self.node.destroy_node()
        rclpy.try_shutdown(context=self._context)

    # What the test does.

    def now_ns(self) -> int:
        """The time nodes go by."""
        return self.clock_ns if self.simulated else int(self.node.get_clock().now().nanoseconds)

    def chunk(self, actions: np.ndarray, **changes: Any) -> ActionChunkMsg:
        """A chunk as a policy would send it now."""
        self.chunk_id += 1
        fields = {
            "chunk_id": self.chunk_id,
            "stamp_ns": self.now_ns(),
            "period_ns": self.robot.period_ns,
            "action_names": self.robot.action_names,
        }
        return chunk_message(ActionChunk(actions=actions, **(fields | changes)))

    def send(self, message: ActionChunkMsg) -> float:
        """Publishes a chunk; returns when."""
        self._chunk_publisher.publish(message)
        return time.monotonic()

    def sway(self, **changes: Any) -> float:
        """Sends a chunk that moves the waists slowly from where they are."""
        actions = np.tile(self.mock.position, (50, 1))
        direction = -np.sign(self.mock.position[0]) or 1.0
        actions[:, [0, 7]] += direction * 0.004 * np.arange(50)[:, None]
        return self.send(self.chunk(actions, **changes))

    def run(self, enabled: bool = True) -> Any:
        """Calls ~/run."""
        return self.call(self._run, SetBool.Request(data=enabled))

    def estop(self) -> Any:
        """Calls ~/estop."""
        return self.call(self._estop, Trigger.Request())

    def reset(self) -> Any:
        """Calls ~/reset."""
        return self.call(self._reset, Trigger.Request())

    def call(self, client: Any, request: Any) -> Any:
        """Calls a service and returns its answer."""
        assert client.wait_for_service(timeout_sec=START_TIMEOUT_S), f"{client.srv_name} is not there"
        future = client.call_async(request)
        self.wait(future.done, 10.0, f"{client.srv_name} answers")
        return future.result()

    def get_going(self) -> None:
        """IDLE, then RUNNING on a fresh chunk, whatever was before."""
        self.mock.silent.clear()
        self.mock.missing.clear()
        self.clock_runs = self.stamped = True
        self.reset()
        self.run(False)
        self.wait_mode(IDLE)
        self.place(HOME)
        time.sleep(0.1)
        self.run(True)
        self.sway()
        self.wait_mode(RUNNING)
        time.sleep(0.2)

    def follow_policy(self) -> None:
        """RUNNING on the chunks of the policy node, with one that came just now."""
        self.run(True)
        self.wait_mode(RUNNING, timeout_s=30.0)
        seen = len(self.chunks)
        self.wait(lambda: len(self.chunks) > seen, 10.0, "a chunk comes")

    def place(self, position: np.ndarray) -> None:
        """Moves the robot by hand, while nothing commands it."""
        self.mock.position[:] = position
        self.moved_by_hand.append(time.monotonic())

    # What the recorder saw.

    @property
    def state(self) -> ExecutorState:
        """The newest state."""
        return self.states[-1][1]

    def wait(self, holds: Callable[[], bool], timeout_s: float, what: str) -> float:
        """Waits until something holds; returns when."""
        end = time.monotonic() + timeout_s
        while time.monotonic() < end:
            if holds():
                return time.monotonic()
            time.sleep(0.002)
        last = self.states[-1][1] if self.states else None
        raise AssertionError(f"Not within {timeout_s} s: {what}. Last state: {last}")

    def wait_mode(self, mode: int, reason: str = "", timeout_s: float = 5.0) -> float:
        """Waits for a mode (and part of a reason) in a state that is not seen yet; returns when it came."""
        begin = len(self.states)

        def seen() -> bool:
            return any(s.mode == mode and reason in s.reason for _, s in self.states[begin:])

        self.wait(seen, timeout_s, f"mode {mode} {reason!r}")
        return next(at for at, s in self.states[begin:] if s.mode == mode and reason in s.reason)

    def commands(self, group: str = "left", since: float = 0.0, until: float = np.inf) -> np.ndarray:
        """Commands to a group in a span of time, [n, 7]."""
        return np.array([r.values for r in list(self.mock.received) if r.group == group and since <= r.at_s < until])

    def stands(self, since: float, until: float | None = None) -> bool:
        """Whether all commands since then were the same (or there were none)."""
        end = until or np.inf
        for group in ("left", "right"):
            values = [r.values for r in list(self.mock.received) if r.group == group and since <= r.at_s <= end]
            if values and np.ptp(np.array(values), axis=0).max() > 0:
                return False
        return True

    def offences(self) -> list[str]:
        """Every command that was outside the URDF's limits or faster than they allow from one to the next."""
        times = [0.0, *self.moved_by_hand, np.inf]
        spans = list(itertools.pairwise(times))
        return [text for group in self.robot.groups for span in spans for text in self._offences(group, *span)]

    def _offences(self, group: Group, since: float, until: float) -> list[str]:
        lower, upper, velocity = self._limits[group.name]
        values = self.commands(group.name, since, until)
        if not len(values):
            return []
        joints, gripper = values[:, :-1], values[:, -1]
        wrong = ~np.isfinite(values).all(axis=1) | (joints < lower).any(axis=1) | (joints > upper).any(axis=1)
        wrong |= (gripper < 0) | (gripper > 1)
        fast = (np.abs(np.diff(joints, axis=0)) > velocity * PERIOD_S + 1e-6).any(axis=1)
        found = [f"{group.name} command {i}: {values[i]}" for i in np.flatnonzero(wrong)]
        return found + [f"{group.name} step {i}: {np.diff(joints, axis=0)[i]}" for i in np.flatnonzero(fast)]

    def diagnosis(self, node: str, level: bytes, since: float) -> list[tuple[float, str]]:
        """When and how a node reported that level since a time."""
        return [
            (at, text)
            for at, name, lev, text in list(self.diagnostics)
            if name == node and lev == level and at >= since
        ]

    # Callbacks, on the spinning thread.

    def _spin(self) -> None:
        with contextlib.suppress(Exception):
            self._executor.spin()

    def _period(self) -> None:
        if self.simulated and self.clock_runs:
            self.clock_ns += self.robot.period_ns
        if self.joints_run and (self.clock_runs or not self.simulated):
            self.mock.publish_joints(self.now_ns() if self.stamped else 0)
        if self.simulated and self.clock_runs:
            self._clock_publisher.publish(Clock(clock=to_time(self.clock_ns)))

    def _on_state(self, message: ExecutorState) -> None:
        self.states.append((time.monotonic(), message))

    def _on_chunk(self, message: ActionChunkMsg) -> None:
        self.chunks.append((time.monotonic(), message))

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        at = time.monotonic()
        self.diagnostics += [(at, status.name, status.level, status.message) for status in message.status]


def urdf_limits(robot: RobotSpec) -> dict[str, np.ndarray]:
    """Lower, upper and velocity limits of each group's joints as they stand in the URDF, [3, joints]."""
    root = ElementTree.fromstring(xacro.process_file(str(robot.urdf_path)).toxml())
    limits = {joint.get("name"): joint.find("limit") for joint in root.iter("joint")}

    def row(group: Group, key: str) -> list[float]:
        return [float(limits[group.urdf_prefix + joint].get(key)) for joint in group.joints]  # type: ignore[union-attr]

    return {group.name: np.array([row(group, key) for key in ("lower", "upper", "velocity")]) for group in robot.groups}


def _yaml(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


@contextlib.contextmanager
def judged(folder: Path, **options: Any) -> Iterator[World]:
    """A world, and at its end the check that the recorder saw no command outside the limits."""
    made = World(folder, **options)
    try:
        yield made
        assert made.offences() == []
    finally:
        made.close()
