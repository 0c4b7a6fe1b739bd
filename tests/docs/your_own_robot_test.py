"""docs/your-own-robot.md works exactly as it is printed: its files, its commands, what they answer."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: source setup/env.sh")
pytest.importorskip("openpi_msgs.msg", reason="needs the built workspace: make setup")

pytestmark = pytest.mark.ros

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "your-own-robot.md").read_text()
FILES = dict(re.findall(r'```\w+ title="([\w.]+)"\n(.*?)```', PAGE, re.DOTALL))
LONGEST_S = 90.0


def commands() -> list[tuple[str, list[str]]]:
    """Each command of the page, and the lines that are shown below it."""
    found: list[tuple[str, list[str]]] = []
    for block in re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL):
        for line in block.splitlines():
            if line.startswith("$ "):
                found.append((line.removeprefix("$ "), []))
            else:
                found[-1][1].append(line)
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the page's files."""
    folder = tmp_path_factory.mktemp("tutorial")
    for name, text in FILES.items():
        (folder / name).write_text(text)
    return folder


def missing(shown: list[str], log: Path) -> list[str]:
    """Lines that the output lacks, or has in another order."""
    place, text = 0, " ".join(log.read_text(errors="replace").split())
    for i, line in enumerate(shown):
        at = text.find(" ".join(line.split()), place)
        if at < 0:
            return shown[i:]
        place = at
    return []


@pytest.mark.parametrize(("command", "shown"), commands(), ids=lambda value: value[:50] if type(value) is str else "")
def test_a_command_answers_what_is_shown(folder: Path, domain: int, command: str, shown: list[str]) -> None:
    log = folder / "output.log"
    environment = os.environ | {"PATH": f"{ROOT}/.venv/bin:{os.environ['PATH']}", "ROS_DOMAIN_ID": str(domain)}
    environment |= {"COLUMNS": "200", "JAX_PLATFORMS": "cpu"}
    with log.open("wb") as file:
        process = subprocess.Popen(
            ["bash", "-c", command], cwd=folder, env=environment, stdout=file, stderr=file, start_new_session=True
        )
    end = time.monotonic() + LONGEST_S
    while missing(shown, log) and process.poll() is None and time.monotonic() < end:
        time.sleep(0.1)
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGINT)  # Ctrl-C
    process.wait(30)
    assert shown
    assert not missing(shown, log), log.read_text(errors="replace")


def test_the_urdf_is_the_manufacturers_arm(folder: Path) -> None:
    """Forward kinematics against the product of the Denavit-Hartenberg matrices."""
    from openpi_runtime.kinematics import Kinematics

    table = [  # d, a, alpha, as the page says
        (0.1625, 0.0, np.pi / 2),
        (0.0, -0.425, 0.0),
        (0.0, -0.3922, 0.0),
        (0.1333, 0.0, np.pi / 2),
        (0.0997, 0.0, -np.pi / 2),
        (0.0996, 0.0, 0.0),
    ]
    kinematics = Kinematics.from_file(folder / "ur5e.urdf.xacro")
    for angles in np.random.default_rng(0).uniform(-3, 3, (20, 6)):
        pose = np.eye(4)
        for angle, row in zip(angles, table, strict=True):
            pose = pose @ denavit_hartenberg(angle, *row)
        joints = dict(zip(kinematics.joint_names, angles, strict=True))
        np.testing.assert_allclose(kinematics.forward(joints, "flange"), pose, atol=1e-9)


def denavit_hartenberg(theta: float, d: float, a: float, alpha: float) -> np.ndarray:
    """Turn and shift along z, then shift and turn along x."""
    ct, st, ca, sa = np.cos(theta), np.sin(theta), np.cos(alpha), np.sin(alpha)
    return np.array([[ct, -st * ca, st * sa, a * ct], [st, ct * ca, -ct * sa, a * st], [0, sa, ca, d], [0, 0, 0, 1.0]])


def test_the_page_has_files_and_commands() -> None:
    assert set(FILES) == {"ur5e.urdf.xacro", "ur5e.yaml", "ur5e_policy.py", "check.py"}
    assert len(commands()) >= 6
