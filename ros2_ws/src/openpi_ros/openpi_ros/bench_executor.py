"""Measure the executor beside a policy that infers: tick jitter, what a chunk waits for; and the plain broker's.

Starts both nodes as processes of their own on a robot that is not there: joint states at 50 Hz, three 640x480 cameras.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from openpi_msgs.msg import ActionChunk, ExecutorState
from rclpy.executors import SingleThreadedExecutor
from std_srvs.srv import SetBool

from openpi_ros import qos
from openpi_ros.mock_robot import MockRobot
from openpi_runtime.robots import load_robot

_CAMERA_HZ = 30.0
_IMAGE = (480, 640)
_START_S = 180.0  # compiling the policy on a busy machine
_HOME = np.array([0.0, -0.96, 1.16, 0.0, -0.3, 0.0, 0.5] * 2)
# Random weights command nonsense: it is clamped, and does not end in HOLD.
_LENIENT = {
    "controller": "joint_trajectory",
    "limit_tolerance": 1.0,
    "velocity_strikes": 100,
    "max_step": 10.0,
    "autorun": True,
}


@dataclasses.dataclass(frozen=True)
class Args:
    """What to measure.

    Attributes:
        seconds: how long each of the two runs.
        config: training config whose policy infers, with random weights.
        request_interval: control steps between two inferences; few, so that the 99th percentile is one of many chunks.
        json: file for the figures.
    """

    seconds: float = 40.0
    config: str = "pi0_aloha_sim_small"
    request_interval: int = 10
    json: str = ""


class Bench:
    """The robot that is not there, and what is heard of the executor."""

    def __init__(self) -> None:
        self.node = rclpy.create_node("bench")
        self.robot = load_robot("aloha")
        self.mock = MockRobot(self.node, self.robot, _HOME, _IMAGE)
        self.states: list[ExecutorState] = []
        self.chunks: list[ActionChunk] = []
        self.figures: dict[str, float] = {}
        clock = self.node.get_clock()
        self.node.create_timer(self.robot.period_ns / 1e9, lambda: self.mock.publish_joints(clock.now().nanoseconds))
        self.node.create_timer(1 / _CAMERA_HZ, lambda: self.mock.publish_images(clock.now().nanoseconds))
        self.node.create_subscription(ExecutorState, "chunk_executor_node/state", self.states.append, qos.STATE)
        self.node.create_subscription(ActionChunk, "openpi_policy_node/action_chunk", self.chunks.append, qos.CHUNK)
        self.node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)
        self.run = self.node.create_client(SetBool, "chunk_executor_node/run")
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self.node)

    def spin(self, seconds: float) -> None:
        """Lets time pass."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self._executor.spin_once(timeout_sec=0.05)

    def spin_until(self, count: int, process: subprocess.Popen[bytes]) -> None:
        """Until that many chunks came.

        Raises:
            RuntimeError: they do not come, or the process ends.
        """
        end = time.monotonic() + _START_S
        while len(self.chunks) < count:
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError("The policy node sends no chunks; start it alone to see why.")
            self.spin(0.2)

    def reported(self, figure: str) -> dict[str, float]:
        """Quantiles that a node reports of itself, ms."""
        return {quantile: self.figures.get(f"{figure}_{quantile}_ms", float("nan")) for quantile in ("p50", "p99")}

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if status.name.endswith(("chunk_executor_node", "openpi_policy_node")):
                for value in status.values:
                    with contextlib.suppress(ValueError):
                        self.figures[value.key] = float(value.value)


def measure_executor(args: Args) -> dict[str, Any]:
    """Policy node and executor as they ship."""
    bench = Bench()
    policy = {"backend": "local", "config": args.config, "request_interval": args.request_interval}
    with _node("openpi_policy_node", policy) as process, _node("chunk_executor_node", _LENIENT):
        bench.spin_until(5, process)
        bench.states.clear()
        bench.chunks.clear()
        bench.spin(args.seconds)
    bench.node.destroy_node()
    late = [state.tick_jitter_ms for state in bench.states]
    return {
        "ticks": len(late),
        "chunks": len(bench.chunks),
        "inference_ms": _quantiles([chunk.inference_ms for chunk in bench.chunks]),
        "tick_jitter_ms": _quantiles(late),
        "observation_to_request_ms": bench.reported("observation_to_request"),
        "chunk_to_command_ms": bench.reported("chunk_to_command"),
        "starved_ticks": bench.states[-1].starved_ticks - bench.states[0].starved_ticks,
    }


def measure_broker(args: Args) -> dict[str, Any]:
    """The plain broker: one loop for everything."""
    bench = Bench()
    command = [sys.executable, "-m", "openpi_ros.plain_broker", str(args.seconds), args.config]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=_environment()) as process:
        while process.poll() is None:
            bench.spin(0.2)
        assert process.stdout is not None
        printed = process.stdout.read().splitlines()
    if process.returncode:
        raise RuntimeError("The plain broker's process failed; what it printed stands above.")
    figures = json.loads(printed[-1])
    bench.node.destroy_node()
    period_ms = bench.robot.period_ns / 1e6
    late = np.array(figures["late_ms"])
    return {
        "ticks": len(late),
        "chunks": len(figures["around_ms"]),
        "tick_jitter_ms": _quantiles(late),
        "observation_to_request_ms": _quantiles(figures["around_ms"]),
        "starved_ticks": int(args.seconds * 1e3 / period_ms) - len(late),
    }


def table(ours: dict[str, Any], broker: dict[str, Any]) -> str:
    """Markdown: p50 / p99 / max of both."""
    names = dict.fromkeys([*ours, *broker])
    rows = [f"| {name} | {_show(ours.get(name))} | {_show(broker.get(name))} |" for name in names]
    return "\n".join(["| figure | executor | plain broker |", "|---|---|---|", *rows])


def main(args: Args) -> int:
    """Runs both and prints the table."""
    os.environ.setdefault("ROS_DOMAIN_ID", str(random.randint(1, 100)))
    rclpy.init()
    try:
        ours, broker = measure_executor(args), measure_broker(args)
    finally:
        rclpy.try_shutdown()
    print(table(ours, broker))
    if args.json:
        Path(args.json).write_text(json.dumps({"executor": ours, "plain_broker": broker}, indent=2) + "\n")
    return 0


@contextlib.contextmanager
def _node(module: str, parameters: dict[str, Any]) -> Iterator[subprocess.Popen[bytes]]:
    settings = [part for name, value in parameters.items() for part in ("-p", f"{name}:={json.dumps(value)}")]
    command = [sys.executable, "-m", f"openpi_ros.{module}", "--ros-args", "--log-level", "warn", *settings]
    process = subprocess.Popen(command, env=_environment())
    try:
        yield process
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)
        process.kill()
        process.wait()


def _environment() -> dict[str, str]:
    return os.environ | {"JAX_PLATFORMS": os.environ.get("JAX_PLATFORMS", "cpu")}


def _quantiles(values: Any) -> dict[str, float]:
    array = np.asarray(values, np.float64)
    p50, p99 = np.quantile(array, [0.5, 0.99])
    return {"p50": float(p50), "p99": float(p99), "max": float(array.max())}


def _show(value: Any) -> str:
    if isinstance(value, dict):
        return " / ".join(f"{number:.2f}" for number in value.values())
    return "" if value is None else str(value)
