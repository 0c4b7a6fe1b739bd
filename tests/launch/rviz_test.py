"""The displays of each stack show frames and topics that the stack has."""

import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("pinocchio", reason="robot descriptions need `pin`")

from openpi_runtime.kinematics import robot_description
from openpi_runtime.robots import load_robot

FOLDER = Path(__file__).parents[2] / "ros2_ws/src/openpi_bringup/rviz"
OWN = {"robot_description", "openpi_policy_node/predicted_path"}


@pytest.mark.parametrize("robot", ["aloha", "droid", "libero"])
def test_frames_and_topics_are_the_robots(robot: str) -> None:
    spec = load_robot(robot)
    shown: dict[str, Any] = yaml.safe_load((FOLDER / f"{robot}.rviz").read_text())["Visualization Manager"]
    links = [link.get("name") for link in ElementTree.fromstring(robot_description(spec.urdf_path)).iter("link")]
    assert shown["Global Options"]["Fixed Frame"] in links
    assert "libero_world" not in links  # or poses of LIBERO would be drawn beside the arm
    topics = {
        display[key]["Value"]
        for display in shown["Displays"]
        for key in ("Topic", "Description Topic")
        if key in display
    }
    assert "robot_description" in topics
    assert topics - OWN <= {camera.topic for camera in spec.cameras}
    assert len(topics - OWN) >= 2
