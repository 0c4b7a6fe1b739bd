"""A stack that a command starts for itself, and ends."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from openpi_ros.commander import CommandError, PolicyCommander

_STOP_TIMEOUT_S = 15.0
_TRY_S = 5.0


class StackEnded(RuntimeError):
    """The stack ended by itself."""


class OwnStack:
    """A stack as processes of their own.

    Attributes:
        log: what they say.
    """

    def __init__(self, process: "subprocess.Popen[bytes]", log: Path) -> None:
        self._process = process
        self.log = log

    @property
    def ended(self) -> bool:
        """Whether it ended by itself."""
        return self._process.poll() is not None

    def check(self) -> None:
        """Raises StackEnded if it has."""
        if self.ended:
            raise StackEnded(f"the stack ended by itself, with exit status {self._process.returncode}.")

    def bring_up(self, commander: PolicyCommander, timeout: float) -> None:
        """Waits until its nodes are active.

        Raises:
            CommandError: they are not in time.
            StackEnded: they never will be.
        """
        deadline = time.monotonic() + timeout
        while True:
            self.check()
            try:
                return commander.bring_up(timeout=_TRY_S)
            except CommandError:
                if time.monotonic() > deadline:
                    raise

    def tail(self, lines: int = 15) -> str:
        """The end of what they said."""
        return "".join(self.log.read_text(errors="replace").splitlines(keepends=True)[-lines:])


@contextlib.contextmanager
def running_stack(arguments: Sequence[str], log: Path) -> Iterator[OwnStack]:
    """Runs `openpi-up` with these arguments; all its processes have ended when this ends."""
    command = [sys.executable, "-m", "openpi_bringup.up", *arguments]
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            yield OwnStack(process, log)
        finally:
            _stop(process)


def _stop(process: "subprocess.Popen[bytes]") -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_STOP_TIMEOUT_S)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
