import random
import threading
from collections.abc import Iterator

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: source setup/env.sh")
pytest.importorskip("openpi_msgs.msg", reason="needs the built workspace: make setup")

import rclpy
from rclpy.node import Node
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray

from openpi_ros import qos
from openpi_ros.graph_checkup import graph_findings
from openpi_ros.outputs.channels import SHADOW
from openpi_runtime.findings import Level
from openpi_runtime.robots import load_robot

pytestmark = pytest.mark.ros
JOINTS = "/follower_left/joint_states"


@pytest.fixture
def peer(monkeypatch: pytest.MonkeyPatch) -> Iterator[Node]:
    """A node in a domain of this test's own."""
    monkeypatch.setenv("ROS_DOMAIN_ID", str(random.randint(1, 100)))
    context = rclpy.Context()
    rclpy.init(context=context)
    node = rclpy.create_node("driver", context=context)
    yield node
    node.destroy_node()
    rclpy.try_shutdown(context=context)


def test_a_dry_run_and_a_driver_that_does_not_stamp_are_told(peer: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("openpi_ros.graph_checkup._DISCOVERY_S", 0.3)
    peer.create_publisher(Float64MultiArray, SHADOW + "follower_left/commands", qos.COMMAND)
    joints = peer.create_publisher(JointState, "follower_left/joint_states", qos.SENSOR)
    done = threading.Event()

    def drive() -> None:
        while not done.wait(0.01):
            joints.publish(JointState(name=["waist"], position=[0.0]))

    driver = threading.Thread(target=drive)
    driver.start()
    try:
        for _ in range(20):  # a busy machine discovers late
            found = {finding.subject: finding for finding in graph_findings(load_robot("aloha"), "", 0.5)}
            if "/dry_run/follower_left/commands" in found and "zero" in found[JOINTS].text:
                break
    finally:
        done.set()
        driver.join()
    shadow = found["/dry_run/follower_left/commands"]
    assert (shadow.level, shadow.text) == (Level.OK, "dry run of driver: these commands reach no controller")
    assert "/follower_left/commands" not in found
    assert found[JOINTS].text == "its stamps are zero"
    assert found["/follower_right/joint_states"].text == "nobody publishes it"
