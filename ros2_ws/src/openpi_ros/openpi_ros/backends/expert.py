"""The simulation's scripted expert as a policy: it reads the true poses of the objects, which only a simulator has."""

import threading
from typing import Any

import numpy as np
from geometry_msgs.msg import PoseArray
from openpi_msgs.msg import ExecutorState
from rclpy.node import Node
from std_msgs.msg import UInt32

from openpi_ros import qos, sim_messages
from openpi_ros.backends.base import STAMP, BackendError
from openpi_ros.conversions import time_ns
from openpi_runtime.robots import RobotSpec


class ExpertBackend:
    """Plans once an episode, from where the objects lie when its first chunk is asked for.

    Each chunk is the part of the plan due from its observation's time on; past the end the last pose is kept.
    """

    uses_images = False

    def __init__(self, node: Node, params: dict[str, Any], robot: RobotSpec) -> None:
        """Raises ValueError if there is no scripted expert for the robot."""
        if robot.name != "aloha":
            raise ValueError(f"There is no scripted expert for robot {robot.name}; choose another backend.")
        from openpi_sim.aloha import tasks
        from openpi_sim.aloha.expert import SCRIPTS, Expert

        self.metadata: dict[str, Any] = {"policy": "expert"}
        # What lies on the table says which task it is.
        self._experts = {tasks.find_task(name).objects: Expert(name) for name in SCRIPTS}
        self._horizon: int = params["horizon"]
        self._period_ns = robot.period_ns
        self._lock = threading.Lock()
        self._objects: PoseArray | None = None
        self._episode = 0
        self._planned_episode = -1
        self._plan = np.empty((0, len(robot.action)))
        self._plan_start_ns = 0
        self._begun = False
        node.create_subscription(PoseArray, "sim/objects", self._on_objects, qos.STATE)
        node.create_subscription(UInt32, "sim/episode", self._on_episode, qos.LATCHED)
        node.create_subscription(ExecutorState, "chunk_executor_node/state", self._on_state, qos.STATE)

    def infer(self, obs: dict[str, Any]) -> dict[str, Any]:
        stamp_ns = obs[STAMP]
        with self._lock:
            objects, episode = self._objects, self._episode
            if episode == self._planned_episode and not self._begun:
                self._plan_start_ns = stamp_ns  # the plan waits with the robot, however long it takes until it is run
        if objects is None:
            raise BackendError("the expert needs the simulator's sim/objects, which has not come yet")
        if episode != self._planned_episode:
            self._begin(self._make_plan(objects), episode, stamp_ns)
        step = round((stamp_ns - self._plan_start_ns) / self._period_ns)
        rows = np.clip(np.arange(step, step + self._horizon), 0, len(self._plan) - 1)
        return {"actions": self._plan[rows]}

    def reset(self) -> None:
        """A new prompt does not change what the script does; a new episode is seen in the simulator's topics."""

    def close(self) -> None:
        """Nothing to release."""

    def _begin(self, plan: np.ndarray, episode: int, stamp_ns: int) -> None:
        with self._lock:
            self._plan, self._planned_episode = plan, episode
            self._plan_start_ns, self._begun = stamp_ns, False

    def _make_plan(self, objects: PoseArray) -> np.ndarray:
        poses = sim_messages.objects(objects)
        for names, expert in self._experts.items():
            if len(names) == len(poses):
                return expert.plan(dict(zip(names, poses, strict=True)))
        raise BackendError(f"no script for a scene of {len(poses)} objects")

    def _on_objects(self, message: PoseArray) -> None:
        with self._lock:
            self._objects = message

    def _on_episode(self, message: UInt32) -> None:
        with self._lock:
            self._episode = message.data
            self._objects = None  # those of the episode before

    def _on_state(self, message: ExecutorState) -> None:
        with self._lock:
            if message.mode == ExecutorState.RUNNING and time_ns(message.header.stamp) > self._plan_start_ns:
                self._begun = True
