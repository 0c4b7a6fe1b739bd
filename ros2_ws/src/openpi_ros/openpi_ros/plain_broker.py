"""The published client's way on the same topics, to compare with: one loop that observes, infers and acts in turn.

Prints one line of JSON at its end. Not a node of any stack: `openpi bench executor` starts it.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import rclpy
from rclpy.executors import SingleThreadedExecutor

from openpi_client.action_chunk_broker import ActionChunkBroker
from openpi_client.base_policy import BasePolicy
from openpi_ros.backends import Backend, make_backend
from openpi_ros.outputs import RobotOutput
from openpi_ros.parameters import load_specs
from openpi_ros.sensing import Sensing, SensingRules, policy_input
from openpi_runtime.kinematics import command_limits
from openpi_runtime.robot_kinematics import robot_kinematics
from openpi_runtime.robots import load_robot
from openpi_runtime.sync import Missing

_AGE_NS = 1_000_000_000


class _Timed(BasePolicy):
    """A backend as a policy that remembers when it was asked and how long it took."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self.seconds = 0.0

    def infer(self, obs: dict[str, Any]) -> dict[str, Any]:
        started = time.monotonic()
        result = self._backend.infer(obs)
        self.seconds = time.monotonic() - started
        return {"actions": result["actions"]}


def run(seconds: float, config: str) -> dict[str, list[float]]:
    """Runs the loop; lateness of every tick, and what a chunk costs besides its inference, in ms."""
    rclpy.init()
    node = rclpy.create_node("plain_broker")
    robot = load_robot("aloha")
    cameras = [camera for camera in robot.cameras if camera.required]
    rules = SensingRules(camera_max_age_ns=_AGE_NS, joint_max_age_ns=_AGE_NS, max_skew_ns=100_000_000)
    sensing = Sensing(node, robot, cameras, rules, lambda: None)
    limits = command_limits(robot, robot_kinematics(robot))
    output = RobotOutput(node, robot, limits, "joint_trajectory", simulated=True)
    defaults = {name: spec.default for name, spec in load_specs("openpi_policy_node").items()}
    params = defaults | {"config": config, "strategy": "open_loop"}
    policy = _Timed(make_backend("local", node, params, robot))
    broker = ActionChunkBroker(policy, robot.executed_steps)
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    _await(sensing, executor)
    late, around, last = [], [], np.zeros(len(robot.action))
    period = robot.period_ns / 1e9
    due = time.monotonic() + period
    end = due + seconds
    while time.monotonic() < end:
        while (wait := due - time.monotonic()) > 0:
            executor.spin_once(timeout_sec=wait)
        late.append((time.monotonic() - due) * 1e3)
        policy.seconds = 0.0
        begun = time.monotonic()
        now_ns = node.get_clock().now().nanoseconds
        observation = sensing.observe(now_ns, now_ns)
        if not isinstance(observation, Missing):
            last = np.asarray(broker.infer(policy_input(robot.observation, observation, "go"))["actions"], np.float64)
        output.publish(last, np.zeros_like(last), None)
        if policy.seconds:
            around.append((time.monotonic() - begun - policy.seconds) * 1e3)
        due = max(due + period, time.monotonic())  # like the published loop: what is lost is lost
    node.destroy_node()
    rclpy.try_shutdown()
    return {"late_ms": late, "around_ms": around}


def _await(sensing: Sensing, executor: SingleThreadedExecutor) -> None:
    while sensing.reference_ns() is None:
        executor.spin_once(timeout_sec=0.1)


def main(args: Sequence[str] | None = None) -> int:
    """`plain_broker SECONDS CONFIG`."""
    seconds, config = args or sys.argv[1:3]
    print(json.dumps(run(float(seconds), config)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
