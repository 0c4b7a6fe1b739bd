"""Processes of a stack that do not outlive the manager that started them, even where that one is killed (Linux)."""

import os
import shlex
import signal
from typing import Any

from honcho.process import Process

from openpi_runtime import ties


class TiedProcess(Process):
    """A process of Honcho's: a helper, forked from the manager, that starts the command and forwards its lines.

    If the manager is killed, the helper ends, and the command is asked to end by SIGTERM, so that it can stop a robot.
    """

    cmd: str

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._manager = os.getpid()

    def run(self, *args: Any, **kwargs: Any) -> None:
        """Runs in the helper until the command ends."""
        ties.die_with(self._manager, signal.SIGKILL)
        self.cmd = "exec " + shlex.join(ties.tied(["sh", "-c", self.cmd]))
        super().run(*args, **kwargs)
