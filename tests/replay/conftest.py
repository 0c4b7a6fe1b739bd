"""Real robots' messages over real DDS; tests may import what lies beside them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: source setup/env.sh")
pytest.importorskip("openpi_msgs.msg", reason="needs the built workspace: make setup")

FOLDER = Path(__file__).parent
sys.path.append(str(FOLDER))


@pytest.fixture
def play(start: Any, domain: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[Any], None]:
    """Plays the drivers of a robot, given as a spec, in the test's domain."""
    from recorded_drivers import write_bag

    monkeypatch.setenv("ROS_DOMAIN_ID", str(domain))

    def begin(robot: Any) -> None:
        write_bag(robot, tmp_path / "drivers")
        start(str(FOLDER / "player.py"), str(tmp_path / "drivers"))

    return begin
