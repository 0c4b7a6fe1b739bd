"""A policy with a delay, an executor and the simulated arms in one loop of simulated time: no ROS, no threads."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Protocol

import numpy as np
from jaxtyping import Bool, Float

from openpi_runtime.chunk import ActionChunk
from openpi_runtime.executor import Executor, ExecutorRules, TickResult
from openpi_runtime.kinematics import command_limits
from openpi_runtime.requests import Progress, RequestPlanner
from openpi_runtime.robot_kinematics import robot_kinematics
from openpi_runtime.robots import RobotSpec, load_robot
from openpi_runtime.safety import ROUNDING, SafetyRules
from openpi_runtime.strategies import make_strategy
from openpi_sim.aloha.world import CONTROL_PERIOD_NS, AlohaWorld

# A request every step would hold nearly the whole chunk to the one before, its roughness included.
_EXECUTION_HORIZON = 40
# The filter clamps and counts, and never latches: what a strategy would do is to be seen to its end. The ramp of the
# first motion is as fast as the arms: a slow one would lie between what a strategy wants and what is measured.
_LENIENT = ExecutorRules(safety=SafetyRules(tolerance=10.0, strikes=1_000_000, max_step=100.0), ramp_speed=10.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PolicyInput:
    """What a policy may see: measured state [14], last command [14], objects' poses, real-time-chunking fields."""

    state: Float[np.ndarray, 14]
    command: Float[np.ndarray, 14]
    objects: dict[str, Float[np.ndarray, 7]]
    fields: dict[str, object]


