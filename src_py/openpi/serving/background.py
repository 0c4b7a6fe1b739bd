"""A server in a thread: for tests, benchmarks and notebooks."""

import contextlib
import threading
import time
from collections.abc import Iterator
from typing import TypeVar

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
