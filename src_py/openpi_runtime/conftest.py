"""A small robot and a fake clock for the tests beside the modules."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from openpi_runtime.chunk import ActionChunk
from openpi_runtime.executor import Executor, ExecutorRules, TickResult
from openpi_runtime.robots import RobotSpec, load_robot
from openpi_runtime.safety import Limits
from openpi_runtime.strategies import make_strategy

PERIOD_NS = 20_000_000

TWIN = """
name: twin
rate_hz: 50
executed_steps: 5
urdf: twin.urdf
groups:
  - {name: left, joints: [elbow], joint_states: left/joint_states, gripper: &gripper {name: gripper,
     state_joint: finger, command_joint: gripper, calibration: usual,
     calibrations: {usual: {position: {closed: 0.0, open: 0.05}, joint: {closed: -1, open: 1}}}},
     controllers: {forward: {topic: left/commands}}}
  - {name: right, joints: [elbow], joint_states: right/joint_states, gripper: *gripper,
     controllers: {forward: {topic: right/commands}}}
cameras:
  - {name: top, topic: top/image_raw, frame: top_optical_frame, role: base, required: true}
state: &layout
  - {name: left_elbow, unit: rad, group: left, joint: elbow}
  - {name: left_gripper, unit: gripper, group: left, joint: gripper}
  - {name: right_elbow, unit: rad, group: right, joint: elbow}
  - {name: right_gripper, unit: gripper, group: right, joint: gripper}
action: *layout
"""


def twin_limits() -> Limits:
    """Elbows within 1 rad at 2 rad/s; grippers within [0, 1]."""
    return Limits(
        names=("left_elbow", "left_gripper", "right_elbow", "right_gripper"),
        lower=np.array([-1.0, 0.0, -1.0, 0.0]),
        upper=np.ones(4),
        velocity=np.array([2.0, 50.0, 2.0, 50.0]),
        acceleration=np.array([200.0, np.inf, 200.0, np.inf]),
        gripper=np.array([False, True, False, True]),
        delta=np.zeros(4, dtype=bool),
    )


class Rig:
    """An executor, a clock, and arms that follow every command at once."""

    def __init__(
        self,
        spec: RobotSpec,
        strategy: str = "latest",
        rules: ExecutorRules | None = None,
        limits: Limits | None = None,
    ) -> None:
        self.spec = spec
        self.executor = Executor(spec, limits or twin_limits(), make_strategy(strategy), rules)
        self.now_ns = 100_000_000_000
        self.monotonic_ns = 5_000_000_000
        self.measured = np.zeros(4)
        self.chunk_id = 0
        self.commands: list[np.ndarray] = []

    def tick(self, ticks: int = 1, *, joints: bool = True, clock: bool = True) -> TickResult:
        """Lets time pass and ticks; the arms go where they are told."""
        for _ in range(ticks):
            self.now_ns += PERIOD_NS if clock else 0
            self.monotonic_ns += PERIOD_NS
            if joints:
                self.report_joints()
            result = self.executor.tick(self.now_ns, self.monotonic_ns)
            if result.command is not None:
                self.measured = result.command.copy()
                self.commands.append(result.command.copy())
        return result

    def report_joints(self) -> None:
        """Both arms' joint states, stamped now, the finger first."""
        for side, at in (("left", 0), ("right", 2)):
            values = [self.measured[at + 1] * 0.05, self.measured[at]]
            topic = f"{side}/joint_states"
            self.executor.on_joint_state(topic, self.now_ns, ["finger", "elbow"], values, self.now_ns)

    def chunk(self, actions: np.ndarray | float, stamp_ns: int | None = None, **changes: Any) -> ActionChunk:
        """A chunk stamped now; one number: 50 steps of it on every joint."""
        self.chunk_id += 1
        rows = np.full((50, 4), actions) if np.isscalar(actions) else np.asarray(actions, dtype=np.float64)
        fields: dict[str, Any] = {
            "chunk_id": self.chunk_id,
            "stamp_ns": self.now_ns if stamp_ns is None else stamp_ns,
            "period_ns": PERIOD_NS,
            "actions": rows,
            "action_names": self.spec.action_names,
        }
        return ActionChunk(**(fields | changes))

    def send(self, actions: np.ndarray | float, **changes: Any) -> str:
        """Sends a chunk stamped now."""
        return self.executor.on_chunk(self.chunk(actions, **changes), self.now_ns)

    def start(self, actions: np.ndarray | float = 0.0) -> TickResult:
        """Runs on a first chunk."""
        assert self.executor.run(True) == ""
        self.tick()
        self.send(actions)
        return self.tick()


@pytest.fixture(scope="session")
def twin(tmp_path_factory: pytest.TempPathFactory) -> RobotSpec:
    path: Path = tmp_path_factory.mktemp("robots") / "twin.yaml"
    path.write_text(TWIN)
    return load_robot(path)


@pytest.fixture
def rig(twin: RobotSpec) -> Rig:
    return Rig(twin)
