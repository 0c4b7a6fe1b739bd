import asyncio
import contextlib
import threading
import time

import numpy as np
import pytest
import websockets.sync.client

from openpi.serving.background import running
from openpi.serving.batching import BatchOptions
from openpi.serving.websocket_policy_server import ServerOptions, WebsocketPolicyServer
from openpi_client import errors, msgpack_numpy
from openpi_client.async_client import AsyncWebsocketClientPolicy, ClientOptions
from openpi_client.websocket_client_policy import WebsocketClientPolicy

EXAMPLE = {"state": np.zeros(3, np.float32), "images": {"cam": np.zeros((3, 8, 8), np.uint8)}, "prompt": "go"}
FAST = ClientOptions(timeout_s=10, connect_timeout_s=5)


class Stub:
    """Adds one to the state; sleeps, fails or counts when told to."""

    def __init__(self, delay_s: float = 0.0) -> None:
        self.delay_s, self.calls, self.batches = delay_s, 0, []

    def infer(self, obs):
        self.calls += 1
        if "boom" in obs:
            raise RuntimeError("boom went the policy")
        time.sleep(float(obs.get("sleep", self.delay_s)))
        return {"actions": np.tile(np.asarray(obs["state"]) + 1, (2, 1))}


class BatchStub(Stub):
    def infer_batch(self, observations):
        self.batches.append(len(observations))
        time.sleep(self.delay_s)
        return [Stub.infer(self, {**obs, "sleep": 0}) for obs in observations]


def nested(leaf) -> dict:
    """About as deep as msgpack goes."""
    for _ in range(1000):
        leaf = {"a": leaf}
    return leaf


def make(policy=None, **options) -> WebsocketPolicyServer:
    return WebsocketPolicyServer(policy or Stub(), "127.0.0.1", 0, {"robot": "x"}, options=ServerOptions(**options))


@pytest.fixture(scope="module")
def server():
    with running(make(example=EXAMPLE)) as server:
        yield server


def client(server, **kwargs) -> WebsocketClientPolicy:
    return WebsocketClientPolicy("127.0.0.1", server.port, options=FAST, **kwargs)


@contextlib.contextmanager
def raw(server):
    address = f"ws://127.0.0.1:{server.port}"
    with websockets.sync.client.connect(address, compression=None, max_size=None) as connection:
        connection.recv(timeout=5)
        yield connection


def test_first_message_is_the_metadata_and_nothing_else(server):
    with websockets.sync.client.connect(f"ws://127.0.0.1:{server.port}/any/path", compression=None) as connection:
        assert connection.recv(timeout=5) == msgpack_numpy.packb({"robot": "x"})
        assert connection.protocol.extensions == []


def test_answers_with_timing(server):
    with client(server) as policy:
        assert policy.get_server_metadata() == {"robot": "x"}
        first = policy.infer({"state": np.arange(3.0)})
        second = policy.infer({"state": np.arange(3.0)})
    np.testing.assert_array_equal(first["actions"], [[1, 2, 3]] * 2)
    assert set(first["server_timing"]) == {"infer_ms"}
    assert set(second["server_timing"]) == {"infer_ms", "prev_total_ms"}


def test_policy_error_is_text_then_1011(server):
    with raw(server) as connection:
        connection.send(msgpack_numpy.packb({"state": np.zeros(3), "boom": 1, **EXAMPLE}))
        text = connection.recv(timeout=5)
        assert isinstance(text, str)
        assert "boom went the policy" in text
        with pytest.raises(websockets.ConnectionClosedError) as closed:
            connection.recv(timeout=5)
    assert closed.value.rcvd.code == 1011
    assert "Traceback" in closed.value.rcvd.reason


@pytest.mark.parametrize(
    ("observation", "words"),
    [
        ({}, "key 'state' is missing, expected float32 [3]"),
        ({"state": np.zeros(4), "boom": 1}, "key 'state' is float64 [4], expected float32 [3]"),
        ({"state": "zero"}, "key 'state' is text, expected float32 [3]"),
        ({"stat": np.zeros(3)}, "not expected: 'stat'"),
        ({"state": [[1], [1, 2]]}, "key 'state' is a list whose parts differ in length, expected float32 [3]"),
        ({"state": nested({"x": 1})}, "nested too deeply"),
    ],
)
def test_bad_observation_is_explained(server, observation, words):
    with client(server) as policy, pytest.raises(errors.InferenceError, match="does not fit") as caught:
        policy.infer(observation)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        ("text", "binary msgpack"),
        (b"", "no valid msgpack"),
        (b"\xc1", "no valid msgpack"),
        (msgpack_numpy.packb([1]), "must be a map"),
        (
            msgpack_numpy.packb({"state": {b"__ndarray__": True, b"data": b"", b"dtype": "|O", b"shape": [1]}}),
            "'state'",
        ),
        (msgpack_numpy.packb({"a": [{"b": {b"__ndarray__": True, b"dtype": "<f4"}}]}), "'a/0/b'"),
        (msgpack_numpy.packb({"a": nested({b"__ndarray__": True, b"dtype": "|O"})}), "no valid msgpack"),
        (msgpack_numpy.packb({"image": {b"__jpeg__": True, b"frames": [b"x"], b"ndim": 3}}), "'image'"),
    ],
)
def test_bad_frame_is_explained_and_closes_only_its_connection(server, frame, words):
    with client(server) as bystander, raw(server) as connection:
        connection.send(frame)
        assert words in connection.recv(timeout=5)
        with pytest.raises(websockets.ConnectionClosedError):
            connection.recv(timeout=5)
        assert "actions" in bystander.infer(EXAMPLE)


