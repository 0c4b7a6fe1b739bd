"""Velocity controllers go on with the last velocity: nothing may move on after the executor stops, hangs or dies."""

import os
import signal
import time
from pathlib import Path

import pytest
from std_msgs.msg import Float64MultiArray

from openpi_ros import qos
from openpi_ros.commander import PolicyCommander
from openpi_runtime import paths
from openpi_runtime.robots import load_robot

TOPIC = "forward_velocity_controller/commands"


class Speeds:
    """What the controller was told, and when."""

    def __init__(self, commander: PolicyCommander) -> None:
        self.told: list[tuple[float, list[float]]] = []
        commander.node.create_subscription(Float64MultiArray, TOPIC, self._on_message, qos.COMMAND)

    def _on_message(self, message: Float64MultiArray) -> None:
        self.told.append((time.monotonic(), list(message.data)))

    @property
    def moves(self) -> bool:
        return bool(self.told) and any(self.told[-1][1])

    def settled(self, since: float) -> bool:
        """Whether the robot was told to stand after a time, and nothing else from then on for half a second."""
        return not self.moves and self.told[-1][0] > since and time.monotonic() - self.told[-1][0] > 0.5


@pytest.fixture
def robot(tmp_path: Path) -> Path:
    """DROID with targets as actions and a velocity controller."""
    text = (paths.config_dir() / "robots/droid.yaml").read_text().replace(", kind: velocity", "")
    text = text.replace("controller: joint_trajectory", "controller: forward")
    text = text.replace("forward_position_controller/commands}", f"{TOPIC}, interface: velocity}}")
    path = tmp_path / "by_velocity.yaml"
    path.write_text(text)
    assert load_robot(path).groups[0].controllers["forward"] == {"topic": TOPIC, "interface": "velocity"}
    return path


def test_nothing_moves_on(start, play, robot):
    play(load_robot(robot))
    stack = start("openpi_bringup.up", "robot", f"robot:={robot}", "policy:=hold")
    stack.wait_for_text("Ready: backend hold", 60)
    with PolicyCommander() as commander:
        speeds = Speeds(commander)
        commander.bring_up()

        def run() -> None:
            commander.start()
            commander.wait_for(lambda: speeds.moves, 30.0, "a motion")

        run()
        at = time.monotonic()
        commander.stop()
        commander.wait_for(lambda: speeds.settled(at), 10.0, "standstill after a stop")
        run()
        executor = stack.nodes()["chunk_executor_node"]
        at = time.monotonic()
        os.kill(executor, signal.SIGSTOP)
        commander.wait_for(lambda: speeds.settled(at), 10.0, "standstill while the executor hangs")
        os.kill(executor, signal.SIGCONT)
        commander.wait_for(lambda: speeds.moves, 30.0, "a motion")
        at = time.monotonic()
        os.kill(executor, signal.SIGKILL)
        commander.wait_for(lambda: speeds.settled(at), 10.0, "standstill after the executor's death")
