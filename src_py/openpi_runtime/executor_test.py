import dataclasses

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from openpi_runtime.conftest import PERIOD_NS, Rig, twin_limits
from openpi_runtime.executor import FIRST_CHUNK, NO_CHUNK, ExecutorRules
from openpi_runtime.modes import Mode
from openpi_runtime.robots import RobotSpec


def slope(start: float, per_step: float, steps: int = 50) -> np.ndarray:
    """Elbows moving evenly; grippers at rest, closed."""
    line = start + per_step * np.arange(steps)
    return np.stack([line, 0 * line, line, 0 * line], axis=1)


def test_nothing_is_commanded_before_run(rig: Rig) -> None:
    rig.send(0.1)
    result = rig.tick(3)
    assert result.mode is Mode.IDLE
    assert result.command is None


def test_run_without_a_chunk_holds_without_commanding(rig: Rig) -> None:
    rig.executor.run(True)
    result = rig.tick()
    assert (result.mode, result.reason, result.command) == (Mode.HOLD, FIRST_CHUNK, None)
    assert result.starved_ticks == 0


def test_a_run_starts_without_the_chunks_of_the_run_before(rig: Rig) -> None:
    rig.start(slope(0.0, 0.01))
    rig.tick(5)
    rig.executor.run(False)
    rig.tick()
    rig.executor.run(True)
    result = rig.tick()
    assert (result.mode, result.reason, result.command) == (Mode.HOLD, FIRST_CHUNK, None)


def test_clean_chunk_passes_unchanged_and_in_line(rig: Rig) -> None:
    chunk = slope(0.0, 0.01)
    rig.start(chunk)
    rig.tick(48)
    assert np.array_equal(np.array(rig.commands), chunk[1:50])
    assert rig.executor.clamped_ticks == rig.executor.starved_ticks == 0


def test_chunk_that_runs_out_holds_the_last_command_and_counts(rig: Rig) -> None:
    rig.start(slope(0.0, 0.01))
    rig.tick(48)
    result = rig.tick()
    assert (result.mode, result.reason, result.starved_ticks) == (Mode.HOLD, NO_CHUNK, 1)
    assert result.command == pytest.approx(slope(0, 0.01)[-1])
    assert rig.tick(4).starved_ticks == 5


def test_hold_for_want_of_a_chunk_ends_by_itself_with_a_ramp(rig: Rig) -> None:
    rig.start(slope(0.0, 0.01))
    rig.tick(60)
    held = rig.measured.copy()
    rig.send(slope(held[0] + 0.2, 0.0))
    result = rig.tick()
    assert result.mode is Mode.RUNNING
    assert result.command is not None
    assert result.command[0] - held[0] == pytest.approx(0.5 * 0.02)
    rig.tick(40)
    assert rig.measured[0] == pytest.approx(held[0] + 0.2)


def test_first_motion_is_a_ramp_from_the_measured_position(rig: Rig) -> None:
    rig.measured = np.array([-0.4, 0.5, 0.3, 0.5])
    result = rig.start(0.0)
    assert result.command == pytest.approx([-0.39, 0.46, 0.29, 0.46])


def test_a_lost_joint_topic_holds_and_names_it(rig: Rig) -> None:
    rig.start(slope(0, 0.01))
    result = rig.tick(11, joints=False)
    assert result.mode is Mode.HOLD
    assert "left/joint_states (elbow, gripper)" in result.reason
    assert "right/joint_states" in result.reason
    assert rig.tick().mode is Mode.RUNNING


def test_a_missing_joint_holds_and_names_it(rig: Rig) -> None:
    rig.start(slope(0, 0.01))
    for _ in range(12):
        rig.now_ns += PERIOD_NS
        rig.monotonic_ns += PERIOD_NS
        rig.executor.on_joint_state("left/joint_states", rig.now_ns, ["elbow"], [0.0], rig.now_ns)
        rig.executor.on_joint_state("right/joint_states", rig.now_ns, ["elbow", "finger"], [0, 0], rig.now_ns)
        result = rig.executor.tick(rig.now_ns, rig.monotonic_ns)
    assert result.mode is Mode.HOLD
    assert "left/joint_states (gripper)" in result.reason
    assert "right" not in result.reason


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"actions": np.full((50, 4), np.nan)}, "value"),
        ({"actions": np.full((50, 4), np.inf)}, "value"),
        ({"actions": np.zeros((50, 3))}, "size"),
        ({"actions": np.zeros((0, 4))}, "size"),
        ({"action_names": ("a", "b", "c", "d")}, "names"),
        ({"period_ns": PERIOD_NS // 2}, "period"),
        ({"stamp_ns": 1}, "time"),
        ({"stamp_ns": 10**15}, "time"),
        ({"stamp_ns": 100_000_000_000}, "order"),
    ],
)
def test_bad_chunks_are_refused_and_the_current_one_goes_on(rig: Rig, changes: dict, kind: str) -> None:
    rig.start(slope(0, 0.01))
    before = rig.tick(3)
    problem = rig.executor.on_chunk(dataclasses.replace(rig.chunk(0.0), **changes), rig.now_ns)
    assert problem
    assert rig.executor.refused == {kind: 1}
    after = rig.tick()
    assert (after.mode, after.chunk_id, after.next_step) == (Mode.RUNNING, before.chunk_id, before.next_step + 1)


