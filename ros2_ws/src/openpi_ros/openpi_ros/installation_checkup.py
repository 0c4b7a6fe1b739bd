"""Is everything installed that a robot needs? Asks Python, the ament index and the environment."""

import importlib.util
import os
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path

from ament_index_python.packages import PackageNotFoundError, get_package_prefix

from openpi_runtime.findings import Finding, Level
from openpi_runtime.robots import RobotSpec

# Module -> what misses it, and how to get it.
_MODULES = {
    "rclpy": ("every node", "make setup"),
    "openpi_msgs": ("every node", "make build"),
    "pinocchio": ("limits and kinematics", "make setup"),
    "jax": ("policy:=local", "make setup, or use policy:=remote"),
    "mujoco": ("the simulators", "make setup"),
}
_PACKAGES = ("openpi_ros", "openpi_msgs", "openpi_bringup", "openpi_description")
_PROFILE = "FASTRTPS_DEFAULT_PROFILES_FILE"
_MIN_SEGMENT = 8 << 20  # bytes; three 640x480 images in flight


def installation_findings(robot: RobotSpec) -> Iterator[Finding]:
    """One finding for each part of the installation."""
    for module, (user, source) in _MODULES.items():
        yield _present(f"Python module {module}", _has_module(module), f"{user} lacks it", source)
    for package in _PACKAGES:
        yield _present(f"ROS package {package}", _has_package(package), "the workspace is not built", "make build")
    yield from _drivers(robot)
    yield _profile()


def _drivers(robot: RobotSpec) -> Iterator[Finding]:
    if robot.controller == "interbotix":
        there = _has_module("interbotix_xs_msgs")
        source = "Install and source the Interbotix workspace; the simulator does without"
        yield _warn_missing("interbotix_xs_msgs", there, "the real robot cannot be commanded", source)
    if any(group.gripper and group.gripper.channel and group.gripper.channel.action for group in robot.groups):
        there = _has_module("control_msgs")
        source = "Install it (ros-jazzy-control-msgs) for the gripper's action"
        yield _warn_missing("control_msgs", there, "grippers are commanded on plain topics", source)


def _profile() -> Finding:
    """Whether Fast DDS has a shared-memory segment that holds images."""
    subject, advice = (
        "DDS profile",
        "Run `. setup/env.sh` in this shell, or set " + _PROFILE + " to config/fastdds.xml.",
    )
    path = os.environ.get(_PROFILE, "")
    if not Path(path).is_file():
        text = f"{_PROFILE} is {path!r}, no file: images are lost"
        return Finding(level=Level.ERROR, subject=subject, text=text, advice=advice)
    sizes = [int(node.text or 0) for node in ElementTree.parse(path).iter() if node.tag.endswith("segment_size")]
    if max(sizes, default=0) < _MIN_SEGMENT:
        text = f"{path} has no shared-memory segment of {_MIN_SEGMENT >> 20} MB: images are lost"
        return Finding(level=Level.WARN, subject=subject, text=text, advice=advice)
    return Finding(level=Level.OK, subject=subject, text=f"{path}, {max(sizes) >> 20} MB of shared memory")


def _has_module(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def _has_package(name: str) -> bool:
    try:
        get_package_prefix(name)
    except PackageNotFoundError:
        return False
    return True


def _present(subject: str, there: bool, text: str, source: str) -> Finding:
    if there:
        return Finding(level=Level.OK, subject=subject, text="installed")
    return Finding(level=Level.ERROR, subject=subject, text=f"not installed: {text}", advice=f"Install it: {source}.")


def _warn_missing(name: str, there: bool, text: str, advice: str) -> Finding:
    if there:
        return Finding(level=Level.OK, subject=f"ROS package {name}", text="installed")
    return Finding(level=Level.WARN, subject=f"ROS package {name}", text=f"not installed: {text}", advice=f"{advice}.")
