"""Faults of the policy node's process and of its cameras: real policy node, real executor, cameras that break."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator

import pytest
from fault_world import CHUNK_S, ERROR, EXECUTOR, HOLD, IDLE, PERIOD_S, POLICY, RUNNING, SLACK_S, Report, World, judged


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with judged(tmp_path_factory.mktemp("policy_faults"), image_size=(48, 64)) as made:
        made.start(POLICY, backend="hold")
        made.start_executor(chunk_topic=f"{POLICY}/action_chunk")
        yield made


@pytest.fixture
def going(world: World) -> World:
    if POLICY not in world.processes:
        world.start(POLICY, backend="hold")
    world.mock.blind.clear()
    world.mock.frozen.clear()
    world.follow_policy()
    return world


def ends_in_hold(world: World, fault: float, report: Report, what: str) -> None:
    """The chunk is executed to its end, then HOLD; the executor's diagnostics say so before."""
    held = world.wait_mode(HOLD, "no chunk")
    last = world.chunks[-1][0]
    report(f"{what}: HOLD after the last chunk", held - last)
    assert held - last < CHUNK_S + 2 * PERIOD_S + SLACK_S
    errors = world.diagnosis(EXECUTOR, ERROR, fault)
    report(f"{what}: diagnostics ERROR", errors[0][0] - fault)
    assert errors[0][0] - fault < 1.0 + SLACK_S
    assert world.stands(held)


def test_killed_policy_node_ends_in_hold_and_a_new_one_resumes(going: World, report: Report) -> None:
    time.sleep(0.2)  # in the middle of a chunk
    fault = going.kill(POLICY)
    ends_in_hold(going, fault, report, "policy node killed")
    begun = time.monotonic()
    going.start(POLICY, backend="hold")
    report("policy node restarted: RUNNING", going.wait_mode(RUNNING, timeout_s=30.0) - begun)


def test_silent_policy_node_ends_in_hold_and_resumes_when_it_wakes(going: World, report: Report) -> None:
    fault = time.monotonic()
    going.processes[POLICY].send_signal(signal.SIGSTOP)
    ends_in_hold(going, fault, report, "policy node stopped")
    going.processes[POLICY].send_signal(signal.SIGCONT)
    going.wait_mode(RUNNING, timeout_s=10.0)


def test_restarted_executor_takes_up_the_policy_that_runs(going: World, report: Report) -> None:
    killed = going.kill(EXECUTOR)
    going.start_executor(chunk_topic=f"{POLICY}/action_chunk")
    assert going.state.mode == IDLE
    asked = len(going.chunks)
    time.sleep(0.5)
    assert len(going.chunks) == asked  # nobody wants one
    going.run(True)
    report("executor restarted beside a policy: RUNNING after the kill", going.wait_mode(RUNNING) - killed)
    assert going.diagnosis(POLICY, ERROR, killed) == []


@pytest.mark.parametrize("fault", ["silent", "frozen", "back in time"])
def test_broken_camera_stops_requests_and_is_named(going: World, report: Report, fault: str) -> None:
    begun = time.monotonic()
    if fault == "silent":
        going.mock.blind.add("cam_left_wrist")
    else:
        offset = 0 if fault == "frozen" else 10_000_000_000
        going.mock.frozen["cam_left_wrist"] = going.now_ns() - offset
    going.wait(lambda: going.diagnosis(POLICY, ERROR, begun), 5.0, "the policy node reports the camera")
    at, text = going.diagnosis(POLICY, ERROR, begun)[0]
    report(f"camera {fault}: diagnostics ERROR", at - begun)
    assert "cam_left_wrist" in text
    assert "cam_high" not in text
    assert at - begun < 0.6 + SLACK_S
    going.wait_mode(HOLD, "no chunk")
    late = [came for came, _ in going.chunks if came > begun + 0.6 + SLACK_S]
    assert late == []
    going.mock.blind.clear()
    going.mock.frozen.clear()
    going.wait_mode(RUNNING, timeout_s=10.0)
