"""An executor whose inputs are out to make it move wrongly, judged from outside by what it commands."""

import dataclasses

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from openpi_runtime.conftest import PERIOD_NS, Rig, twin_limits
from openpi_runtime.executor import FIRST_CHUNK, NO_CHUNK, TickResult
from openpi_runtime.modes import Mode
from openpi_runtime.robots import RobotSpec
from openpi_runtime.strategies import STRATEGIES

PERIOD_S = PERIOD_NS / 1e9
# From rest to the limit of 2 rad/s in three ticks.
LIMITS = dataclasses.replace(twin_limits(), acceleration=np.array([40.0, np.inf, 40.0, np.inf]))
ROUNDING = 1e-9
SIDES = ("left", "right")


class Witness:
    """Notes every tick of a rig, and knows the limits by itself."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.ticks: list[TickResult] = []
        self._before: list[tuple[int, np.ndarray]] = []  # each tick's time, and where the robot was

    def tick(self, ticks: int = 1, **how: bool) -> None:
        for _ in range(ticks):
            measured = self.rig.measured.copy()
            self.ticks.append(self.rig.tick(**how))
            self._before.append((self.rig.now_ns, measured))

    def offences(self) -> list[str]:
        """Every command that left the limits of position, velocity or acceleration, and every motion in HOLD."""
        found: list[str] = []
        place: np.ndarray | None = None
        speed, since_ns = np.zeros(4), 0
        for number, (now, (time_ns, measured)) in enumerate(zip(self.ticks, self._before, strict=True)):
            if now.command is None:
                place = place if now.mode is Mode.RUNNING else None  # the clock stands: so does its robot
                continue
            if place is None or time_ns - since_ns > 5.5 * PERIOD_NS:  # the robot has come to rest
                speed = np.zeros(4)
            new = (now.command - (measured if place is None else place)) / PERIOD_S
            found += [f"tick {number}: {what}" for what in _broken(now, new, speed)]
            place, speed, since_ns = now.command, new * (now.mode is Mode.RUNNING), time_ns
        return found


def _broken(now: TickResult, speed: np.ndarray, last_speed: np.ndarray) -> list[str]:
    assert now.command is not None
    broken = []
    if not ((now.command >= LIMITS.lower) & (now.command <= LIMITS.upper)).all():  # nor a NaN
        broken.append("position")
    if now.mode is Mode.HOLD and speed.any():
        broken.append("motion in HOLD")
    if (np.abs(speed) > LIMITS.velocity + ROUNDING / PERIOD_S).any():
        broken.append("velocity")
    hard = np.abs(speed - last_speed) > LIMITS.acceleration * PERIOD_S + 1e-6
    inside = (now.command > LIMITS.lower) & (now.command < LIMITS.upper)  # at its end a joint stops at once
    if now.mode is Mode.RUNNING and (hard & inside).any():
        broken.append("acceleration")
    return broken


@pytest.fixture
def witness(twin: RobotSpec) -> Witness:
    return Witness(Rig(twin, limits=LIMITS))


def sliding(start: float, per_step: float, steps: int = 50) -> np.ndarray:
    """Both elbows from rest to `per_step` in ten steps, and on."""
    pace = np.clip((np.arange(steps) - 5) / 10, 0, 1)
    line = start + per_step * np.cumsum(pace)
    return np.stack([line, 0 * line, line, 0 * line], axis=1)


@pytest.mark.parametrize("per_step", [0.02, 0.03, 0.036])  # of 0.04 that the limit allows
@pytest.mark.parametrize("missed", [1, 2, 4, 5, 20])
def test_ticks_that_are_missed_cost_no_hold(witness: Witness, per_step: float, missed: int) -> None:
    rig = witness.rig
    rig.measured[[0, 2]] = -1.0
    rig.executor.run(True)
    witness.tick()
    rig.send(sliding(-1.0, per_step))
    witness.tick(18)
    assert rig.executor.clamped_ticks == 0
    rig.now_ns += missed * PERIOD_NS
    rig.monotonic_ns += missed * PERIOD_NS
    witness.tick(10)
    assert {result.mode for result in witness.ticks[2:]} == {Mode.RUNNING}
    assert witness.offences() == []
    moved = np.diff(np.array(rig.commands)[:, 0])
    assert moved.max() <= 0.04 + ROUNDING
    if missed == 20:  # the arm has come to rest: a ramp
        assert moved[-10] <= 0.5 * PERIOD_S + ROUNDING


def test_a_short_chunk_is_not_followed_by_the_rest_of_the_one_before(witness: Witness) -> None:
    rig = witness.rig
    rig.start(sliding(0.0, 0.01))
    witness.tick(10)
    short = np.tile(rig.measured, (3, 1))
    rig.send(short)
    witness.tick(8)
    assert [result.mode for result in witness.ticks[-6:]] == [Mode.HOLD] * 6
    assert np.ptp([result.command for result in witness.ticks[-8:]], axis=0).max() == 0


def test_a_reading_that_cannot_be_holds_until_it_is_right(witness: Witness) -> None:
    rig = witness.rig
    rig.measured[0] = 2 * np.pi  # an encoder that counts a turn too many
    result = rig.start(0.9)
    assert (result.mode, result.command) == (Mode.HOLD, None)
    assert result.reason == "joint states: left_elbow measured beyond the limits"
    rig.measured[0] = 1.05  # a little beyond: the arm rests on its stop
    result = rig.tick()
    assert result.mode is Mode.RUNNING
    assert result.command is not None
    assert result.command[0] == pytest.approx(1.0 - 0.5 * PERIOD_S)


@pytest.mark.parametrize("stamp_ns", [0, 10**15])
def test_joint_states_with_stamps_that_say_nothing_hold(witness: Witness, stamp_ns: int) -> None:
    rig = witness.rig
    rig.start(0.0)
    for _ in range(15):
        rig.executor.on_joint_state("left/joint_states", stamp_ns, ["elbow", "finger"], [0.3, 0], rig.now_ns)
        rig.now_ns += PERIOD_NS
        rig.monotonic_ns += PERIOD_NS
        rig.executor.on_joint_state("right/joint_states", rig.now_ns, ["elbow", "finger"], [0, 0], rig.now_ns)
        result = rig.executor.tick(rig.now_ns, rig.monotonic_ns)
    assert result.mode is Mode.HOLD
    assert "left/joint_states (elbow, gripper) cannot be used, its stamps are" in result.reason
    assert "right" not in result.reason


@pytest.fixture
def relative(twin: RobotSpec) -> Rig:
    """Elbows that take offsets from the state of a chunk's observation."""
    columns = tuple(dataclasses.replace(c, kind="relative") if c.unit == "rad" else c for c in twin.action)
    return Rig(dataclasses.replace(twin, action=columns))


