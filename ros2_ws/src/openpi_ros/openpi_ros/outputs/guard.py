"""The executor's end of the velocity guard."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Mapping

from openpi_ros.velocity_guard import MOVES, READY, STANDS

_SILENT_PERIODS = 3
_MIN_SILENCE_S = 0.1


class VelocityGuard:
    """Starts the guard's process and tells it whether the robot moves.

    Raises:
        RuntimeError: the process does not start.
    """

    def __init__(self, topics: Mapping[str, int], period_s: float) -> None:
        """topics: full name of each velocity topic, and how many values it takes."""
        silence_s = max(_MIN_SILENCE_S, _SILENT_PERIODS * period_s)
        words = [word for topic, size in topics.items() for word in (topic, str(size))]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "openpi_ros.velocity_guard", str(silence_s), *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # what ends the executor's group must not end the guard
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._pipe = self._process.stdin
        if self._process.stdout.readline().decode().strip() != READY:
            raise RuntimeError("The velocity guard did not start; its error is above. Nothing is commanded without it.")

    def tell(self, moves: bool) -> None:
        """To be called in every tick. Raises RuntimeError if the guard is gone."""
        try:
            self._pipe.write(MOVES if moves else STANDS)
            self._pipe.flush()
        except OSError as error:
            raise RuntimeError("The velocity guard has ended; nothing is commanded without it.") from error

    def close(self) -> None:
        """Ends the process: the robot stands."""
        with contextlib.suppress(OSError):
            self._pipe.close()
        self._process.wait(10)
