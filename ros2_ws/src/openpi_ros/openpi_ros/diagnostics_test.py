from collections.abc import Iterator

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: source setup/env.sh")

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.node import Node

from openpi_ros import diagnostics


@pytest.fixture
def node() -> Iterator[Node]:
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=97)
    node = rclpy.create_node("arm", context=context, namespace="lab")
    yield node
    node.destroy_node()
    rclpy.try_shutdown(context=context)


def test_a_change_is_published_at_once_and_the_same_once_a_second(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    report: list[diagnostics.Report] = [(diagnostics.OK, "active", {"rate_hz": 49.98765, "mode": "RUNNING"})]
    reporter = diagnostics.Diagnostics(node, "aloha", lambda: report[0])
    sent: list[DiagnosticArray] = []
    monkeypatch.setattr(reporter, "_publisher", type("Sink", (), {"publish": lambda _, m: sent.append(m)})())
    for _ in range(11):  # looked at ten times a second
        reporter._tick()
    assert len(sent) == 2
    status = sent[0].status[0]
    assert (status.level, status.name, status.hardware_id, status.message) == (
        diagnostics.OK,
        "lab/arm",
        "aloha",
        "active",
    )
    assert {value.key: value.value for value in status.values} == {"rate_hz": "49.99", "mode": "RUNNING"}
    report[0] = (diagnostics.ERROR, "cam_high is silent", {})
    reporter._tick()
    assert sent[-1].status[0].message == "cam_high is silent"
    assert len(sent) == 3
