"""Precedence over other processes, where the system grants it."""

import contextlib
import os


def prefer(priority: int) -> None:
    """Puts the calling thread, and the threads it starts from now on, under the real-time scheduler.

    Allowed to few users (limit `rtprio`); without it a busy machine delays the thread more.
    """
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(priority))
