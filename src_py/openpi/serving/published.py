"""The published openpi packages, installed apart from ours, to compare with and to prove the protocol against."""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import filelock

OPENPI = ("openpi-client==0.1.2", "openpi-server==0.1.0", "typing_extensions")


def interpreter(name: str, requirements: Sequence[str] = OPENPI) -> Path:
    """Python of a virtual environment with these packages, made below the user's cache where it is not there yet.

    Raises:
        OSError: they cannot be installed (no network, no uv).
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "openpi-ros2-tests"
    environment, wanted = cache / name, "\n".join(requirements)
    python, complete = environment / "bin" / "python", environment / "complete"
    cache.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(cache / f"{name}.lock", timeout=240):
        if not complete.exists() or complete.read_text() != wanted:
            _install(environment, python, requirements)
            complete.write_text(wanted)
    return python


def _install(environment: Path, python: Path, requirements: Sequence[str]) -> None:
    uv = shutil.which("uv") or str(Path(sys.executable).parent / "uv")
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    commands = (
        [uv, "venv", "-q", "--clear", "--python", version, str(environment)],
        [uv, "pip", "install", "-q", "--python", str(python), *requirements],
    )
    for command in commands:
        try:
            subprocess.run(command, check=True, capture_output=True, timeout=200, text=True)
        except (OSError, subprocess.SubprocessError) as error:
            words = getattr(error, "stderr", "") or error
            raise OSError(f"{', '.join(requirements)} cannot be installed here: {words}") from error
