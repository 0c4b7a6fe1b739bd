import asyncio
import gc
import os
import signal
import socket
import threading
import time

import numpy as np
import psutil
import pytest
import websockets.sync.server

from openpi_client import errors, msgpack_numpy
from openpi_client.async_client import AsyncWebsocketClientPolicy, ClientOptions
from openpi_client.websocket_client_policy import WebsocketClientPolicy

OPTIONS = ClientOptions(timeout_s=0.5, connect_timeout_s=5)


class FakeServer:
    """A websocket server that answers every message with `answer(message)`; None: never."""

    def __init__(self, answer=lambda obs: msgpack_numpy.packb({"actions": np.zeros((1, 2))}), port=0):
        self.answer = answer
        self.server = websockets.sync.server.serve(self._handle, "127.0.0.1", port, compression=None, max_size=None)
        self.port = self.server.socket.getsockname()[1]
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def _handle(self, connection):
        connection.send(msgpack_numpy.packb({"name": "fake"}))
        for message in connection:
            answer = self.answer(message)
            if answer == "hang up":
                connection.socket.close()
                return
            if answer is not None:
                connection.send(answer)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.thread.join(5)


def connect(server, options=OPTIONS) -> WebsocketClientPolicy:
    return WebsocketClientPolicy("127.0.0.1", server.port, options=options)


def test_url_forms():
    with FakeServer() as server:
        for host, port in [("127.0.0.1", server.port), (f"ws://127.0.0.1:{server.port}", None)]:
            with WebsocketClientPolicy(host, port, options=OPTIONS) as policy:
                assert policy.get_server_metadata() == {"name": "fake"}


def test_pictures_go_as_they_are_to_a_server_that_takes_no_jpeg():
    options = ClientOptions(timeout_s=10, connect_timeout_s=5, jpeg_quality=90)
    with FakeServer(lambda message: message) as server, connect(server, options) as policy:
        image = np.full((32, 32, 3), 7, np.uint8)
        np.testing.assert_array_equal(policy.infer({"image": image})["image"], image)


def test_silent_server_is_a_timeout_within_the_timeout():
    with FakeServer(lambda _: None) as server, connect(server) as policy:
        start = time.monotonic()
        with pytest.raises(errors.ServerTimeoutError, match=r"within 0.5 s"):
            policy.infer({})
        assert time.monotonic() - start < 3
        server.answer = lambda _: msgpack_numpy.packb({"actions": 1})
        assert policy.infer({}) == {"actions": 1}  # on a new connection, with the right answer
        assert policy.stats.reconnects == 1


def test_server_that_does_not_even_read_is_a_timeout():
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept():
            connection, _ = listener.accept()
            request = connection.recv(4096).decode()
            key = next(line.split(": ")[1] for line in request.split("\r\n") if line.startswith("Sec-WebSocket-Key"))
            from websockets.utils import accept_key

            answer = "HTTP/1.1 101 OK\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            answer += f"Sec-WebSocket-Accept: {accept_key(key)}\r\n\r\n"
            connection.sendall(answer.encode() + b"\x82\x01\x80")  # and an empty map as metadata
            done.wait(10)
            connection.close()

        done = threading.Event()
        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        port = listener.getsockname()[1]
        with WebsocketClientPolicy("127.0.0.1", port, options=OPTIONS) as policy:
            with pytest.raises(errors.ServerTimeoutError):
                policy.infer({"image": np.zeros(50_000_000, np.uint8)})  # more than any socket buffer holds
            done.set()
            thread.join(5)


def test_server_that_hangs_up_is_lost_at_once():
    options = ClientOptions(timeout_s=30, connect_timeout_s=5)
    with FakeServer(lambda _: "hang up") as server, connect(server, options) as policy:
        with pytest.raises(errors.ServerLostError) as caught:
            policy.infer({})
        assert not isinstance(caught.value, errors.ServerTimeoutError)


