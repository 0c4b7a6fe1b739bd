"""A simulated clock that stands still and jumps, as /clock shows it to the executor's process."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import pytest
from fault_world import HOLD, PERIOD_S, RUNNING, SLACK_S, Report, World, judged


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with judged(tmp_path_factory.mktemp("clock_faults"), simulated_time=True) as made:
        made.start_executor()
        yield made


@pytest.fixture
def going(world: World) -> World:
    world.get_going()
    return world


def resumes(world: World) -> float:
    """Sends a chunk that begins away from the robot; returns when RUNNING, after checking that it is a ramp."""
    began = time.monotonic()
    actions = np.tile(world.mock.position, (50, 1))
    actions[:, [0, 7]] += 0.1
    before = world.mock.position[0]
    world.send(world.chunk(actions))
    at = world.wait_mode(RUNNING)
    time.sleep(0.15)
    waist = np.array([before, *world.commands(since=began)[:, 0]])
    assert np.abs(np.diff(waist)).max() <= 0.5 * PERIOD_S + 1e-6
    assert waist[-1] > before
    return at


def test_ticks_follow_the_simulated_clock(going: World) -> None:
    begin, stamp = len(going.states), going.clock_ns
    time.sleep(0.5)
    stamps = [state.header.stamp.sec * 10**9 + state.header.stamp.nanosec for _, state in going.states[begin:]]
    steps = np.diff(stamps)  # 0 where the clock was late and only looked at
    assert set(steps % 20_000_000) == {0}
    assert steps.min() >= 0
    assert len(set(stamps)) >= 0.5 * (going.clock_ns - stamp) / (PERIOD_S * 1e9)


def test_clock_that_stands_stops_commands_holds_and_resumes(going: World, report: Report) -> None:
    going.clock_runs = False
    fault = time.monotonic()
    held = going.wait_mode(HOLD, "stood still")
    report("clock stands: HOLD", held - fault)
    assert held - fault < 0.6 + SLACK_S
    assert [r for r in list(going.mock.received) if r.at_s > fault + 5 * PERIOD_S] == []
    going.clock_runs = True
    time.sleep(0.2)
    assert going.state.mode == HOLD  # the old chunk is dropped
    back = time.monotonic()
    report("clock runs again: RUNNING after a fresh chunk", resumes(going) - back)


@pytest.mark.parametrize("jump_s", [0.7, 3600.0, -0.7, -40.0])
def test_clock_that_jumps_stops_commands_holds_and_resumes(going: World, report: Report, jump_s: float) -> None:
    going.clock_ns += round(jump_s * 1e9)
    fault = time.monotonic()
    held = going.wait_mode(HOLD, "jumped")
    report(f"clock jumps by {jump_s:+g} s: HOLD", held - fault)
    assert held - fault < 0.6 + SLACK_S
    time.sleep(0.1)
    assert going.state.mode == HOLD
    assert [r for r in list(going.mock.received) if r.at_s > held + PERIOD_S] == []
    resumes(going)


def test_short_pause_of_the_clock_is_no_fault(going: World) -> None:
    begin = len(going.states)
    going.clock_runs = False
    time.sleep(0.25)
    going.clock_runs = True
    time.sleep(0.2)
    assert {state.mode for _, state in going.states[begin:]} == {RUNNING}
