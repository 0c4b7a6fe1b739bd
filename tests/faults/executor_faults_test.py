"""Faults of chunks, joint states, users and the executor's own process, on the wall clock."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from fault_world import ESTOP, HOLD, IDLE, PERIOD_S, RUNNING, SLACK_S, Report, World, judged


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with judged(tmp_path_factory.mktemp("executor_faults")) as made:
        made.start_executor()
        yield made


@pytest.fixture
def going(world: World) -> World:
    world.get_going()
    return world


def test_chunk_that_runs_out_holds_the_last_command_and_resumes_by_itself(going: World, report: Report) -> None:
    sent = going.sway()
    held = going.wait_mode(HOLD, "no chunk")
    report("chunk runs out: HOLD after its last step", held - (sent + 50 * PERIOD_S))
    assert held - sent < 50 * PERIOD_S + 2 * PERIOD_S + SLACK_S
    time.sleep(0.3)
    assert going.stands(held)
    assert len(going.commands(since=held)) > 5
    fresh = going.sway()
    report("resumed by a fresh chunk", going.wait_mode(RUNNING) - fresh)


@pytest.mark.parametrize("fault", ["nan", "inf", "wrong size", "short data", "wrong names", "stale", "out of order"])
def test_bad_chunk_is_refused_and_the_current_one_goes_on(going: World, fault: str) -> None:
    current = going.state.chunk_id
    message = bad_chunk(going, fault)
    begin = len(going.states)
    going.send(message)
    time.sleep(0.2)
    since = [state for _, state in going.states[begin:]]
    assert {state.mode for state in since} == {RUNNING}
    assert {state.chunk_id for state in since} == {current}
    assert since[-1].next_step > since[0].next_step


def bad_chunk(world: World, fault: str) -> Any:
    actions = np.tile(world.mock.position, (50, 1))
    if fault in ("nan", "inf"):
        actions[17, 3] = float(fault)
    if fault == "wrong size":
        return world.chunk(actions[:, :13])
    if fault == "wrong names":
        return world.chunk(actions, action_names=tuple(reversed(world.robot.action_names)))
    if fault == "stale":
        return world.chunk(actions, stamp_ns=world.now_ns() - 2_000_000_000)
    if fault == "out of order":
        return world.chunk(actions, stamp_ns=world.now_ns() - 900_000_000)
    message = world.chunk(actions)
    if fault == "short data":
        message.data = message.data[:100]
    return message


def test_late_chunk_is_entered_at_the_step_that_is_due(going: World) -> None:
    late = going.chunk(np.tile(going.mock.position, (50, 1)))
    time.sleep(0.2)
    going.send(late)
    going.wait(lambda: going.state.chunk_id == late.chunk_id, 2.0, "the late chunk is executed")
    entered = next(state for _, state in going.states if state.chunk_id == late.chunk_id)
    assert entered.next_step > 10
    assert entered.mode == RUNNING


def test_slightly_beyond_a_limit_is_clamped_and_counted(going: World) -> None:
    clamped = going.state.clamped_ticks
    actions = np.tile(going.mock.position, (50, 1))
    actions[:, 6] = 1.03
    going.send(going.chunk(actions))
    going.wait(lambda: going.state.clamped_ticks > clamped, 2.0, "a clamp is counted")
    assert going.state.mode == RUNNING
    assert going.commands()[-1][-1] <= 1.0


@pytest.mark.parametrize(("column", "value"), [(2, 3.0), (6, 2.0), (0, 0.4)])
def test_far_beyond_a_limit_or_too_fast_holds_until_reset(
    going: World, report: Report, column: int, value: float
) -> None:
    actions = np.tile(going.mock.position, (50, 1))
    actions[:, column] = value
    sent = going.send(going.chunk(actions))
    held = going.wait_mode(HOLD)
    report(f"action {column} at {value}: HOLD", held - sent)
    assert held - sent < 3 * PERIOD_S + SLACK_S
    assert going.robot.action_names[column] in going.state.reason
    going.sway()
    time.sleep(0.2)
    assert going.state.mode == HOLD
    assert going.stands(held + 2 * PERIOD_S)
    assert not going.run(True).success
    assert going.reset().success
    going.wait_mode(IDLE)


def test_silent_joint_states_hold_and_are_named(going: World, report: Report) -> None:
    fault = time.monotonic()
    going.mock.silent.add("right")
    going.sway()
    held = going.wait_mode(HOLD, "follower_right/joint_states")
    report("joint states silent: HOLD", held - fault)
    assert held - fault < 0.2 + PERIOD_S + SLACK_S
    assert "follower_left" not in going.state.reason
    time.sleep(0.1)
    assert going.stands(held + PERIOD_S)
    going.mock.silent.clear()
    back = going.sway()
    report("joint states back: RUNNING", going.wait_mode(RUNNING) - back)


def test_missing_joint_holds_and_is_named(going: World, report: Report) -> None:
    fault = time.monotonic()
    going.mock.missing.add("elbow")
    going.sway()
    held = going.wait_mode(HOLD, "(elbow)")
    report("joint missing: HOLD", held - fault)
    assert held - fault < 0.2 + PERIOD_S + SLACK_S
    going.mock.missing.clear()
    going.sway()
    going.wait_mode(RUNNING)


def test_joint_states_without_stamps_hold_and_the_driver_is_told(going: World) -> None:
    fault = time.monotonic()
    going.stamped = False
    going.sway()
    held = going.wait_mode(HOLD, "its stamps are zero: its driver must fill in header.stamp")
    assert held - fault < 0.2 + PERIOD_S + SLACK_S
    going.stamped = True
    going.sway()
    going.wait_mode(RUNNING)


def test_estop_at_any_moment(going: World, report: Report) -> None:
    for _ in range(5):
        time.sleep(random.uniform(0.0, 0.1))
        going.sway()
        asked = time.monotonic()
        assert going.estop().success
        stopped = going.wait_mode(ESTOP)
        time.sleep(0.1)
        after = [r.at_s for r in list(going.mock.received) if r.at_s > stopped + PERIOD_S]
        assert after == []
        report("e-stop: last command after the call", max(r.at_s for r in going.mock.received) - asked)
        going.sway()
        assert not going.run(True).success
        assert going.state.mode == ESTOP
        going.get_going()


def test_diagnostics_of_silence_are_an_error_within_a_second(going: World, report: Report) -> None:
    sent = going.sway()
    going.wait(lambda: going.diagnosis("chunk_executor_node", b"\x02", sent), 1.0 + SLACK_S, "diagnostics ERROR")
    at, text = going.diagnosis("chunk_executor_node", b"\x02", sent)[0]
    report("no chunk: diagnostics ERROR after the last one", at - sent)
    assert "no chunk" in text


def test_restarted_executor_is_idle_and_ramps_from_where_the_robot_is(going: World, report: Report) -> None:
    going.sway()
    time.sleep(0.2)
    killed = going.kill("chunk_executor_node")
    time.sleep(0.1)
    assert len(going.commands(since=killed + 0.1)) == 0
    going.place(np.where(np.isin(np.arange(14), [0, 7]), 0.3, going.mock.position))
    going.start_executor()
    report("executor restarted: reports IDLE", time.monotonic() - killed)
    assert going.state.mode == IDLE
    began = time.monotonic()
    actions = np.tile(going.mock.position, (50, 1))
    actions[:, [0, 7]] = 0.1
    going.run(True)
    going.send(going.chunk(actions))
    going.wait_mode(RUNNING)
    time.sleep(0.3)
    waist = going.commands(since=began)[:, 0]
    assert waist[0] == pytest.approx(0.3, abs=0.011)
    assert np.abs(np.diff(waist)).max() <= 0.5 * PERIOD_S + 1e-6
