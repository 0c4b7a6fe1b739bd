"""From chunks to commands: one decision per control tick, a pure function of what came in and of the time."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float64

from openpi_runtime.chunk import ActionChunk, Step
from openpi_runtime.clock import ClockState, ClockWatch
from openpi_runtime.conventions import ActionConvention
from openpi_runtime.gate import ChunkGate
from openpi_runtime.joints import JointMerger
from openpi_runtime.latency import LatencyTracker
from openpi_runtime.modes import Event, Mode, ModeMachine, State
from openpi_runtime.ramp import Ramp
from openpi_runtime.relative import relative_mask, to_absolute
from openpi_runtime.robots import RobotSpec
from openpi_runtime.safety import Limits, Outcome, SafetyFilter, SafetyRules, Vector
from openpi_runtime.strategies import Strategy
from openpi_runtime.sync import Missing

NO_CHUNK = "no chunk"
FIRST_CHUNK = "no chunk yet"
# Of a period: a tick that comes later finds its target further away than the robot is fast, through no fault of the
# chunk. After the longer gap the robot has come to rest.
_LATE, _REST = 1.5, 5.5
SLOWED = "joint velocities slowed together to their limits"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExecutorRules:
    """Times and speeds of an executor.

    Attributes:
        joint_timeout_s: joint states older than this lead to HOLD.
        clock_stop_s: wall time without progress of the clock that leads to HOLD.
        clock_jump_s: a larger step of the clock leads to HOLD.
        chunk_silence_s: without a chunk for so long, `health` is an error.
        first_chunk_s: so long after `run` it is none that the first chunk has not come.
        ramp_speed: rad/s (or m/s) of the first motion. ramp_gripper_speed: runtime units per second.
        anchor_tolerance: rad; a ramp starts at the held command while the robot is this close to it, else at the
            measured position.
    """

    joint_timeout_s: float = 0.2
    clock_stop_s: float = 0.5
    clock_jump_s: float = 0.5
    chunk_silence_s: float = 0.8
    first_chunk_s: float = 10.0
    ramp_speed: float = 0.5
    ramp_gripper_speed: float = 2.0
    anchor_tolerance: float = 0.1
    safety: SafetyRules = dataclasses.field(default_factory=SafetyRules)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TickResult:
    """What one tick decided.

    Attributes:
        command: [dim] in runtime units, to be published; None: publish nothing.
        velocity: [dim] per second, of the command against the one before.
        wanted: the target the strategy's action asks for, before ramp and filter; None where no step was due.
        measured: [dim] where the robot was when a step was followed; None while the robot is to stand.
        chunk_id, next_step, steps_left: of the chunk the last executed step came from.
    """

    command: Vector | None
    velocity: Vector | None
    wanted: Vector | None
    measured: Vector | None
    mode: Mode
    reason: str
    chunk_id: int
    next_step: int
    steps_left: int
    starved_ticks: int
    clamped_ticks: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Health:
    """For diagnostics: is all well, and if not, why."""

    error: bool
    warning: bool
    message: str


class Executor:
    """Chunk gate, strategy, ramp, safety filter and modes in one. Not thread-safe: the caller locks.

    All times are nanoseconds of the node's clock; monotonic_ns is the machine's monotonic clock.
    """

    def __init__(
        self,
        spec: RobotSpec,
        limits: Limits,
        strategy: Strategy,
        rules: ExecutorRules | None = None,
        end_effectors: Callable[[Vector], dict[str, Float64[np.ndarray, 3]]] | None = None,
    ) -> None:
        self.spec = spec
        self.limits = limits
        self.rules = rules or ExecutorRules()
        self._strategy = strategy
        self._machine = ModeMachine()
        self._clock = ClockWatch(_ns(self.rules.clock_stop_s), _ns(self.rules.clock_jump_s))
        self._gate = ChunkGate(spec, _ns(self.rules.clock_jump_s))
        self._joints = JointMerger(spec, spec.action, _ns(self.rules.joint_timeout_s))
        period_s = spec.period_ns / 1e9
        self._period_s = period_s
        self._reach = limits.velocity * period_s
        self._filter = SafetyFilter(limits, period_s, self.rules.safety, end_effectors)
        speed = np.where(limits.gripper, self.rules.ramp_gripper_speed, self.rules.ramp_speed)
        # A velocity starts at the measured position by itself; a ramp would only fall behind it.
        speed = np.where([column.kind == "velocity" for column in spec.action], spec.velocity_step / period_s, speed)
        # A delta is no position to be far from: nothing to approach.
        speed = np.full_like(speed, np.inf) if limits.by_deltas else speed
        self._ramp = Ramp(speed, limits.velocity, period_s)
        self._latency = LatencyTracker(warm_up=0)
        self._relative = relative_mask(spec.action)
        self._convention = ActionConvention(spec)
        self._held: Vector | None = None
        self._step: Step | None = None
        self._chunk_came_ns: int | None = None
        self._followed_ns = 0
        self._waited_since_ns: int | None = None
        self._started = False
        self.starved_ticks = 0
        self.clamped_ticks = 0
        self.last_clamp = ""

    @property
    def mode(self) -> Mode:
        """The mode now."""
        return self._machine.mode

    @property
    def reason(self) -> str:
        """Why the mode is what it is; empty while all is well."""
        return self._machine.reason

    @property
    def refused(self) -> dict[str, int]:
        """Chunks refused so far, by kind of reason."""
        return dict(self._gate.refused)

    @property
    def joint_topics(self) -> tuple[str, ...]:
        """The joint-state topics to subscribe."""
        return self._joints.topics

    def run(self, enabled: bool) -> str:
        """Starts or stops. Empty where it was done, else why not."""
        event = Event.RUN if enabled else Event.STOP
        refusal = self._machine.refusal(event)
        if not refusal and self._machine.handle(event, FIRST_CHUNK if enabled else ""):
            self._strategy.clear()  # a chunk from before is of a scene that may be gone
            self._forget_motion()
            self._started = False
            self._waited_since_ns = None
        return refusal

    def estop(self) -> None:
        """Stops at once, until reset."""
        self._machine.handle(Event.ESTOP, "emergency stop")
        self._strategy.clear()
        self._forget_motion()

    def reset(self) -> str:
        """Leaves ESTOP or a latched HOLD for IDLE. Empty where it was done, else why not."""
        refusal = self._machine.refusal(Event.RESET)
        if not refusal:
            self._machine.handle(Event.RESET)
            self._strategy.clear()
            self._forget_motion()
        return refusal

    def on_joint_state(
        self, topic: str, stamp_ns: int, names: Sequence[str], positions: Sequence[float], now_ns: int
    ) -> None:
        """Takes one joint-state message; joints are found by name."""
        self._joints.update(topic, stamp_ns, names, positions, now_ns)

    def on_chunk(self, chunk: ActionChunk, now_ns: int) -> str:
        """Takes a chunk. Empty where it was accepted, else why it was refused."""
        problem = self._gate.admit(chunk, now_ns)
        if problem:
            return problem
        absolute = self._absolute(chunk)
        if absolute is None:
            self.refuse("base")
            return "no base: its relative columns belong to the robot's state at its stamp, which is not known here"
        self._chunk_came_ns = now_ns
        self._latency.add((now_ns - chunk.stamp_ns) / 1e9)
        self._strategy.add(absolute, now_ns)
        return ""

    def refuse(self, kind: str) -> None:
        """Counts a chunk that was refused outside the gate."""
        self._gate.refuse(kind)

    def tick(self, now_ns: int, monotonic_ns: int) -> TickResult:
        """Decides what to command now. To be called once per control period."""
        if self._time_passed(now_ns, monotonic_ns):
            return self._decide(now_ns)
        return self._stand()

    def watch(self, now_ns: int, monotonic_ns: int) -> TickResult:
        """Looks at the clock between ticks, so that one that stands is noticed. Commands no motion."""
        self._time_passed(now_ns, monotonic_ns)
        return self._stand()

    def health(self, now_ns: int) -> Health:
        """What to report in diagnostics."""
        if self.mode in (Mode.ESTOP, Mode.HOLD):
            waiting = self._waits(now_ns)
            return Health(error=not waiting, warning=waiting, message=f"{self.mode.name}: {self.reason}")
        if self.mode is Mode.RUNNING and self._silence_s(now_ns) > self.rules.chunk_silence_s:
            return Health(error=True, warning=False, message=f"no chunk for {self._silence_s(now_ns):.1f} s")
        return Health(error=False, warning=False, message=self.mode.name)

    def figures(self, now_ns: int) -> dict[str, Any]:
        """For diagnostics: counters, ages and latencies."""
        silence = self._silence_s(now_ns)
        figures: dict[str, Any] = {
            "mode": self.mode.name,
            "reason": self.reason,
            "starved_ticks": self.starved_ticks,
            "clamped_ticks": self.clamped_ticks,
            "last_clamp": self.last_clamp,
            "chunk_age_s": "never" if np.isinf(silence) else silence,
            "chunk_latency_p50_s": self._latency.quantile(0.5),
            "chunk_latency_p95_s": self._latency.quantile(0.95),
        }
        figures |= {f"age {topic} s": age for topic, age in self._joints.ages_s(now_ns).items()}
        return figures | {f"refused: {kind}": count for kind, count in self.refused.items()}

    def _time_passed(self, now_ns: int, monotonic_ns: int) -> bool:
        clock = self._clock.look(now_ns, monotonic_ns)
        if clock is ClockState.STOPPED:
            self._lose_time(f"the clock has stood still for more than {self.rules.clock_stop_s:g} s")
        if clock is ClockState.JUMPED:
            self._lose_time(f"the clock jumped by {self._clock.jump_s:+.3f} s")
        return clock is ClockState.ADVANCED

    def _waits(self, now_ns: int) -> bool:
        """Whether it is normal that there is no chunk: at a start, and shortly after one has run out."""
        if self.reason == FIRST_CHUNK:
            since = now_ns if self._waited_since_ns is None else self._waited_since_ns
            return now_ns - since < _ns(self.rules.first_chunk_s)
        return self.reason == NO_CHUNK and self._silence_s(now_ns) < self.rules.chunk_silence_s

    def _silence_s(self, now_ns: int) -> float:
        return np.inf if self._chunk_came_ns is None else (now_ns - self._chunk_came_ns) / 1e9

    def _decide(self, now_ns: int) -> TickResult:
        state = self._machine.state
        if state in (State.IDLE, State.ESTOP):
            return self._stand()
        if state is State.LATCHED:
            return self._hold()
        measured = self._joints.sample(now_ns)
        if isinstance(measured, Missing):
            return self._wait(f"joint states: {measured.steady}")
        place = np.where(self.limits.delta, 0.0, measured.values)
        if problem := self._filter.misplaced(place):
            return self._wait(f"joint states: {problem}")
        step = self._strategy.step(now_ns)
        if step is None:
            return self._starve(now_ns)
        return self._follow(step, place, now_ns)

    def _starve(self, now_ns: int) -> TickResult:
        self.starved_ticks += self._started
        if self._waited_since_ns is None:
            self._waited_since_ns = now_ns
        return self._wait(NO_CHUNK if self._started else FIRST_CHUNK)

    def _begin_ramp(self, measured: Vector, now_ns: int) -> None:
        """Where the next step would be none: after a HOLD, and after ticks that were missed."""
        gap = (now_ns - self._followed_ns) / self.spec.period_ns
        self._followed_ns = now_ns
        if self._machine.handle(Event.DATA_FRESH):
            self._ramp.start()
            self._held = self._anchor(measured)
        elif gap > _REST:
            self._ramp.start()
            self._filter.rest()
        elif gap > _LATE:
            self._ramp.catch_up()

    def _follow(self, step: Step, measured: Vector, now_ns: int) -> TickResult:
        self._begin_ramp(measured, now_ns)
        last = self.limits.clip(measured) if self._held is None else self._held
        wanted = self._convention.target(step.action, measured)
        target = self._convention.slowed(wanted, measured, last, self._reach)
        verdict = self._filter.check(self._ramp.step(last, target), last)
        if verdict.outcome is Outcome.HOLD:
            self._machine.handle(Event.LIMIT, verdict.reason)
            return self._hold(wanted)
        clamps = [SLOWED] * (target is not wanted) + [verdict.reason] * (verdict.outcome is Outcome.CLAMP)
        if clamps:
            self.clamped_ticks += 1
            self.last_clamp = "; ".join(clamps)
        self._held = np.where(self.limits.delta, 0.0, verdict.command)
        self._step, self._started = step, True
        return self._result(verdict.command, (verdict.command - last) / self._period_s, wanted, measured)

    def _anchor(self, measured: Vector) -> Vector:
        """Where a ramp starts: the held command while the robot is near it, else where the robot is."""
        if self._held is None:
            return self.limits.clip(measured)
        near = np.abs(self._held - measured) <= self.rules.anchor_tolerance
        if (near | self.limits.gripper).all():
            return self._held
        # A gripper that holds something never reaches its command: keep squeezing.
        return self.limits.clip(np.where(self.limits.gripper, self._held, measured))

    def _wait(self, reason: str) -> TickResult:
        self._machine.handle(Event.DATA_LOST, reason)
        return self._hold()

    def _hold(self, wanted: Vector | None = None) -> TickResult:
        self._filter.rest()
        velocity = None if self._held is None else np.zeros_like(self._held)
        return self._result(self._held, velocity, wanted)

    def _stand(self) -> TickResult:
        """Commands nothing; but a robot that is moved by deltas is told to stand, unless it is RUNNING."""
        silent = self.mode is Mode.RUNNING or not self.limits.by_deltas
        return self._result(None, None, None) if silent else self._hold()

    def _lose_time(self, reason: str) -> None:
        """Nothing stamped so far means anything any more."""
        self._machine.handle(Event.DATA_LOST, reason)
        self._strategy.clear()
        self._gate.forget_order()
        self._joints.clear()
        self._chunk_came_ns = self._waited_since_ns = None
        self._forget_motion()

    def _forget_motion(self) -> None:
        if not self.limits.by_deltas:  # to stand, with the gripper as it is, is right wherever the robot is
            self._held = None
        self._filter.rest()

    def _absolute(self, chunk: ActionChunk) -> ActionChunk | None:
        """Relative columns anchored at the state of the chunk's observation.

        None where that is not known: offsets from any other state, or from zero, are another motion.
        """
        if not self._relative.any():
            return chunk
        base = self._joints.at(chunk.stamp_ns)
        if base is None:
            return None
        return dataclasses.replace(chunk, actions=to_absolute(chunk.actions, base.values, self._relative))

    def _result(
        self,
        command: Vector | None,
        velocity: Vector | None,
        wanted: Vector | None,
        measured: Vector | None = None,
    ) -> TickResult:
        step = self._step
        return TickResult(
            command=command,
            velocity=velocity,
            wanted=wanted,
            measured=measured,
            mode=self.mode,
            reason=self.reason,
            chunk_id=step.chunk_id if step else 0,
            next_step=step.index + 1 if step else 0,
            steps_left=step.left if step else 0,
            starved_ticks=self.starved_ticks,
            clamped_ticks=self.clamped_ticks,
        )


def _ns(seconds: float) -> int:
    return round(seconds * 1e9)
