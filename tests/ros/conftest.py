"""Tests over real DDS."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: source setup/env.sh")
pytest.importorskip("openpi_msgs.msg", reason="needs the built workspace: make setup")

import rclpy
from rcl_interfaces.srv import SetParameters
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from std_srvs.srv import Trigger


class Client:
    """Keeps the newest message of every topic of a simulator, and calls its services."""

    def __init__(self, domain: int, topics: dict[str, tuple[type, Any]]) -> None:
        self.context = rclpy.Context()
        rclpy.init(context=self.context, domain_id=domain)
        self.node = rclpy.create_node("client", context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.newest: dict[str, Any] = {}
        for topic, (kind, profile) in topics.items():
            self.node.create_subscription(kind, topic, lambda m, t=topic: self.newest.update({t: m}), profile)

    def wait(self, holds: Callable[[], bool], what: str, timeout_s: float = 120.0) -> None:
        end = time.monotonic() + timeout_s
        while not holds():
            assert time.monotonic() < end, f"Not within {timeout_s} s: {what}"
            self.executor.spin_once(timeout_sec=0.1)

    def call(self, kind: type, name: str, request: object) -> Any:
        client = self.node.create_client(kind, name)
        self.wait(client.service_is_ready, name)
        future = client.call_async(request)
        self.wait(future.done, name)
        return future.result()

    def joints(self, topic: str) -> dict[str, float]:
        message = self.newest[topic]
        return dict(zip(message.name, message.position, strict=True))

    def reset(self, simulator: str, seed: int) -> tuple[bool, str]:
        """Whether an episode with this seed began, and what the simulator says."""
        request = SetParameters.Request(parameters=[Parameter("seed", value=seed).to_parameter_msg()])
        answer = self.call(SetParameters, f"{simulator}/set_parameters", request)
        assert answer.results[0].successful
        answer = self.call(Trigger, f"{simulator}/reset", Trigger.Request())
        return answer.success, answer.message

    def close(self) -> None:
        self.executor.shutdown()
        self.node.destroy_node()
        rclpy.try_shutdown(context=self.context)


@pytest.fixture
def connect(domain: int) -> Iterator[Callable[..., Client]]:
    """connect(topics) makes a client."""
    clients: list[Client] = []

    def make(topics: dict[str, tuple[type, Any]]) -> Client:
        clients.append(Client(domain, topics))
        return clients[-1]

    yield make
    for client in clients:
        client.close()
