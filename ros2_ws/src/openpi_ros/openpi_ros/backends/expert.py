"""The simulation's scripted expert as a policy: it reads the true poses of the objects, which only a simulator has."""

import importlib
import threading
from typing import Any

from builtin_interfaces.msg import Time
from geometry_msgs.msg import PoseArray
from openpi_msgs.msg import ExecutorState
from rclpy.node import Node

from openpi_ros import qos, sim_messages
from openpi_ros.backends.base import MEASURED, STAMP, BackendError
from openpi_ros.conversions import time_ns
from openpi_runtime.robots import RobotSpec
from openpi_sim.script import Scene, Script

SCRIPTS = {
    "aloha": "openpi_sim.aloha.expert:AlohaScript",
    "droid": "openpi_sim.franka.expert:FrankaScript",
    "libero": "openpi_sim.libero.expert:LiberoScript",
}


class ExpertBackend:
    """Plans once an episode, from where the objects lie when its first chunk is asked for.

    Each chunk is the part of the plan due from its observation's time on; past the end the robot stays.
    """

    uses_images = False

    def __init__(self, node: Node, params: dict[str, Any], robot: RobotSpec) -> None:
        """Raises ValueError if there is no scripted expert for the robot."""
        self.metadata: dict[str, Any] = {"policy": "expert"}
        self._script = _make_script(robot)
        self._horizon: int = params["horizon"]
        self._period_ns = robot.period_ns
        self._lock = threading.Lock()
        self._objects: PoseArray | None = None
        self._episode_ns: int | None = None
        self._planned: tuple[int | None, str] | None = None  # begin of the episode, and prompt
        self._plan_start_ns = 0
        self._begun = False
        node.create_subscription(PoseArray, "sim/objects", self._on_objects, qos.STATE)
        node.create_subscription(Time, "sim/episode_start", self._on_episode, qos.LATCHED)
        node.create_subscription(ExecutorState, "chunk_executor_node/state", self._on_state, qos.STATE)

    def infer(self, obs: dict[str, Any]) -> dict[str, Any]:
        stamp_ns = obs[STAMP]
        with self._lock:
            objects, start_ns = self._objects, self._episode_ns
            wanted = (start_ns, obs["prompt"] if self._script.by_prompt else "")
            if wanted == self._planned and not self._begun:
                self._plan_start_ns = stamp_ns  # the plan waits with the robot, however long it takes until it is run
        if objects is None or start_ns is None:
            raise BackendError("the expert needs the simulator's sim/objects, which has not come yet")
        if min(stamp_ns, time_ns(objects.header.stamp)) <= start_ns:  # topics overtake each other
            raise BackendError("the episode has only just begun")
        scene = Scene(objects=sim_messages.objects(objects), prompt=obs["prompt"], state=obs[MEASURED])
        if wanted != self._planned:
            self._begin(scene, wanted, stamp_ns)
        step = round((stamp_ns - self._plan_start_ns) / self._period_ns)
        return {"actions": self._script.chunk(step, self._horizon, scene)}

    def reset(self) -> None:
        """A new prompt is seen in the observation, a new episode in the simulator's topics."""

    def close(self) -> None:
        """Nothing to release."""

    def _begin(self, scene: Scene, wanted: tuple[int | None, str], stamp_ns: int) -> None:
        try:
            self._script.begin(scene)
        except ValueError as error:
            raise BackendError(f"the expert has no plan: {error}") from error
        with self._lock:
            self._planned, self._plan_start_ns, self._begun = wanted, stamp_ns, False

    def _on_objects(self, message: PoseArray) -> None:
        with self._lock:
            self._objects = message

    def _on_episode(self, message: Time) -> None:
        with self._lock:
            self._episode_ns = time_ns(message)

    def _on_state(self, message: ExecutorState) -> None:
        with self._lock:
            if message.mode == ExecutorState.RUNNING and time_ns(message.header.stamp) > self._plan_start_ns:
                self._begun = True


def _make_script(robot: RobotSpec) -> Script:
    if robot.name not in SCRIPTS:
        raise ValueError(f"There is no scripted expert for robot {robot.name}; choose another backend.")
    module, _, name = SCRIPTS[robot.name].partition(":")
    return getattr(importlib.import_module(module), name)(robot)
