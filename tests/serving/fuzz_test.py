"""Whatever a client sends, the server answers it or closes that connection, and serves the next client."""

import contextlib

import msgpack
import numpy as np
import pytest
import websockets
import websockets.sync.client
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from openpi.serving import messages
from openpi.serving.background import running
from openpi.serving.websocket_policy_server import ServerOptions, WebsocketPolicyServer
from openpi_client import msgpack_numpy

GOOD = {"state": np.zeros(14, np.float32), "images": {"cam": np.zeros((3, 8, 8), np.uint8)}, "prompt": "go"}
PACKED = msgpack_numpy.packb(GOOD)
RELAXED = {"deadline": None, "suppress_health_check": list(HealthCheck), "derandomize": True, "database": None}

dtypes = st.sampled_from(
    ["<f4", "|O", "|u1", "<c8", "<U4", "|V8", "i4,f4", "<M8[s]", ">f8", "", "float32", "\0", "|S0"]
)
sizes = st.integers(-3, 2**63 - 1) | st.integers(0, 16)
texts, blobs = st.text("stae\0é", max_size=6), st.binary(max_size=24)
scalars = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | texts | blobs
arrays = st.fixed_dictionaries(
    {b"__ndarray__": st.just(True)},
    optional={
        b"data": st.binary(max_size=64) | scalars,
        b"dtype": dtypes | scalars,
        b"shape": st.lists(sizes) | scalars,
    },
)
generics = st.fixed_dictionaries(
    {b"__npgeneric__": scalars}, optional={b"data": scalars | st.lists(scalars), b"dtype": dtypes | scalars}
)
jpegs = st.fixed_dictionaries(
    {b"__jpeg__": st.just(True)},
    optional={b"frames": st.lists(st.binary() | scalars) | scalars, b"ndim": scalars, b"chw": scalars},
)
trees = st.recursive(
    scalars | arrays | generics | jpegs,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8) | st.binary(max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)
observations = st.dictionaries(st.sampled_from(["state", "images", "prompt", "stat", ""]), trees)


@st.composite
def damaged(draw):
    """A good message, cut short, or with bytes changed, left out or put in."""
    frame = bytearray(PACKED)
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(frame)))
        frame[start : start + draw(st.integers(0, 8))] = draw(st.binary(max_size=8))
    return bytes(frame[: draw(st.integers(0, len(frame)))]) if draw(st.booleans()) else bytes(frame)


frames = st.binary(max_size=256) | damaged() | observations.map(msgpack.packb) | trees.map(msgpack.packb) | st.text()


class Strict:
    """Uses everything it is given, as a policy would."""

    def infer(self, obs):
        state = np.asarray(obs["state"], np.float32)
        image = np.asarray(obs["images"]["cam"])
        return {
            "actions": np.tile(state.reshape(14), (2, 1)),
            "mean": float(image.mean()),
            "prompt": obs["prompt"].strip(),
        }

    def infer_batch(self, observations):
        return [self.infer(obs) for obs in observations]


@pytest.fixture(scope="module")
def server():
    policy = WebsocketPolicyServer(Strict(), "127.0.0.1", 0, {}, options=ServerOptions(example=GOOD))
    with running(policy) as server:
        yield server


def connect(server):
    address = f"ws://127.0.0.1:{server.port}"
    return websockets.sync.client.connect(address, compression=None, close_timeout=1, ping_interval=None)


def check_decoding(examples):
    @settings(max_examples=examples, **RELAXED)
    @given(frame=frames)
    def case(frame):
        try:
            observation = messages.decode(frame)
        except messages.BadRequestError:
            return  # any other exception is a failure
        assert isinstance(observation, dict)

    case()


def test_decoding_gives_an_observation_or_says_what_is_wrong():
    check_decoding(500)


@pytest.mark.long
def test_decoding_2000_frames():
    check_decoding(2000)


def survive(server, bystander, frame):
    with connect(server) as connection:
        connection.recv(timeout=10)
        connection.send(frame)
        answer = connection.recv(timeout=10)
        if isinstance(answer, str):
            assert answer
            with pytest.raises(websockets.ConnectionClosedError) as closed:
                connection.recv(timeout=10)
            assert closed.value.rcvd.code == 1011
        else:
            assert "actions" in msgpack_numpy.unpackb(answer)
    bystander.send(PACKED)
    assert "actions" in msgpack_numpy.unpackb(bystander.recv(timeout=10))


def fuzz(server, examples):
    with connect(server) as bystander:
        bystander.recv(timeout=10)

        @settings(max_examples=examples, **RELAXED)
        @given(frame=frames)
        def case(frame):
            survive(server, bystander, frame)

        case()


def test_the_server_survives_any_frame(server):
    fuzz(server, 200)


@pytest.mark.long
def test_the_server_survives_2000_frames(server):
    fuzz(server, 2000)


@settings(max_examples=60, **RELAXED)
@given(stream=st.binary(min_size=1, max_size=200), framed=st.booleans())
def test_the_server_survives_any_bytes(server, stream, framed):
    """Bytes that are no HTTP, or no websocket frames."""
    import socket

    with contextlib.ExitStack() as stack:
        if framed:
            connection = stack.enter_context(connect(server))
            connection.recv(timeout=10)
            raw = connection.socket
        else:
            raw = stack.enter_context(socket.create_connection(("127.0.0.1", server.port)))
        with contextlib.suppress(OSError):
            raw.sendall(stream)
            raw.shutdown(socket.SHUT_RDWR)
    with connect(server) as next_client:
        next_client.recv(timeout=10)
        next_client.send(PACKED)
        assert "actions" in msgpack_numpy.unpackb(next_client.recv(timeout=10))


def test_a_shape_of_many_bytes_costs_none(server):
    huge = {b"__ndarray__": True, b"data": b"", b"dtype": "<f8", b"shape": [2**40, 2**20]}
    with connect(server) as bystander:
        bystander.recv(timeout=10)
        survive(server, bystander, msgpack.packb({**GOOD, "state": huge}, default=msgpack_numpy.pack_array))
        deep = b"\x91" * 100_000 + b"\xc0"
        survive(server, bystander, deep)