def test_answers_of_any_size_reach_a_client_that_reads_late():
    class Padded(Stub):
        def infer(self, obs):
            return {"padding": bytes([obs["n"]]) * obs["size"]}

    sizes = [0, 50, 200, 70_000] + [1_000_000] * 30
    with running(make(Padded())) as server, raw(server) as connection:
        sending = threading.Thread(
            target=lambda: [
                connection.send(msgpack_numpy.packb({"n": n, "size": size})) for n, size in enumerate(sizes)
            ]
        )
        sending.start()
        time.sleep(0.5)  # in which the server must not go on and on
        for n, size in enumerate(sizes):
            assert msgpack_numpy.unpackb(connection.recv(timeout=10))["padding"] == bytes([n]) * size
        sending.join()


def test_messages_in_pieces_and_sent_ahead_are_answered_in_order():
    def message(n):
        return msgpack_numpy.packb({**EXAMPLE, "state": np.full(3, float(n))})

    with running(make()) as server, raw(server) as connection:
        for n in range(0, 12, 3):
            connection.send([message(n)[:10], message(n)[10:]])
            connection.send(message(n + 1))
            connection.send(message(n + 2))
        answers = [msgpack_numpy.unpackb(connection.recv(timeout=5))["actions"][0, 0] for _ in range(12)]
        assert answers == list(range(1, 13))
        connection.send(message(20))  # alone
        assert msgpack_numpy.unpackb(connection.recv(timeout=5))["actions"][0, 0] == 21


def test_a_result_that_cannot_be_sent_is_an_error():
    policy = Stub()
    policy.infer = lambda obs: {"actions": np.array([object()])}
    told = pytest.raises(errors.InferenceError, match="result cannot be sent: Unsupported dtype")
    with running(make(policy)) as server, client(server) as asker, told:
        asker.infer(EXAMPLE)


async def test_runs_in_somebody_elses_event_loop():
    server = make(BatchStub())
    running_server = asyncio.create_task(server.run())
    await asyncio.to_thread(server.wait_started)
    policy = AsyncWebsocketClientPolicy(f"ws://127.0.0.1:{server.port}")
    assert "actions" in await policy.infer(EXAMPLE)
    await policy.close()
    server.shutdown()
    await running_server


def test_requests_of_several_clients_are_batched():
    policy = BatchStub(delay_s=0.05)

    async def main(port):
        clients = [AsyncWebsocketClientPolicy(f"ws://127.0.0.1:{port}") for _ in range(8)]
        for _ in range(3):
            results = await asyncio.gather(*(c.infer({"state": np.full(3, i)}) for i, c in enumerate(clients)))
            assert [result["actions"][0, 0] for result in results] == list(range(1, 9))
        await asyncio.gather(*(c.close() for c in clients))

    with running(make(policy, batch=BatchOptions(max_size=4, max_wait_ms=20))) as server:
        asyncio.run(main(server.port))
    assert max(policy.batches) == 4


def test_one_bad_observation_does_not_fail_its_batch():
    async def main(port):
        clients = [AsyncWebsocketClientPolicy(f"ws://127.0.0.1:{port}") for _ in range(4)]
        observations = [{"state": np.zeros(3)}] * 3 + [{"boom": 1}]
        calls = (c.infer(obs) for c, obs in zip(clients, observations, strict=True))
        results = await asyncio.gather(*calls, return_exceptions=True)
        await asyncio.gather(*(c.close() for c in clients))
        return results

    with running(make(BatchStub(delay_s=0.05), batch=BatchOptions(max_wait_ms=50))) as server:
        *good, bad = asyncio.run(main(server.port))
    assert all("actions" in result for result in good)
    assert isinstance(bad, errors.InferenceError)


def test_what_nobody_waits_for_is_not_computed():
    policy = Stub()
    with running(make(policy)) as server:
        with client(server) as busy:
            blocker = threading.Thread(target=busy.infer, args=({**EXAMPLE, "sleep": 0.5},))
            blocker.start()
            time.sleep(0.1)
            with raw(server) as leaver:
                leaver.send(msgpack_numpy.packb(EXAMPLE))
                time.sleep(0.1)
            blocker.join()
            busy.infer(EXAMPLE)
        assert policy.calls == 2
        counted = server.metrics.registry.get_sample_value
        assert counted("openpi_requests_total", {"outcome": "abandoned"}) == 1


def test_back_pressure_holds_further_requests_back():
    policy = Stub(delay_s=0.05)

    async def main(server):
        clients = [AsyncWebsocketClientPolicy(f"ws://127.0.0.1:{server.port}") for _ in range(6)]
        await asyncio.gather(*(c.connect() for c in clients))
        calls = [asyncio.create_task(c.infer(EXAMPLE)) for c in clients]
        await asyncio.sleep(0.1)
        waiting = server._inference.waiting
        await asyncio.gather(*calls)
        await asyncio.gather(*(c.close() for c in clients))
        return waiting

    with running(make(policy, batch=BatchOptions(max_waiting=2))) as server:
        assert asyncio.run(main(server)) <= 2
    assert policy.calls == 6


def test_jpeg_where_the_server_offers_it(server):
    pytest.importorskip("PIL")
    image = np.full((480, 640, 3), 120, np.uint8)
    options = ClientOptions(timeout_s=10, connect_timeout_s=5, jpeg_quality=90)
    with WebsocketClientPolicy("127.0.0.1", server.port, options=options) as policy:
        assert "actions" in policy.infer({**EXAMPLE, "image": image, "chw": image.transpose(2, 0, 1)})
        assert policy.stats.bytes_sent < image.nbytes / 10
