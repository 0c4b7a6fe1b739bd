"""Processes that do not outlive the one that started them, even where that one is killed (Linux)."""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1
# Loaded before any fork: a child of a process with several threads had better call than load.
_LIBC = ctypes.CDLL(None) if sys.platform.startswith("linux") else None


def die_with(parent: int, number: signal.Signals) -> None:
    """Has the kernel send this process a signal when its parent, which has this id, ends.

    More exactly: when the thread of the parent ends that started this process.
    """
    if _LIBC is None:
        return
    _LIBC.prctl(_PR_SET_PDEATHSIG, number)
    if os.getppid() != parent:  # it ended before this was said
        os.kill(os.getpid(), number)