def test_no_server_is_an_error_within_the_connect_timeout():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(errors.ServerTimeoutError, match="No policy server"):
        WebsocketClientPolicy("127.0.0.1", port, options=ClientOptions(connect_timeout_s=0.3))


def test_a_server_that_is_still_loading_is_told_from_none():
    class Loading(FakeServer):
        def _handle(self, connection):
            connection.recv()  # says nothing until it is asked, and nobody asks

    with (
        Loading() as server,
        pytest.raises(errors.ServerTimeoutError, match=r"is there, but was not ready within 0\.3 s"),
    ):
        WebsocketClientPolicy("127.0.0.1", server.port, options=ClientOptions(connect_timeout_s=0.3))


@pytest.mark.parametrize("garbage", [b"\xc1", b"", msgpack_numpy.packb([1]), msgpack_numpy.packb(3)])
def test_garbage_is_a_protocol_error(garbage):
    with FakeServer(lambda _: garbage) as server, connect(server) as policy:
        with pytest.raises(errors.ProtocolError):
            policy.infer({})
        server.answer = lambda _: msgpack_numpy.packb({"actions": 1})
        assert policy.infer({}) == {"actions": 1}


def test_error_text_is_an_inference_error_with_the_published_words():
    with FakeServer(lambda _: "Traceback: no such key") as server, connect(server) as policy:
        with pytest.raises(RuntimeError, match="Error in inference server:\nTraceback: no such key") as caught:
            policy.infer({})
        assert isinstance(caught.value, errors.InferenceError)


def test_unsendable_observation_leaves_the_connection_alone():
    with FakeServer() as server, connect(server) as policy:
        with pytest.raises(ValueError, match="Unsupported dtype"):
            policy.infer({"x": np.array([None])})
        policy.infer({})
        assert policy.stats.reconnects == 0


@pytest.mark.parametrize("size", [0, 1, 100, 126, 65_000, 66_000, 500_001, 7])
def test_messages_of_any_size_arrive_as_they_are(size):
    payload = np.random.default_rng(size).bytes(size)
    with FakeServer(lambda message: message) as server, connect(server) as policy:
        for one in (payload, payload[::-1], payload[:-3]):
            assert policy.infer({"x": one}) == {"x": one}


def test_a_request_inside_a_running_event_loop():
    """As in a notebook."""

    async def cell():
        return policy.infer({"n": 1})

    with FakeServer(lambda message: message) as server, connect(server) as policy:
        assert asyncio.run(cell()) == {"n": 1}
        assert policy.infer({"n": 2}) == {"n": 2}


def test_an_interrupted_request_leaves_the_client_usable():
    def interrupt(*_):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        with FakeServer(lambda _: None) as server, connect(server, ClientOptions(timeout_s=30)) as policy:
            threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGUSR1)).start()
            with pytest.raises(KeyboardInterrupt):
                policy.infer({})
            server.answer = lambda message: message
            assert policy.infer({"n": 1}) == {"n": 1}
            assert policy.stats.reconnects == 1
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_pings_are_answered_between_requests_and_during_one():
    answered = []

    class Pinging(FakeServer):
        def _handle(self, connection):
            connection.send(msgpack_numpy.packb({}))
            answered.append(connection.ping().wait(5))
            message = connection.recv()
            answered.append(connection.ping().wait(5))
            connection.send(message)

    with Pinging() as server, connect(server, ClientOptions(timeout_s=30)) as policy:
        while not answered:
            time.sleep(0.01)
        assert policy.infer({"n": 1}) == {"n": 1}
    assert answered == [True, True]


def test_cancel_releases_the_waiting_thread():
    options = ClientOptions(timeout_s=30, connect_timeout_s=5)
    with FakeServer(lambda _: None) as server, connect(server, options) as policy:
        threading.Timer(0.2, policy.cancel).start()
        with pytest.raises(errors.RequestCancelledError):
            policy.infer({})
        server.answer = lambda _: msgpack_numpy.packb({"actions": 1})
        assert policy.infer({}) == {"actions": 1}


