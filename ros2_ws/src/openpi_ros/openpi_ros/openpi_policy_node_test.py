"""The policy node and what it is made of, in this process, in front of made-up sensors."""

import random
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: source setup/env.sh")
pytest.importorskip("openpi_msgs.msg", reason="needs the built workspace: make setup")

import rclpy
from builtin_interfaces.msg import Duration
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from openpi_msgs.action import RunTask
from openpi_msgs.msg import ActionChunk, ExecutorState
from openpi_msgs.srv import LoadPolicy, SetPrompt
from rclpy.action import ActionClient
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import Bool
from std_srvs.srv import SetBool
from visualization_msgs.msg import MarkerArray

from openpi.serving.websocket_policy_server import WebsocketPolicyServer
from openpi_ros import lifecycle, qos, task_server
from openpi_ros.backends.hold import HoldBackend
from openpi_ros.conversions import chunk_from_message, image_message, joint_state_message, time_ns
from openpi_ros.openpi_policy_node import PolicyNode
from openpi_runtime.robots import load_robot

pytestmark = pytest.mark.ros
ROBOT = load_robot("aloha")
CAMERAS = [camera for camera in ROBOT.cameras if camera.required]


class HoldingPolicy:
    """Holds the robot where it is."""

    def infer(self, obs: dict[str, Any]) -> dict[str, Any]:
        return {"actions": np.tile(np.asarray(obs["state"], np.float32), (50, 1))}


