"""A policy server for the fault tests: `stub_server.py PORT ok|slow|garbage|nan`."""

from __future__ import annotations

import contextlib
import sys
import time
from typing import Any

import numpy as np

from openpi_client.base_policy import BasePolicy

SLOW_S = 4.0


class Stub(BasePolicy):
    """Holds the robot where it is."""

    def __init__(self, mode: str) -> None:
        self._mode = mode

    def infer(self, obs: dict[str, Any]) -> dict[str, Any]:
        if self._mode == "slow":
            time.sleep(SLOW_S)
        actions = np.tile(np.asarray(obs["state"], np.float32), (50, 1))
        return {"actions": actions * (np.nan if self._mode == "nan" else 1.0)}


def serve_garbage(port: int) -> None:
    """Says hello as a policy server does, then answers every request with bytes that mean nothing."""
    from websockets.exceptions import ConnectionClosed
    from websockets.sync.server import ServerConnection, serve

    from openpi_client import msgpack_numpy

    def talk(connection: ServerConnection) -> None:
        with contextlib.suppress(ConnectionClosed):
            connection.send(msgpack_numpy.packb({}))
            for _ in connection:
                connection.send(b"\xc1\xff\x00 this is no msgpack")

    with serve(talk, "127.0.0.1", port) as server:
        server.serve_forever()


def main() -> None:
    """Serves until it is killed."""
    port, mode = int(sys.argv[1]), sys.argv[2]
    if mode == "garbage":
        serve_garbage(port)
        return
    from openpi.serving.websocket_policy_server import WebsocketPolicyServer

    WebsocketPolicyServer(Stub(mode), host="127.0.0.1", port=port, metadata={}).serve_forever()


if __name__ == "__main__":
    main()