def test_offsets_belong_to_the_state_of_their_observation_however_fast_joint_states_come(relative: Rig) -> None:
    rig = relative
    rig.executor.run(True)
    for step in range(500):  # 1 kHz
        rig.now_ns += 1_000_000
        rig.monotonic_ns += 1_000_000
        rig.measured[0] = step * 0.0005
        rig.report_joints()
    assert rig.send(0.0, stamp_ns=rig.now_ns - 300_000_000) == ""
    result = rig.tick()
    assert result.wanted is not None
    assert result.wanted[0] == pytest.approx(199 * 0.0005)


def test_offsets_from_a_state_that_is_not_known_are_refused(relative: Rig) -> None:
    rig = relative
    rig.executor.run(True)
    rig.tick()
    assert "no base" in rig.send(0.0, stamp_ns=rig.now_ns - 300_000_000)  # before the first joint states
    rig.tick(12, joints=False)
    assert "no base" in rig.send(0.0)  # long after the last
    assert rig.executor.refused == {"base": 2}
    assert rig.tick().mode is Mode.HOLD


def test_a_start_without_a_chunk_is_a_warning_first_and_then_an_error(rig: Rig) -> None:
    rig.executor.run(True)
    result = rig.tick(int(9 / PERIOD_S))
    health = rig.executor.health(rig.now_ns)
    assert (result.reason, health.error, health.warning) == (FIRST_CHUNK, False, True)
    rig.tick(int(1 / PERIOD_S) + 1)
    assert rig.executor.health(rig.now_ns).error
    rig.executor.run(False)
    rig.executor.run(True)
    assert not rig.executor.health(rig.now_ns).error


def test_silence_is_told_also_after_the_clock_went_back(rig: Rig) -> None:
    rig.start(0.0)
    rig.now_ns -= 40_000_000_000
    rig.tick(3)
    assert (rig.executor.mode, rig.executor.reason) == (Mode.HOLD, NO_CHUNK)
    assert rig.executor.health(rig.now_ns).error


@pytest.mark.parametrize("before", ["idle", "waiting", "running", "latched", "no joints", "standing clock"])
def test_estop_silences_every_mode_until_a_reset(witness: Witness, before: str) -> None:
    rig = witness.rig
    if before != "idle":
        rig.executor.run(True)
    if before not in ("idle", "waiting"):
        rig.tick()
        rig.send(0.0)
        rig.tick(3)
    if before == "latched":
        rig.send(0.9)
        assert rig.tick().mode is Mode.HOLD
    rig.tick(15, joints=before != "no joints", clock=before != "standing clock")
    rig.executor.estop()
    for _ in range(30):
        rig.send(0.0)
        result = rig.tick()
        assert (result.mode, result.command) == (Mode.ESTOP, None)
    assert "reset" in rig.executor.run(True)
    assert rig.executor.reset() == ""
    assert rig.tick().mode is Mode.IDLE


