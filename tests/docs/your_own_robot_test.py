"""docs/your-own-robot.md works exactly as it is printed: its files, its commands, what they answer."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: source setup/env.sh")
pytest.importorskip("openpi_msgs.msg", reason="needs the built workspace: make setup")

pytestmark = pytest.mark.ros

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "your-own-robot.md").read_text()
BEFORE, DEMONSTRATIONS = PAGE.split("## 5. ")
FILES = dict(re.findall(r'```\w+ title="([\w.]+)"\n(.*?)```', PAGE, re.DOTALL))
LONGEST_S = 300.0

Command = tuple[str, list[str]]  # as printed, and the lines that are shown below it


def commands(text: str) -> list[Command]:
    """Each command in a part of the page."""
    found: list[Command] = []
    for block in re.findall(r"```console\n(.*?)```", text, re.DOTALL):
        for line in block.splitlines():
            if line.startswith("$ "):
                found.append((line.removeprefix("$ "), []))
            else:
                found[-1][1].append(line)
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the page's files."""
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def missing(shown: list[str], log: Path) -> list[str]:
    """Lines that the output lacks, or has in another order."""
    place, text = 0, " ".join(log.read_text(errors="replace").split())
    for i, line in enumerate(shown):
        at = text.find(" ".join(line.split()), place)
        if at < 0:
            return shown[i:]
        place = at
    return []


@pytest.fixture
def type_in(folder: Path, domain: int) -> Iterator[Callable[[str, list[str]], str]]:
    """Runs a command as one who reads the page would; what ends in & goes on beside the next. Returns its output."""
    environment = os.environ | {"PATH": f"{ROOT}/.venv/bin:{os.environ['PATH']}", "ROS_DOMAIN_ID": str(domain)}
    environment |= {"COLUMNS": "200", "JAX_PLATFORMS": "cpu", "JAX_COMPILATION_CACHE_DIR": str(folder / "compiled")}
    begun: list[subprocess.Popen[bytes]] = []

    def run(command: str, shown: list[str]) -> str:
        log = folder / f"output_{len(begun)}.log"
        beside = command.endswith(" &")
        with log.open("wb") as file:
            words = ["bash", "-c", command.removesuffix(" &")]
            process = subprocess.Popen(
                words, cwd=folder, env=environment, stdout=file, stderr=file, start_new_session=True
            )
        begun.append(process)
        end = time.monotonic() + LONGEST_S
        while missing(shown, log) and process.poll() is None and time.monotonic() < end:
            time.sleep(0.1)
        if not beside:
            finish(process, command)
        output = log.read_text(errors="replace")
        assert not missing(shown, log), output
        return output

    yield run
    for process in begun:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def finish(process: subprocess.Popen[bytes], command: str) -> None:
    """Presses Ctrl-C, where the command is still running, at the moment that the page names."""
    delay = re.search(r"# Ctrl-C after (\d+) s$", command)
    if process.poll() is None:
        time.sleep(float(delay[1]) if delay else 0.0)
        os.killpg(process.pid, signal.SIGINT)
    process.wait(30)


@pytest.mark.parametrize(
    ("command", "shown"), commands(BEFORE), ids=lambda value: value[:50] if type(value) is str else ""
)
def test_a_command_answers_what_is_shown(type_in, command: str, shown: list[str]) -> None:
    assert shown
    type_in(command, shown)


def up_to(word: str) -> list[Command]:
    """The commands on demonstrations, up to the first one with this word."""
    every = commands(DEMONSTRATIONS)
    return every[: 1 + next(i for i, (command, _) in enumerate(every) if word in command)]


@pytest.mark.timeout(600)
def test_a_demonstration_becomes_batches_of_a_config(type_in, folder: Path, monkeypatch) -> None:
    from openpi.training import config, data_loader

    for command, shown in up_to("norm-stats"):
        type_in(command, shown)
    monkeypatch.chdir(folder)
    small = config.get_config("ur5e_small.py")
    observation, actions = next(iter(data_loader.create_data_loader(small, num_batches=1)))
    assert actions.shape == (4, 20, 8)
    swings = np.asarray(actions)[:, :, 0]
    assert np.ptp(swings) > 0.2, "normalised, relative to the state"
    pictures = np.asarray(observation.images["base_0_rgb"])
    assert pictures.shape == (4, 224, 224, 3)
    assert pictures.std() > 0.1


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_demonstration_becomes_a_policy_that_commands(type_in) -> None:
    for command, shown in up_to("run.py"):
        output = type_in(command, shown)
    (chunk,) = re.findall(r"last chunk executed: (\d+)", output)
    assert int(chunk) > 0


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
    assert set(FILES) == {
        "ur5e.urdf.xacro",
        "ur5e.yaml",
        "ur5e_policy.py",
        "check.py",
        "stand_in.py",
        "ur5e_small.py",
        "run.py",
    }
    assert len(commands(BEFORE)) >= 6
    assert up_to("run.py") == commands(DEMONSTRATIONS)
