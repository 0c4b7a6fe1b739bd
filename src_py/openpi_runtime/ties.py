"""Processes that do not outlive the one that started them, even where that one is killed (Linux)."""

import ctypes
import os
import signal
import sys
from collections.abc import Sequence

_PR_SET_PDEATHSIG = 1


def tied(command: Sequence[str]) -> list[str]:
    """The command line that runs `command`, which SIGTERM asks to end when this process ends.

    It ties itself before it becomes the command: a `preexec_fn` would fork, and forking a process with threads (JAX has
    some) can hang.
    """
    return [sys.executable, "-IS", __file__, str(os.getpid()), *command]


def die_with(parent: int, number: signal.Signals) -> None:
    """Has the kernel send this process a signal when its parent, which has this id, ends.

    More exactly: when the thread of the parent ends that started this process.
    """
    if not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number)
    if os.getppid() != parent:  # it ended before this was said
        os.kill(os.getpid(), number)


if __name__ == "__main__":
    die_with(int(sys.argv[1]), signal.SIGTERM)
    os.execvp(sys.argv[2], sys.argv[2:])