ROWS = st.lists(st.floats(-1.3, 1.3), min_size=4, max_size=4)
EVENTS = st.one_of(
    st.tuples(st.just("chunk"), ROWS, st.floats(-0.06, 0.06), st.integers(-60, 30), st.integers(1, 60)),
    st.tuples(st.just("clean"), st.floats(-0.03, 0.03)),
    st.tuples(st.just("again")),
    st.tuples(st.just("spoilt"), st.sampled_from([np.nan, np.inf, -np.inf]), st.integers(0, 199)),
    st.tuples(st.just("narrow"), st.sampled_from([0, 1, 3, 5])),
    st.tuples(st.just("tick"), st.integers(1, 40)),
    st.tuples(st.just("one side"), st.sampled_from(SIDES), st.integers(1, 15)),
    st.tuples(st.just("blind"), st.integers(1, 15)),
    st.tuples(st.just("stands"), st.integers(1, 30)),
    st.tuples(st.just("missed"), st.integers(1, 24)),
    st.tuples(st.just("jump"), st.floats(-200, 200)),
    st.tuples(st.just("small jump"), st.floats(-0.5, 0.5)),
    st.tuples(st.sampled_from(["estop", "reset", "run", "stop"])),
)


class Adversary:
    """Does to a rig what an event says."""

    def __init__(self, witness: Witness) -> None:
        self._witness = witness
        self._rig = witness.rig
        self._sent = self._rig.chunk(0.0)

    def act(self, event: tuple) -> None:
        kind, *rest = event
        getattr(self, "_" + kind.replace(" ", "_"))(*rest)

    def _chunk(self, row: list[float], per_step: float, steps: int, horizon: int) -> None:
        actions = np.array(row) + per_step * np.arange(horizon)[:, None]
        self._sent = self._rig.chunk(actions, stamp_ns=self._rig.now_ns + steps * PERIOD_NS)
        self._again()

    def _clean(self, per_step: float) -> None:
        rows = np.tile(self._rig.measured, (50, 1))
        rows[:, 0] += per_step * np.arange(50)
        self._sent = self._rig.chunk(rows)
        self._again()

    def _again(self) -> None:
        self._rig.executor.on_chunk(self._sent, self._rig.now_ns)

    def _spoilt(self, value: float, place: int) -> None:
        rows = np.zeros((50, 4))
        rows.flat[place] = value
        assert self._rig.send(rows)

    def _narrow(self, width: int) -> None:
        assert "wrong size" in self._rig.send(np.zeros((50, width)))

    def _tick(self, ticks: int) -> None:
        self._witness.tick(ticks)

    def _one_side(self, side: str, ticks: int) -> None:
        """The other side's joint states are lost."""
        rig = self._rig
        for _ in range(ticks):
            at = 2 * SIDES.index(side)
            values = [rig.measured[at], rig.measured[at + 1] * 0.05]
            stamp_ns = rig.now_ns + PERIOD_NS
            rig.executor.on_joint_state(f"{side}/joint_states", stamp_ns, ["elbow", "finger"], values, stamp_ns)
            self._witness.tick(joints=False)

    def _blind(self, ticks: int) -> None:
        self._witness.tick(ticks, joints=False)

    def _stands(self, ticks: int) -> None:
        self._witness.tick(ticks, clock=False)

    def _missed(self, ticks: int) -> None:
        self._rig.now_ns += ticks * PERIOD_NS
        self._rig.monotonic_ns += ticks * PERIOD_NS

    def _jump(self, seconds: float) -> None:
        self._rig.now_ns = max(1, self._rig.now_ns + round(seconds * 1e9))

    _small_jump = _jump

    def _estop(self) -> None:
        self._rig.executor.estop()

    def _reset(self) -> None:
        self._rig.executor.reset()

    def _run(self) -> None:
        self._rig.executor.run(True)

    def _stop(self) -> None:
        self._rig.executor.run(False)


@pytest.mark.parametrize("strategy", STRATEGIES)
@settings(
    max_examples=40,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(events=st.lists(EVENTS, min_size=3, max_size=30))
def test_no_input_breaks_a_limit_or_moves_a_robot_in_hold(twin: RobotSpec, strategy: str, events: list[tuple]) -> None:
    witness = Witness(Rig(twin, strategy, limits=LIMITS))
    adversary = Adversary(witness)
    witness.rig.executor.run(True)
    witness.tick()
    adversary.act(("clean", 0.01))
    witness.tick(5)
    for event in events:
        adversary.act(event)
        witness.tick()
    assert witness.offences() == []
    assert all(result.reason for result in witness.ticks if result.mode in (Mode.HOLD, Mode.ESTOP))
    # Whatever came before: after a reset, clean chunks pass.
    rig = witness.rig
    rig.executor.reset()
    rig.executor.run(False)
    witness.tick()
    rig.executor.run(True)
    for _ in range(60):
        adversary.act(("clean", 0.0))
        witness.tick()
    assert witness.ticks[-1].mode is Mode.RUNNING
    assert witness.offences() == []
