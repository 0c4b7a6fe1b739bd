"""A policy server for the DROID robot whose chunks are known: `stub_droid_server.py PORT HORIZON METADATA OBSERVATION`.

Runs with the published openpi-server package where that is installed, else with ours. Writes what the first observation
looked like to the file OBSERVATION. Needs nothing but numpy and the server.
"""

import json
import sys

import numpy as np

try:
    from openpi_server.websocket_policy_server import WebsocketPolicyServer  # the published package
except ImportError:
    from openpi.serving.websocket_policy_server import WebsocketPolicyServer
from openpi_client import base_policy

EXECUTED_STEPS = 8  # of each chunk, so that one leads on from the other
SPEED = 0.2  # of a step of 0.2 rad
PHASES = np.arange(7)


class Swaying(base_policy.BasePolicy):
    """All joints to and fro, about once in three seconds; the gripper is to be nine tenths closed."""

    def __init__(self, horizon: int, note: str) -> None:
        self._horizon = horizon
        self._note = note
        self._chunks = 0

    def infer(self, obs: dict) -> dict:
        if self._chunks == 0:
            arrays = {key: np.asarray(value) for key, value in obs.items()}
            with open(self._note, "w") as file:
                json.dump({key: [list(a.shape), a.dtype.kind, a.dtype.itemsize] for key, a in arrays.items()}, file)
        steps = self._chunks * EXECUTED_STEPS + np.arange(self._horizon)
        self._chunks += 1
        velocity = SPEED * np.sin(steps[:, None] / 7 + PHASES)
        return {"actions": np.column_stack([velocity, np.full(self._horizon, 0.9)]).astype(np.float32)}

    def reset(self) -> None:
        pass


if __name__ == "__main__":
    port, horizon, metadata, note = sys.argv[1:]
    server = WebsocketPolicyServer(Swaying(int(horizon), note), "127.0.0.1", int(port), metadata=json.loads(metadata))
    print("starting", flush=True)
    server.serve_forever()
