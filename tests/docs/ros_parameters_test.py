"""docs/ros-parameters.md says what the nodes declare."""

from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: source setup/env.sh")
pytest.importorskip("openpi_msgs.msg", reason="needs the built workspace: make setup")

from openpi_ros.reference import parameter_tables


def test_the_page_is_up_to_date():
    page = Path(__file__).parents[2] / "docs/ros-parameters.md"
    assert page.read_text() == parameter_tables(), "run `python -m openpi_ros.reference > docs/ros-parameters.md`"