class Bench:
    """A policy node with backend hold, and cameras and arms that publish at 10 Hz."""

    def __init__(self, **parameters: Any) -> None:
        self.context = rclpy.Context()
        rclpy.init(context=self.context, domain_id=random.randint(1, 100))
        overrides = [Parameter(name, value=value) for name, value in ({"backend": "hold"} | parameters).items()]
        self.node = PolicyNode(context=self.context, parameter_overrides=overrides)
        self.peer = rclpy.create_node("peer", context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.executor.add_node(self.peer)
        self.chunks: list[ActionChunk] = []
        self.markers: list[MarkerArray] = []
        self.peer.create_subscription(ActionChunk, "openpi_policy_node/action_chunk", self.chunks.append, qos.CHUNK)
        self.peer.create_subscription(MarkerArray, "openpi_policy_node/predicted_path", self.markers.append, qos.CHUNK)
        self._cameras = [(c, self.peer.create_publisher(Image, c.topic, qos.SENSOR)) for c in CAMERAS]
        self._arms = [(g, self.peer.create_publisher(JointState, g.joint_states, qos.SENSOR)) for g in ROBOT.groups]
        self._state = self.peer.create_publisher(ExecutorState, "chunk_executor_node/state", qos.STATE)
        self.peer.create_timer(0.1, self._publish)
        self.silent = self.unstamped = ""

    def _publish(self) -> None:
        now_ns = self.peer.get_clock().now().nanoseconds
        self._state.publish(ExecutorState(mode=ExecutorState.RUNNING))
        for group, publisher in self._arms:
            joints = dict.fromkeys(group.joints, 0.25) | {"left_finger": 0.058}
            publisher.publish(joint_state_message(joints, now_ns))
        for camera, publisher in self._cameras:
            if camera.name != self.silent:
                stamp_ns = 0 if camera.name == self.unstamped else now_ns
                publisher.publish(image_message(np.zeros((24, 32, 3), np.uint8), stamp_ns, camera.frame))

    def spin_until(self, holds: Callable[[], Any], what: str, timeout_s: float = 60.0) -> None:
        end = time.monotonic() + timeout_s
        while not holds():
            assert time.monotonic() < end, f"Not within {timeout_s} s: {what}"
            self.executor.spin_once(timeout_sec=0.1)

    def call(self, kind: type, name: str, request: Any) -> Any:
        client = self.peer.create_client(kind, name)
        self.spin_until(client.service_is_ready, name)
        future = client.call_async(request)
        self.spin_until(future.done, f"an answer of {name}")
        return future.result()

    def close(self) -> None:
        self.node.trigger_shutdown()
        self.executor.shutdown()
        self.node.destroy_node()
        self.peer.destroy_node()
        rclpy.try_shutdown(context=self.context)


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.close()


def test_sensors_become_chunks_and_services_change_them(bench: Bench) -> None:
    assert lifecycle.bring_up(bench.node)
    bench.spin_until(lambda: bench.chunks and bench.markers, "a chunk and its path")
    chunk = chunk_from_message(bench.chunks[0])
    assert chunk.actions.shape == (50, 14)
    assert chunk.action_names == ROBOT.action_names
    assert chunk.prompt == ROBOT.default_prompt
    expected = [0.25] * 6 + [1.0]
    np.testing.assert_allclose(chunk.actions, np.tile(expected * 2, (50, 1)), atol=1e-6)
    assert time_ns(bench.chunks[0].header.stamp) <= bench.peer.get_clock().now().nanoseconds
    assert [marker.ns for marker in bench.markers[0].markers] == ["left", "right"]

    answer = bench.call(SetPrompt, "openpi_policy_node/set_prompt", SetPrompt.Request(prompt="wave"))
    assert answer.success
    bench.spin_until(lambda: bench.chunks[-1].prompt == "wave", "a chunk for the new prompt")

    # The policy in use goes on while another is loaded, and stays when that fails.
    count = len(bench.chunks)
    request = LoadPolicy.Request(config="pi0_aloha_sim_small", checkpoint="/nowhere/at/all")
    answer = bench.call(LoadPolicy, "openpi_policy_node/load_policy", request)
    assert not answer.success
    assert "/nowhere/at/all" in answer.message
    bench.spin_until(lambda: len(bench.chunks) > count, "a chunk of the policy that stayed")


class Tasks:
    """A client of the action, and an executor that runs when it is told to."""

    def __init__(self, bench: Bench, server: Node | None = None) -> None:
        """server: the node that has the executor's service; one that nobody spins never answers."""
        self._bench = bench
        self.switched: list[bool] = []
        self.feedback: list[RunTask.Feedback] = []
        self._client = ActionClient(bench.peer, RunTask, "openpi_policy_node/run_task")
        (server or bench.peer).create_service(SetBool, "chunk_executor_node/run", self._on_run)
        self.success = bench.peer.create_publisher(Bool, "sim/success", qos.STATE)

    def _on_run(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        self.switched.append(request.data)
        response.success = True
        return response

    def start(self, seconds: int = 0) -> Any:
        """The goal's handle."""
        return self.start_together(1, seconds)[0]

    def start_together(self, number: int, seconds: int = 0) -> list[Any]:
        """The handles of so many goals, sent before the first is answered."""
        self._bench.spin_until(self._client.server_is_ready, "the action server")
        goal = RunTask.Goal(prompt="wave", time_limit=Duration(sec=seconds))
        told = lambda message: self.feedback.append(message.feedback)  # noqa: E731
        futures = [self._client.send_goal_async(goal, told) for _ in range(number)]
        self._bench.spin_until(lambda: all(future.done() for future in futures), "the goals' answers")
        return [future.result() for future in futures]

    def result(self, handle: Any) -> RunTask.Result:
        future = handle.get_result_async()
        self._bench.spin_until(future.done, "the task's end")
        return future.result().result


def test_a_task_ends_by_its_time_by_success_or_when_it_is_cancelled(bench: Bench) -> None:
    assert lifecycle.bring_up(bench.node)
    tasks = Tasks(bench)

    timed = tasks.result(tasks.start(seconds=1))
    assert (timed.success, timed.outcome) == (True, "time_limit")
    assert timed.steps > 0
    assert tasks.feedback[-1].latency_ms > 0
    assert bench.chunks[-1].prompt == "wave"

    running, second = tasks.start_together(2)
    assert (running.accepted, second.accepted) == (True, False)  # one at a time
    assert not tasks.start().accepted
    tasks.success.publish(Bool(data=True))
    assert tasks.result(running).outcome == "success"

    running = tasks.start()
    bench.spin_until(running.cancel_goal_async().done, "the cancellation's answer")
    cancelled = tasks.result(running)
    assert (cancelled.success, cancelled.outcome) == (False, "cancelled")
    assert tasks.switched == [True, False] * 3


def test_a_task_fails_when_the_executor_does_not_answer(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task_server, "_ANSWER_S", 0.3)
    assert lifecycle.bring_up(bench.node)
    hung = rclpy.create_node("hung", context=bench.context)
    tasks = Tasks(bench, hung)
    for _ in range(2):  # and the next task is taken
        failed = tasks.result(tasks.start())
        assert not failed.success
        assert "chunk_executor_node/run did not answer within 0.3 s" in failed.outcome
    hung.destroy_node()


def test_an_answer_that_is_no_number_is_a_failure_that_is_told(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HoldBackend, "infer", lambda *_: {"actions": np.full((50, 14), np.nan)})
    assert lifecycle.bring_up(bench.node)
    bench.spin_until(lambda: "NaN" in bench.node._diagnose()[1], "the failure is told")
    assert not bench.chunks


def test_a_server_that_still_loads_is_told_in_the_diagnostics() -> None:
    """And not as one that is not there; its first chunk comes when it is ready."""
    loaded, told = threading.Event(), []
    server = WebsocketPolicyServer(lambda: loaded.wait(60) and HoldingPolicy(), "127.0.0.1", 0, {"action_dim": 14})
    threading.Thread(target=server.serve_forever, daemon=True).start()
    assert server.wait_started()
    bench = Bench(backend="remote", host="127.0.0.1", port=server.port, request_timeout=0.5)
    own = lambda array: told.extend(s for s in array.status if s.name == "openpi_policy_node")  # noqa: E731
    bench.peer.create_subscription(DiagnosticArray, "/diagnostics", own, 50)
    try:
        assert lifecycle.bring_up(bench.node)
        bench.spin_until(lambda: told and "it may be loading" in told[-1].message, "loading is told")
        assert "is there, but was not ready within 0.5 s" in told[-1].message
        assert told[-1].level == DiagnosticStatus.ERROR
        assert not bench.chunks
        loaded.set()
        bench.spin_until(lambda: bench.chunks, "a chunk of the server that has loaded")
        bench.spin_until(lambda: told[-1].level == DiagnosticStatus.OK, "the diagnostics are well again")
    finally:
        loaded.set()
        server.shutdown()
        bench.close()


def test_a_camera_that_does_not_stamp_is_named_with_the_reason(bench: Bench) -> None:
    bench.unstamped = "cam_high"
    assert lifecycle.bring_up(bench.node)
    bench.spin_until(lambda: "cam_high cannot be used" in bench.node._diagnose()[1], "the camera is named")
    assert "its stamps are zero: its driver must fill in header.stamp" in bench.node._diagnose()[1]
    assert not bench.chunks


def test_no_chunk_is_made_without_a_camera_and_the_lack_is_named(bench: Bench) -> None:
    bench.silent = "cam_left_wrist"
    assert lifecycle.bring_up(bench.node)
    end = time.monotonic() + 1.5
    bench.spin_until(lambda: time.monotonic() > end, "time passes")
    assert not bench.chunks
    assert "cam_left_wrist" in bench.node._diagnose()[1]


def test_cleaning_up_removes_all_that_configuring_made(bench: Bench) -> None:
    before = set(bench.node._entities())
    assert lifecycle.bring_up(bench.node)
    assert len(bench.node._entities()) > len(before)
    bench.node.trigger_deactivate()
    bench.node.trigger_cleanup()
    assert set(bench.node._entities()) == before
    assert lifecycle.bring_up(bench.node)
    bench.spin_until(lambda: bench.chunks, "a chunk after the second start")


@pytest.mark.parametrize(
    ("parameters", "told"),
    [
        ({"camera_max_age": -1.0}, "Parameter 'camera_max_age' is -1.0, but must be a double in s, from 0.01 to 60"),
        ({"camera_max_ages": 1.0}, "did you mean 'camera_max_age'?"),
        ({"cameras": ["cam_top"]}, "has no camera 'cam_top'"),
        ({"robot": "alhoa"}, "There is no robot 'alhoa'"),
    ],
)
def test_a_wrong_parameter_fails_configuration_by_a_sentence(parameters: dict[str, Any], told: str) -> None:
    bench = Bench(**parameters)
    try:
        assert not lifecycle.bring_up(bench.node)
        assert told in bench.node.failure
    finally:
        bench.close()
