"""Published packages that our wire format must agree with, each in a virtual environment of its own."""

import contextlib
import functools
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import filelock
import pytest

OPENPI = ("openpi-client==0.1.2", "openpi-server==0.1.0", "typing_extensions")
POSITRONIC = ("positronic-model-server==0.3.1", "websockets")


@functools.cache
def interpreter(name: str, requirements: Sequence[str]) -> str:
    """Python of the environment `name`, made when it is not there; skips the test where it cannot be installed."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "openpi-ros2-tests"
    environment = cache / name
    python, complete = environment / "bin" / "python", environment / "complete"
    cache.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(cache / f"{name}.lock", timeout=240):
        if not complete.exists() or complete.read_text() != "\n".join(requirements):
            _install(environment, python, requirements)
            complete.write_text("\n".join(requirements))
    return str(python)


def _install(environment: Path, python: Path, requirements: Sequence[str]) -> None:
    uv = shutil.which("uv") or str(Path(sys.executable).parent / "uv")
    commands = [
        [uv, "venv", "-q", "--clear", "--python", "3.11", str(environment)],
        [uv, "pip", "install", "-q", "--python", str(python), *requirements],
    ]
    for command in commands:
        try:
            subprocess.run(command, check=True, capture_output=True, timeout=200, text=True)
        except (OSError, subprocess.SubprocessError) as error:
            pytest.skip(f"{', '.join(requirements)} cannot be installed here: {getattr(error, 'stderr', '') or error}")


def run(python: str, script: str, *arguments: str) -> str:
    """Output of a script that ends by itself."""
    done = subprocess.run([python, "-c", script, *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextlib.contextmanager
def running(python: str, script: str, *arguments: str) -> Iterator[None]:
    """A script that runs until the block ends; the block begins once it has printed a line."""
    process = subprocess.Popen([python, "-c", script, *arguments], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline(), f"the peer ended with status {process.wait()}"
        yield
    finally:
        process.terminate()
        process.wait(10)
        process.stdout.close()
