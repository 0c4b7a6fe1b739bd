"""Whole stacks as users start them, over real DDS in a domain of their own."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

OVER_DDS = tuple(Path(__file__).parent / name for name in ("faults", "replay", "ros"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if any(folder in item.path.parents for folder in OVER_DDS):
            item.add_marker(pytest.mark.ros)


class Running:
    """A module of the project, or a script of the tests, in a process group of its own."""

    def __init__(self, module: str, arguments: tuple[str, ...], folder: Path, domain: int) -> None:
        self.log = folder / f"{Path(module).name}.log"
        program = [module] if module.endswith(".py") else ["-m", module]
        with self.log.open("wb") as file:
            self.process = subprocess.Popen(
                [sys.executable, *program, *arguments],
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=os.environ | {"ROS_DOMAIN_ID": str(domain)},
                cwd=folder,
            )
        self.family: set[int] = set()

    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def nodes(self) -> dict[str, int]:
        """Name -> process id of the stack's nodes that are alive."""
        found = {}
        with contextlib.suppress(psutil.NoSuchProcess):
            for child in psutil.Process(self.process.pid).children(recursive=True):
                with contextlib.suppress(psutil.NoSuchProcess):
                    words = child.cmdline()
                    module = next((word for word in words if word.startswith("openpi_ros.")), "")
                    if module and child.status() != psutil.STATUS_ZOMBIE:
                        found[module.removeprefix("openpi_ros.")] = child.pid
        self.family |= set(found.values())
        return found

    def wait(self, holds: Callable[[], bool], timeout_s: float, what: str) -> None:
        end = time.monotonic() + timeout_s
        while not holds():
            assert time.monotonic() < end, f"Not within {timeout_s} s: {what}.\n{self.output()[-3000:]}"
            ended = self.process.poll() is not None
            assert not ended or holds(), f"Ended without this: {what}.\n{self.output()[-3000:]}"
            time.sleep(0.05)

    def wait_for_text(self, text: str, timeout_s: float = 120.0) -> None:
        self.wait(lambda: text in self.output(), timeout_s, f"{text!r} in the output")

    def wait_for_end(self, timeout_s: float = 60.0) -> int:
        self.wait(lambda: self.process.poll() is not None, timeout_s, "the command ends")
        return self.process.returncode

    def survivors(self) -> list[int]:
        """Processes of the stack that are still alive."""
        return [pid for pid in self.family if psutil.pid_exists(pid)]

    def wait_for_nodes_to_end(self, timeout_s: float = 15.0) -> None:
        """After the command itself was killed."""
        end = time.monotonic() + timeout_s
        while self.survivors():
            assert time.monotonic() < end, f"Alive {timeout_s} s after the command: {self.survivors()}."
            time.sleep(0.05)

    def close(self) -> None:
        self.nodes()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        for pid in self.survivors():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(10)


@pytest.fixture
def domain() -> int:
    """The ROS domain of this test."""
    return random.randint(1, 100)


@pytest.fixture
def start(tmp_path: Path, domain: int) -> Iterator[Callable[..., Running]]:
    """Starts a module of the project or a script; whatever it leaves is killed."""
    started: list[Running] = []

    def run(module: str, *arguments: str) -> Running:
        started.append(Running(module, arguments, tmp_path, domain))
        return started[-1]

    yield run
    for running in started:
        running.close()


@pytest.fixture
def driver_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets the processes that the test starts find the interfaces in tests/ros_packages."""
    prefix = Path(__file__).parents[1] / "out/test_packages/install"
    if not prefix.is_dir():
        pytest.skip("needs the drivers' interfaces: make test-packages")
    python = f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
    for variable, folder in (("AMENT_PREFIX_PATH", ""), ("LD_LIBRARY_PATH", "lib"), ("PYTHONPATH", python)):
        monkeypatch.setenv(variable, f"{prefix / folder}{os.pathsep}{os.environ.get(variable, '')}")