class ChunkPolicy(Protocol):
    """Anything that gives chunks."""

    def infer(self, observation: PolicyInput) -> tuple[Float[np.ndarray, "h 14"], int]:
        """Actions, and how many leading ones were taken over from the previous chunk."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trace:
    """One episode, a row per tick on which a step was executed.

    Attributes:
        wanted: the strategy's actions before ramp and filter, [n, 14]. commands: what was published, [n, 14].
        boundary: whether the step comes from another chunk than the one before, [n].
        inside: steps between neighbouring actions within the chunks as predicted, [m, 14].
        starved: ticks. cut: ticks whose action was further from the last command than the arms are fast.
        success: whether the task was solved at any time.
    """

    wanted: Float[np.ndarray, "n 14"]
    commands: Float[np.ndarray, "n 14"]
    boundary: np.ndarray
    inside: Float[np.ndarray, "m 14"]
    starved: int
    cut: int
    success: bool


class DelayedLoop:
    """Runs episodes. Chunks arrive `delay_ns` after their observation; requests follow one another at once."""

    def __init__(self, strategy: str, delay_ns: int, *, interval_steps: int = 1) -> None:
        self._strategy = strategy
        self._delay_ns = delay_ns
        self._interval_steps = interval_steps
        self._robot = load_robot("aloha")
        self._limits = command_limits(self._robot, robot_kinematics(self._robot))

    def run(self, world: AlohaWorld, policy: ChunkPolicy, ticks: int) -> Trace:
        """Runs `ticks` control steps from where the world is, fewer where the task is solved before."""
        episode = _Episode(self, world, policy)
        for tick in range(1, ticks + 1):
            episode.tick(tick * CONTROL_PERIOD_NS)
            if episode.solved:
                break
        return episode.trace()

    def make_executor(self) -> Executor:
        """A fresh executor, running."""
        executor = Executor(self._robot, self._limits, make_strategy(self._strategy), _LENIENT)
        executor.run(True)
        return executor

    def make_planner(self) -> RequestPlanner:
        """A fresh planner at full chunk rate."""
        return RequestPlanner(
            self._strategy,
            self._robot.period_ns,
            interval_steps=self._interval_steps,
            execution_horizon=_EXECUTION_HORIZON,
        )

    def too_far(self, motion: Float[np.ndarray, "n 14"]) -> Bool[np.ndarray, " n"]:
        """Which motions are more than the arms can do in one period."""
        reach = self._limits.velocity * self._robot.period_ns / 1e9 + ROUNDING
        return (np.abs(motion) > reach)[:, ~self._limits.gripper].any(axis=1)

    @property
    def robot(self) -> RobotSpec:
        """ALOHA."""
        return self._robot

    @property
    def delay_ns(self) -> int:
        """From an observation to its chunk."""
        return self._delay_ns


class _Episode:
    def __init__(self, loop: DelayedLoop, world: AlohaWorld, policy: ChunkPolicy) -> None:
        self._loop, self._world, self._policy = loop, world, policy
        self._executor, self._planner = loop.make_executor(), loop.make_planner()
        self._command = world.state
        self._pending: ActionChunk | None = None
        self._inside: list[np.ndarray] = []
        self._ticks: list[TickResult] = []
        self._chunks = 0
        self.solved = False

    def tick(self, now_ns: int) -> None:
        self._report_joints(now_ns)
        self._deliver(now_ns)
        if self._planner.due(now_ns):
            self._pending = self._ask(now_ns)
            self._deliver(now_ns)
        result = self._executor.tick(now_ns, now_ns)
        if result.command is not None:
            self._command = result.command
            self._world.command(result.command)
        self._planner.on_progress(
            Progress(
                mode=result.mode,
                chunk_id=result.chunk_id,
                next_step=result.next_step,
                steps_left=result.steps_left,
            )
        )
        self._world.step()
        self.solved |= self._world.success
        self._ticks.append(result)

    def trace(self) -> Trace:
        moved = [i for i, tick in enumerate(self._ticks) if tick.wanted is not None and tick.command is not None]
        ids = [self._ticks[i].chunk_id for i in moved]
        wanted, commands = (np.array([getattr(self._ticks[i], name) for i in moved]) for name in ("wanted", "command"))
        return Trace(
            wanted=wanted,
            commands=commands,
            boundary=np.array([False, *(a != b for a, b in itertools.pairwise(ids))]),
            inside=np.concatenate(self._inside),
            starved=self._ticks[-1].starved_ticks,
            cut=int(self._loop.too_far(wanted[1:] - commands[:-1]).sum()),
            success=self.solved,
        )

    def _report_joints(self, now_ns: int) -> None:
        state = self._world.state
        for group in self._loop.robot.groups:
            values = state[self._loop.robot.group_columns(group)]
            assert group.gripper is not None
            finger = group.gripper.calibration.position.at(float(values[-1]))
            names = [*group.joints, group.gripper.state_joint]
            self._executor.on_joint_state(group.joint_states, now_ns, names, [*values[:-1], finger], now_ns)

    def _ask(self, now_ns: int) -> ActionChunk:
        fields = self._planner.ask(now_ns)
        seen = PolicyInput(state=self._world.state, command=self._command, objects=self._world.objects, fields=fields)
        actions, frozen = self._policy.infer(seen)
        self._inside.append(np.diff(actions, axis=0))
        self._chunks += 1
        return ActionChunk(
            chunk_id=self._chunks,
            stamp_ns=now_ns,
            period_ns=self._loop.robot.period_ns,
            actions=np.asarray(actions, dtype=np.float64),
            action_names=self._loop.robot.action_names,
            frozen_steps=frozen,
        )

    def _deliver(self, now_ns: int) -> None:
        chunk = self._pending
        if chunk is not None and now_ns - chunk.stamp_ns >= self._loop.delay_ns:
            self._pending = None
            self._executor.on_chunk(chunk, now_ns)
            self._planner.answered(chunk, now_ns, (now_ns - chunk.stamp_ns) / 1e9)


class NoisyExpert:
    """The scripted expert's plan from where the robot is, each chunk off by a constant of its own."""

    def __init__(self, plan: Float[np.ndarray, "n 14"], noise: float, rng: np.random.Generator) -> None:
        """noise: standard deviation in rad of each joint's offset; grippers have none."""
        self._plan = plan
        self._noise = np.where(np.arange(14) % 7 == 6, 0.0, noise)
        self._rng = rng
        self._at = -1

    def infer(self, observation: PolicyInput, horizon: int = 50, look_ahead: int = 40) -> tuple[np.ndarray, int]:
        """The plan after the step nearest to the last command; never back."""
        ahead = self._plan[max(self._at, 0) : max(self._at, 0) + look_ahead]
        if self._at >= 0:
            self._at += int(np.argmin(np.abs(ahead - observation.command).sum(axis=1)))
        rows = np.minimum(self._at + 1 + np.arange(horizon), len(self._plan) - 1)
        self._at = max(self._at, 0)
        return self._plan[rows] + self._rng.normal(0.0, self._noise), 0