def test_closed_client_says_so():
    with FakeServer() as server:
        policy = connect(server)
        policy.close()
        with pytest.raises(errors.ServerLostError, match="closed"):
            policy.infer({})
        policy.close()


def test_an_answer_that_nobody_came_for_is_not_taken_for_the_next():
    with FakeServer(answer=lambda message: message) as server, connect(server) as policy:
        with policy._calls._tended.turn:
            policy._client.head_start({"n": 1})  # and what should have come for it was cancelled
        assert policy.infer({"n": 2}) == {"n": 2}
        assert policy.infer({"n": 3}) == {"n": 3}
        assert policy.stats.connections == 2


def test_what_cannot_be_sent_is_said_and_the_connection_stays():
    with FakeServer(answer=lambda message: message) as server, connect(server) as policy:
        with pytest.raises(ValueError, match="Unsupported dtype"):
            policy.infer({"x": np.array([object()])})
        assert policy.infer({"n": 1}) == {"n": 1}
        assert (policy.stats.requests, policy.stats.failures, policy.stats.connections) == (2, 1, 1)


def test_closing_while_others_ask_cancel_and_close(caplog):
    outcomes = []

    def call(function):
        try:
            function()
        except Exception as error:
            outcomes.append(type(error))

    with FakeServer(lambda _: None) as server:
        for _ in range(15):
            policy = connect(server, ClientOptions(timeout_s=30))
            calls = [*[lambda: policy.infer({})] * 4, *[policy.close] * 3, *[policy.cancel] * 3]  # noqa: B023
            threads = [threading.Thread(target=call, args=(one,), daemon=True) for one in calls]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(10)
                assert not thread.is_alive()
    assert set(outcomes) <= {errors.RequestCancelledError, errors.ServerLostError}
    assert len(outcomes) == 15 * 4  # every infer, and nothing else
    assert not [record for record in caplog.records if record.name in ("asyncio", "concurrent.futures")]


def test_statistics():
    with FakeServer() as server, connect(server) as policy:
        for _ in range(5):
            policy.infer({"x": np.zeros(10)})
        summary = policy.stats.summary()
    assert summary["requests"] == 5
    assert summary["failures"] == 0
    assert 0 < summary["p50_ms"] <= summary["p99_ms"]
    assert summary["bytes_sent"] > 5 * 80


async def test_async_requests_wait_their_turn():
    with FakeServer(lambda message: message) as server:
        policy = AsyncWebsocketClientPolicy(f"ws://127.0.0.1:{server.port}")
        results = await asyncio.gather(*(policy.infer({"n": n}) for n in range(20)))
        await policy.close()
    assert [result["n"] for result in results] == list(range(20))
    assert policy.stats.connections == 1


async def test_async_cancellation_drops_the_request():
    with FakeServer(lambda _: None) as server:
        policy = AsyncWebsocketClientPolicy(f"ws://127.0.0.1:{server.port}")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(policy.infer({}), 0.2)
        server.answer = lambda message: message
        assert await policy.infer({"n": 1}) == {"n": 1}
        await policy.close()


def test_survives_50_restarts_without_a_leak():
    process = psutil.Process()
    options = ClientOptions(timeout_s=10, connect_timeout_s=5)
    server = FakeServer()
    port = server.port
    policy = connect(server, options)
    before = None
    for round_number in range(50):
        server.__exit__()
        server = FakeServer(port=port)
        assert "actions" in policy.infer({"x": 1})
        if round_number == 5:
            gc.collect()
            before = process.num_fds(), threading.active_count()
    gc.collect()
    after = process.num_fds(), threading.active_count()
    policy.close()
    server.__exit__()
    assert policy.stats.reconnects == 50
    assert after[0] <= before[0] + 3
    assert after[1] <= before[1] + 3
