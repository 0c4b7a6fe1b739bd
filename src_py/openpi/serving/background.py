"""A server in a thread, for tests, benchmarks and notebooks; and the end of a process that has one."""

import contextlib
import logging
import os
import threading
import time
from collections.abc import Iterator
from typing import TypeVar

from openpi.serving.batching import THREAD_NAME
from openpi.serving.service import Health, WebsocketService

Service = TypeVar("Service", bound=WebsocketService)


@contextlib.contextmanager
def running(server: Service, timeout_s: float = 60.0) -> Iterator[Service]:
    """Serve inside the `with` block; yields once the policy is loaded (or has failed to), ends it gracefully."""
    thread = threading.Thread(target=server.serve_forever, name="openpi-server", daemon=True)
    thread.start()
    try:
        deadline = time.monotonic() + timeout_s
        while server.health is Health.LOADING or not server.wait_started(0.0):
            if not thread.is_alive() or time.monotonic() > deadline:
                raise RuntimeError(f"The server on port {server.port} did not start within {timeout_s:g} s.")
            time.sleep(0.005)
        yield server
    finally:
        server.shutdown()
        thread.join(timeout_s)


def leave(code: int) -> int:
    """The exit status, for a server's `main` to return; where a policy still computes or loads, exits with it at once.

    A thread in a model's C++ code does not survive the interpreter's orderly end.
    """
    if any(thread.name == THREAD_NAME for thread in threading.enumerate()):
        logging.shutdown()
        os._exit(code)
    return code