def test_latency_costs_steps_never_a_jump_back(rig: Rig) -> None:
    rig.start(slope(0, 0.01))
    rig.tick(9)
    late = rig.chunk(slope(rig.measured[0], 0.01))
    rig.tick(5)
    at = rig.measured[0]
    rig.executor.on_chunk(late, rig.now_ns)
    result = rig.tick()
    assert result.next_step == 7
    assert result.command is not None
    assert result.command[0] == pytest.approx(at + 0.01)


def test_slightly_beyond_a_limit_is_clamped_and_counted(rig: Rig) -> None:
    rig.measured = np.array([1.0, 0, 1.0, 0])
    result = rig.start(slope(1.05, 0.0))
    assert result.mode is Mode.RUNNING
    result = rig.tick(10)
    assert result.command is not None
    assert result.command[0] == 1.0
    assert result.clamped_ticks > 0


def test_far_beyond_a_limit_holds_until_reset(rig: Rig) -> None:
    rig.measured = np.array([0.95, 0, 0.95, 0])
    rig.start(slope(0.95, 0.0))
    rig.send(slope(1.2, 0.0))
    result = rig.tick()
    assert result.mode is Mode.HOLD
    assert "left_elbow" in result.reason
    rig.send(slope(0.95, 0.0))
    assert rig.tick(5).mode is Mode.HOLD
    assert "reset" in rig.executor.run(True)
    assert rig.executor.reset() == ""
    assert rig.tick().mode is Mode.IDLE


def test_too_fast_once_is_clamped_twice_holds(rig: Rig) -> None:
    steps = slope(0.0, 0.0)
    steps[10:, 0] = 0.1  # more than twice the 0.04 rad that 2 rad/s allows
    rig.start(steps)
    result = rig.tick(9)
    assert (result.mode, result.clamped_ticks) == (Mode.RUNNING, 1)
    result = rig.tick()
    assert result.mode is Mode.HOLD
    assert "faster" in result.reason


def test_estop_takes_one_tick_and_latches(rig: Rig) -> None:
    rig.start(slope(0, 0.01))
    rig.executor.estop()
    assert rig.tick().command is None
    assert rig.tick(10).mode is Mode.ESTOP
    assert "reset" in rig.executor.run(True)
    assert rig.executor.reset() == ""
    assert rig.tick().mode is Mode.IDLE
    assert rig.executor.run(True) == ""
    rig.send(slope(rig.measured[0], 0.0))
    assert rig.tick().mode is Mode.RUNNING


def test_clock_that_stands_stops_commands_and_resumes_on_a_fresh_chunk(rig: Rig) -> None:
    rig.start(slope(0, 0.01))
    result = rig.tick(24, clock=False, joints=False)
    assert (result.mode, result.command) == (Mode.RUNNING, None)
    result = rig.tick(2, clock=False, joints=False)
    assert (result.mode, result.command) == (Mode.HOLD, None)
    assert "stood still" in result.reason
    assert rig.tick(3).mode is Mode.HOLD  # the old chunk is gone
    rig.send(slope(rig.measured[0] + 0.1, 0.0))
    before = rig.measured[0]
    result = rig.tick()
    assert result.mode is Mode.RUNNING
    assert result.command is not None
    assert result.command[0] == pytest.approx(before + 0.01)


@pytest.mark.parametrize("jump_s", [-10.0, -0.6, 0.6, 1000.0])
def test_clock_that_jumps_stops_commands_and_resumes_on_a_fresh_chunk(rig: Rig, jump_s: float) -> None:
    rig.start(slope(0, 0.01))
    rig.tick(5)
    rig.now_ns += round(jump_s * 1e9)
    result = rig.tick(joints=False)
    assert (result.mode, result.command) == (Mode.HOLD, None)
    assert "jumped" in result.reason
    assert rig.tick(2).mode is Mode.HOLD
    assert rig.send(slope(rig.measured[0], 0.0)) == ""
    assert rig.tick().mode is Mode.RUNNING


