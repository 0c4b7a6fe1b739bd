"""Episodes on a running stack, the stack played by a stand-in for the commander."""

import contextlib
import os
import time
from types import SimpleNamespace

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: source setup/env.sh")
pytest.importorskip("openpi_msgs.msg", reason="needs the built workspace: make setup")

import numpy as np
import psutil
from std_msgs.msg import Bool, String

from openpi_ros import libero_worker
from openpi_ros.commander import CommandError
from openpi_ros.conversions import image_message
from openpi_ros.libero_worker import StackEpisodes
from openpi_runtime.modes import Mode

HOLD_AT, SOLVED_AT = 30, 12


class FakeRobot:
    """A stack that makes one step whenever it is waited for; its executor runs from the third one on."""

    def __init__(self, *_arguments, **_options):
        self.node, self.state, self.calls, self.callbacks = self, None, [], {}
        self.solved_at = self.hold_at = 10**9
        self.steps = 0

    def create_subscription(self, _kind, topic, callback, _profile):
        self.callbacks[topic] = callback

    def bring_up(self, _timeout):
        self.calls.append("bring_up")

    def stop(self):
        self.calls.append("stop")

    def reset(self):
        raise CommandError("nothing to reset")

    def start(self):
        if self.state is not None and self.state.mode == Mode.HOLD and self.steps >= self.hold_at:
            raise CommandError("call ~/reset first")
        self.calls.append("start")

    def set_prompt(self, prompt):
        self.calls.append(prompt)

    def reset_simulation(self, seed, simulator, **scene):
        self.calls.append((seed, simulator, scene))
        self.callbacks["sim/instruction"](String(data=f"task {scene['task']}"))
        self.steps, self.state = 0, None

    def wait_for(self, holds, _timeout, what):
        for _ in range(5):
            if holds():
                return
            self.steps += 1
            running = 3 <= self.steps < self.hold_at
            self.state = SimpleNamespace(mode=Mode.RUNNING if running else Mode.HOLD)
            if "agentview/image_raw" in self.callbacks:
                self.callbacks["agentview/image_raw"](image_message(np.zeros((2, 2, 3), np.uint8), 0, ""))
            self.callbacks["sim/success"](Bool(data=self.steps >= self.solved_at))
        raise CommandError(f"no {what}")


@pytest.fixture
def stack(monkeypatch) -> StackEpisodes:
    monkeypatch.setattr(libero_worker, "PolicyCommander", FakeRobot)
    return StackEpisodes("spatial", seed=7, videos=True)


def test_a_solved_episode_counts_the_steps_from_when_the_executor_runs(stack):
    stack._robot.solved_at = SOLVED_AT
    outcome = stack.run({"task": 4, "trial": 2})
    assert (outcome.success, outcome.steps) == (True, SOLVED_AT - 2)
    scene = {"suite": "spatial", "task": 4, "trial": 2}
    assert stack._robot.calls[:4] == ["bring_up", "stop", (7, "libero_sim_node", scene), "task 4"]
    assert stack._robot.calls[-1] == "stop"
    assert len(outcome.frames) == SOLVED_AT - 3


def test_an_episode_fails_at_the_suites_limit_and_the_next_starts_afresh(stack):
    outcome = stack.run({"task": 0, "trial": 0})
    assert (outcome.success, outcome.steps) == (False, 220)
    stack._robot.solved_at = SOLVED_AT
    assert stack.run({"task": 0, "trial": 1}).steps == SOLVED_AT - 2


def test_an_executor_that_needs_a_reset_ends_the_episode(stack):
    stack._robot.hold_at = HOLD_AT
    outcome = stack.run({"task": 0, "trial": 0})
    assert not outcome.success
    assert outcome.steps <= HOLD_AT


STACK = """
import os, sys, time
print(sys.argv[1:], os.environ["ROS_DOMAIN_ID"], flush=True)
time.sleep(100)
"""


@pytest.fixture
def stack_program(monkeypatch, tmp_path):
    """Stands in for `openpi-up`."""
    (tmp_path / "openpi_bringup").mkdir()
    (tmp_path / "openpi_bringup/__init__.py").touch()
    (tmp_path / "openpi_bringup/up.py").write_text(STACK)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    monkeypatch.setenv("ROS_DOMAIN_ID", "7")  # restored at the end


class WaitingRobot(FakeRobot):
    """The nodes of a stack that does not come up."""

    closed = False

    def bring_up(self, timeout):
        raise CommandError("There is no node chunk_executor_node.")

    def close(self):
        WaitingRobot.closed = True


def options(tmp_path, *words):
    return libero_worker.parse(
        ["--suite", "goal", "--start-stack", str(tmp_path / "stack.log"), "--domain", "42", *words]
    )


def test_a_stack_of_its_own_runs_in_its_domain_and_ends_with_the_worker(monkeypatch, tmp_path, stack_program):
    monkeypatch.setattr(libero_worker, "PolicyCommander", UpRobot)
    monkeypatch.setattr(UpRobot, "log", tmp_path / "stack.log")
    with contextlib.ExitStack() as resources:
        libero_worker.connect(options(tmp_path, "--stack=policy:=remote", "--stack=port:=9000"), resources)
        (process,) = [child for child in psutil.Process().children() if "openpi_bringup.up" in child.cmdline()]
    assert not process.is_running()
    said = (tmp_path / "stack.log").read_text()
    assert said.startswith("['libero', 'suite:=goal', 'policy:=remote', 'port:=9000'] 42\n")
    assert said.endswith("KeyboardInterrupt\n"), "ended as by Ctrl-C, so that its nodes end too"


class UpRobot(FakeRobot):
    """There once the stack has begun."""

    log = None

    def bring_up(self, timeout):
        if not self.log.read_text():
            time.sleep(0.05)
            raise CommandError("not yet")

    def close(self):
        pass


def test_a_stack_that_ends_is_quoted(monkeypatch, tmp_path):
    monkeypatch.setattr(libero_worker, "PolicyCommander", WaitingRobot)
    monkeypatch.setattr(WaitingRobot, "closed", False)
    said = r"(?s)ended by itself.*policy:='broken' must be one of"
    with contextlib.ExitStack() as resources, pytest.raises(CommandError, match=said):
        libero_worker.connect(options(tmp_path, "--stack=policy:=broken"), resources)
    assert WaitingRobot.closed
