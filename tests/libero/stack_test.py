"""`openpi-up libero` with the scripted expert: a whole episode over real ROS 2, and the benchmark through it."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: source setup/env.sh")
pytest.importorskip("openpi_msgs.msg", reason="needs the built workspace: make setup")

import numpy as np
import rclpy
from rclpy.executors import SingleThreadedExecutor
from sensor_msgs.msg import Image
from std_msgs.msg import Float64MultiArray

from openpi_ros import qos
from openpi_ros.conversions import image_array
from openpi_sim.libero import evaluate

pytestmark = [pytest.mark.ros, pytest.mark.timeout(600)]


class Up:
    """`openpi-up libero` in a domain of its own."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.log = folder / "up.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "openpi_bringup.up", "libero", *arguments],
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait_for(self, text: str, timeout_s: float = 200.0) -> None:
        end = time.monotonic() + timeout_s
        while text not in (said := self.log.read_text(errors="replace")):
            assert self.process.poll() is None, said[-3000:]
            assert time.monotonic() < end, f"Not within {timeout_s} s: {text!r}.\n{said[-3000:]}"
            time.sleep(0.2)

    def close(self) -> None:
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(30)
        finally:
            if self.process.poll() is None:
                os.killpg(self.process.pid, signal.SIGKILL)


@pytest.fixture
def up(tmp_path, monkeypatch) -> Iterator[Up]:
    monkeypatch.setenv("ROS_DOMAIN_ID", str(random.randint(1, 100)))
    stacks: list[Up] = []

    def start(*arguments: str) -> Up:
        stacks.append(Up(tmp_path, *arguments))
        return stacks[-1]

    yield start
    for stack in stacks:
        stack.close()


def test_a_whole_episode_runs_by_itself_and_the_benchmark_runs_through_it(up, tmp_path):
    stack = up("task:=3", "trial:=1")
    stack.wait_for("on the cookie box and place it on the plate")
    stack.wait_for("HOLD -> RUNNING")
    stack.wait_for("The task is solved")

    assert evaluate.main(evaluate.Args(through_ros=True, trials=2, tasks=(0,), out=tmp_path)) == 0
    summary = json.loads((tmp_path / "spatial_seed7_ros/summary.json").read_text())
    assert (summary["episodes"], summary["successes"]) == (2, 2)
    assert summary["tasks"]["0"]["mean_steps"] < 200
    stack.close()
    assert stack.process.returncode in (0, 130)


def test_two_workers_run_on_stacks_of_their_own_and_a_second_run_repeats_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("ROS_DOMAIN_ID", str(random.randint(1, 99)))
    args = evaluate.Args(through_ros=True, workers=2, trials=1, tasks=(0, 3), out=tmp_path)
    assert evaluate.main(args) == 0
    folder = tmp_path / "spatial_seed7_ros"
    results = (folder / "results.jsonl").read_text()
    assert sorted(json.loads(line)["task"] for line in results.splitlines()) == [0, 3]
    assert json.loads((folder / "summary.json").read_text())["successes"] == 2
    for number in range(args.workers):
        assert "The task is solved" in (folder / f"stack_{number}.log").read_text()
    assert evaluate.main(args) == 0
    assert (folder / "results.jsonl").read_text() == results


def test_pictures_and_commands_travel(up):
    """Rendered as policies see it; with the policy `hold` every command is to stand, the gripper open."""
    stack = up("policy:=hold")
    stack.wait_for("HOLD -> RUNNING")
    context = rclpy.Context()
    rclpy.init(context=context)
    node = rclpy.create_node("looker", context=context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    pictures: dict[str, np.ndarray] = {}
    commands: list[Float64MultiArray] = []
    for camera in ("agentview", "eye_in_hand"):
        keep = lambda message, camera=camera: pictures.update({camera: image_array(message)})  # noqa: E731
        node.create_subscription(Image, f"{camera}/image_raw", keep, qos.SENSOR)
    node.create_subscription(Float64MultiArray, "sim/action", commands.append, qos.COMMAND)
    try:
        end = time.monotonic() + 60
        while len(pictures) < 2 or len(commands) < 5:
            assert time.monotonic() < end, (list(pictures), len(commands))
            executor.spin_once(timeout_sec=0.1)
    finally:
        executor.shutdown()
        node.destroy_node()
        rclpy.try_shutdown(context=context)
    assert all(picture.shape == (256, 256, 3) and picture.std() > 10 for picture in pictures.values())
    np.testing.assert_allclose([list(command.data)[:6] for command in commands], 0.0)
    assert all(command.data[6] < -0.9 for command in commands)