def test_small_step_back_of_the_clock_waits(rig: Rig) -> None:
    rig.start(slope(0, 0.01))
    rig.tick(5)
    rig.now_ns -= 3 * PERIOD_NS
    assert rig.tick().command is None
    rig.tick(2)
    assert np.all(np.diff(np.array(rig.commands)[:, 0]) > 0)


def test_a_held_gripper_keeps_squeezing_through_a_hold(rig: Rig) -> None:
    rig.start(slope(0, 0.0))
    rig.tick(60)
    rig.measured[1] = 0.3  # something is between the fingers
    rig.send(slope(0, 0.0))
    result = rig.tick(joints=True)
    assert result.command is not None
    assert result.command[1] == 0.0


@pytest.fixture
def relative(twin: RobotSpec) -> Rig:
    """Elbows that take offsets from the state of a chunk's observation."""
    columns = tuple(dataclasses.replace(c, kind="relative") if c.unit == "rad" else c for c in twin.action)
    return Rig(dataclasses.replace(twin, action=columns))


def test_offsets_without_a_state_to_add_them_to_are_refused(relative: Rig) -> None:
    relative.measured[:] = [0.3, 0, -0.2, 0]
    relative.executor.run(True)
    assert "no base" in relative.send(0.005)
    assert relative.executor.refused == {"base": 1}
    assert relative.tick().command is None
    assert relative.send(0.0) == ""


def test_relative_columns_are_anchored_at_the_state_of_the_observation(relative: Rig) -> None:
    rig = relative
    rig.measured[:] = [0.3, 0, -0.2, 0]
    result = rig.start(slope(0.005, 0.0))
    assert result.command == pytest.approx([0.305, 0, -0.195, 0])


def test_health_tells_silence_from_well_being(rig: Rig) -> None:
    assert not rig.executor.health(rig.now_ns).error
    rig.start(slope(0, 0.001))
    assert not rig.executor.health(rig.now_ns).error
    rig.tick(42)
    health = rig.executor.health(rig.now_ns)
    assert health.error
    assert "no chunk for" in health.message


ARRAYS = st.lists(st.floats(-2, 2), min_size=4, max_size=4)
EVENTS = st.one_of(
    st.tuples(st.just("chunk"), ARRAYS, st.floats(-0.2, 0.2), st.integers(-60, 5)),
    st.tuples(st.just("tick"), st.integers(1, 60)),
    st.tuples(st.just("blind"), st.integers(1, 20)),
    st.tuples(st.just("jump"), st.floats(-2, 2)),
    st.tuples(st.sampled_from(["estop", "reset", "run", "stop"])),
)


def act(rig: Rig, event: tuple) -> None:
    if event[0] == "chunk":
        _, row, per_step, steps = event
        actions = np.array(row) + per_step * np.arange(50)[:, None]
        rig.send(actions, stamp_ns=rig.now_ns + steps * PERIOD_NS)
    elif event[0] == "jump":
        rig.now_ns += round(event[1] * 1e9)
    elif event[0] in ("tick", "blind"):
        rig.tick(event[1], joints=event[0] == "tick")
    elif event[0] in ("run", "stop"):
        rig.executor.run(event[0] == "run")
    else:
        getattr(rig.executor, event[0])()


@pytest.mark.parametrize("strategy", ["open_loop", "latest", "temporal_ensemble", "rtc"])
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(start=ARRAYS, events=st.lists(EVENTS, max_size=25))
def test_nothing_published_is_ever_outside_limits_or_too_fast(twin, strategy, start, events) -> None:
    rig = Rig(twin, strategy)
    limits = twin_limits()
    rig.measured = limits.clip(np.array(start))
    begin = rig.measured.copy()
    rig.executor.run(True)
    for event in events:
        act(rig, event)
    path = np.array([begin, *rig.commands])
    assert np.all(path >= limits.lower)
    assert np.all(path <= limits.upper)
    assert np.all(np.abs(np.diff(path, axis=0)) <= limits.velocity * 0.02 + 1e-6)


def test_rules_are_parameters(twin) -> None:
    rig = Rig(twin, rules=ExecutorRules(ramp_speed=0.1, ramp_gripper_speed=0.5))
    assert rig.start(0.5).command == pytest.approx([0.002, 0.01, 0.002, 0.01])
