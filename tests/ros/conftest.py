"""Tests over real DDS."""

from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: source setup/env.sh")
pytest.importorskip("openpi_msgs.msg", reason="needs the built workspace: make setup")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.ros)
