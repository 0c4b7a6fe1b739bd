"""The published openpi client and server against ours, both ways."""

import json
import socket

import numpy as np
import pytest
import serving_peers as peers

from openpi.serving.background import running
from openpi.serving.websocket_policy_server import WebsocketPolicyServer
from openpi_client import errors, msgpack_numpy
from openpi_client.async_client import ClientOptions
from openpi_client.websocket_client_policy import WebsocketClientPolicy

OPTIONS = ClientOptions(timeout_s=10, connect_timeout_s=20)

OBSERVATION = """
import numpy as np
OBSERVATION = {
    "state": np.arange(14, dtype=np.float32), "prompt": "pick up the cube", "flag": True, "count": 3, "none": None,
    "images": {"cam_high": np.arange(3 * 8 * 8, dtype=np.uint8).reshape(3, 8, 8)[:, ::-1], "empty": np.zeros((0, 3))},
    "scalar": np.float64(0.5), "mask": np.array([True, False]), "list": [1, 2.5, "x"], "half": np.float16([1, 2]),
    "bigendian": np.array([1, 2], ">i4"), "text": np.array(["a", "bc"]),
}
"""

THEIR_CLIENT = (
    OBSERVATION
    + """
import json, sys
from openpi_client import msgpack_numpy
from openpi_client.websocket_client_policy import WebsocketClientPolicy
client = WebsocketClientPolicy("127.0.0.1", int(sys.argv[1]), api_key="key")
first, second = client.infer(OBSERVATION), client.infer(OBSERVATION)
try:
    client.infer({"boom": 1})
    failure = ""
except RuntimeError as error:
    failure = str(error)
print(json.dumps({
    "metadata": client.get_server_metadata(), "actions": second["actions"].tolist(),
    "dtype": str(second["actions"].dtype), "echo": first["echo"] == msgpack_numpy.packb(OBSERVATION).hex(),
    "timing": sorted(second["server_timing"]), "failure": failure,
}))
"""
)

THEIR_SERVER = """
import sys
from openpi_client import base_policy, msgpack_numpy
from openpi_server.websocket_policy_server import WebsocketPolicyServer
import numpy as np
class Policy(base_policy.BasePolicy):
    def infer(self, obs):
        if "boom" in obs:
            raise KeyError("boom")
        return {"actions": np.ones((2, 3), np.float32) * obs["state"][1], "echo": msgpack_numpy.packb(obs).hex()}
server = WebsocketPolicyServer(Policy(), "127.0.0.1", int(sys.argv[1]), metadata={"theirs": True})
print("starting", flush=True)
server.serve_forever()
"""


@pytest.fixture(scope="module")
def python() -> str:
    return peers.interpreter("openpi", peers.OPENPI)


@pytest.fixture(scope="module")
def observation() -> dict:
    names: dict = {}
    exec(OBSERVATION, names)
    return names["OBSERVATION"]


class Echo:
    def infer(self, obs):
        if "boom" in obs:
            raise KeyError("boom")
        return {"actions": np.full((2, 3), 7, np.float32), "echo": msgpack_numpy.packb(obs).hex()}


def test_their_client_with_our_server(python):
    with running(WebsocketPolicyServer(Echo(), "127.0.0.1", 0, {"ours": [1, {"x": "y"}]})) as server:
        said = json.loads(peers.run(python, THEIR_CLIENT, str(server.port)))
    assert said["metadata"] == {"ours": [1, {"x": "y"}]}
    assert said["actions"] == [[7.0] * 3] * 2
    assert said["dtype"] == "float32"
    assert said["echo"], "what we unpack and pack again is not what they packed"
    assert said["timing"] == ["infer_ms", "prev_total_ms"]
    assert said["failure"].startswith("Error in inference server:\nTraceback")
    assert "KeyError: 'boom'" in said["failure"]


def test_our_client_with_their_server(python, observation):
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with (
        peers.running(python, THEIR_SERVER, str(port)),
        WebsocketClientPolicy("127.0.0.1", port, options=OPTIONS) as client,
    ):
        assert client.get_server_metadata() == {"theirs": True}
        result = client.infer(observation)
        np.testing.assert_array_equal(result["actions"], np.ones((2, 3), np.float32))
        assert result["echo"] == msgpack_numpy.packb(observation).hex()
        with pytest.raises(errors.InferenceError, match="KeyError: 'boom'"):
            client.infer({"boom": 1})
        assert "actions" in client.infer(observation)


def test_metadata_on_the_wire_is_theirs_byte_for_byte(python):
    metadata = {"action_dim": 14, "names": ["a", "b"], "array": np.arange(3.0), "nested": {"x": None}}
    script = """
import numpy as np
from openpi_client import msgpack_numpy
metadata = {"action_dim": 14, "names": ["a", "b"], "array": np.arange(3.0), "nested": {"x": None}}
print(msgpack_numpy.packb(metadata).hex())
"""
    assert peers.run(python, script).strip() == msgpack_numpy.packb(metadata).hex()
