"""Positronic's published serialisation against a session server of ours."""

import json

import numpy as np
import pytest
import serving_peers as peers

from openpi_client import jpeg, msgpack_numpy

MESSAGE = """
import numpy as np
MESSAGE = {
    "robot_state.ee_pose": [0.1, 0.2, 0.3, 1, 0, 0, 0], "grip": [0.5], "robot_state.q": np.arange(7, dtype=np.float32),
    "image.wrist": np.arange(64 * 64 * 3, dtype=np.uint8).reshape(64, 64, 3), "task": "stack", "none": None,
    "nested": {"scalar": np.float32(2.5), "flag": np.bool_(True), "text": np.array(["a", "bc"])}, "bytes": b"q",
}
"""


@pytest.fixture(scope="module")
def python() -> str:
    return peers.interpreter("positronic", peers.POSITRONIC)


@pytest.fixture(scope="module")
def message() -> dict:
    names: dict = {}
    exec(MESSAGE, names)
    return names["MESSAGE"]


def test_same_bytes_both_ways(python, message):
    ours = msgpack_numpy.packb(message)
    script = f"""{MESSAGE}
import sys
from positronic_model_server.serialization import deserialise, serialise
assert serialise(MESSAGE) == serialise(deserialise(bytes.fromhex(sys.argv[1])))
print(serialise(MESSAGE).hex())
"""
    assert peers.run(python, script, ours.hex()).strip() == ours.hex()
    assert msgpack_numpy.packb(msgpack_numpy.unpackb(ours)) == ours


def test_same_jpeg_form_both_ways(python):
    pytest.importorskip("PIL")
    image = np.full((32, 48, 3), [200, 100, 50], np.uint8)
    ours = msgpack_numpy.packb(jpeg.compress({"one": image, "two": np.stack([image, image])}))
    script = """
import sys
from positronic_model_server.serialization import deserialise, encode_jpeg, serialise
message = deserialise(bytes.fromhex(sys.argv[1]))
print(message["one"].shape, message["two"].shape, message["one"][0, 0].tolist())
print(serialise({"one": encode_jpeg(message["one"]), "two": encode_jpeg(message["two"])}).hex())
"""
    said, theirs = peers.run(python, script, ours.hex()).splitlines()
    assert said.startswith("(32, 48, 3) (2, 32, 48, 3)")
    back = jpeg.expand(msgpack_numpy.unpackb(bytes.fromhex(theirs)))
    np.testing.assert_allclose(back["two"][1].astype(int), image, atol=4)


def test_the_guides_client_with_our_session_server(python, tmp_path):
    """The example of Positronic's guide, with their serialisation; policy: random weights of the tiny config."""
    from openpi.serving.sessions_test import CODEC, Loads, serving

    (tmp_path / "1000" / "params").mkdir(parents=True)
    script = f"""{MESSAGE}
import json, sys
from positronic_model_server.serialization import deserialise, serialise
from websockets.sync.client import connect
with connect(f"ws://127.0.0.1:{{sys.argv[1]}}/api/v1/session") as ws:
    metadata = deserialise(ws.recv())
    observation = {{**MESSAGE, "image.exterior": MESSAGE["image.wrist"]}}
    ws.send(serialise(observation))
    action = deserialise(ws.recv())["result"]
    ws.send(serialise({{}}))
    error = deserialise(ws.recv())["error"]
    print(json.dumps([metadata["meta"], action["robot_command.pose"][0].tolist(), error]))
"""
    with serving(tmp_path, Loads(), codec=CODEC) as port:
        meta, pose, error = json.loads(peers.run(python, script, str(port)))
    assert (meta["checkpoint_id"], meta["codec"]) == ("checkpoint-1000", "ee")
    np.testing.assert_allclose(pose, [0.1, 0.2, 0.3, 1, 0, 0, 0], atol=1e-6)
    assert "is missing" in error
