import socket
import ssl
import threading
import time
import urllib.error
import urllib.request

import numpy as np
import pytest
import websockets

from openpi.serving.background import running
from openpi.serving.service import Health
from openpi.serving.websocket_policy_server_test import EXAMPLE, FAST, Stub, client, make, raw
from openpi_client import errors, msgpack_numpy
from openpi_client.async_client import ClientOptions
from openpi_client.websocket_client_policy import WebsocketClientPolicy


def get(server, path, headers=None) -> tuple[int, str]:
    request = urllib.request.Request(f"http://127.0.0.1:{server.port}{path}", headers=headers or {})
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


@pytest.fixture(scope="module")
def server():
    with running(make(example=EXAMPLE)) as server:
        yield server


def test_http_answers_during_a_long_inference(server):
    with client(server) as policy:
        waiting = threading.Thread(target=policy.infer, args=({**EXAMPLE, "sleep": 1.0},))
        waiting.start()
        time.sleep(0.2)
        assert get(server, "/healthz") == (200, "OK\n")
        assert "openpi_waiting_requests 1.0" in get(server, "/metrics")[1]
        with raw(server) as other:
            other.ping().wait(0.5)
        assert waiting.is_alive()
        waiting.join()


def test_a_policy_that_never_returns_does_not_keep_the_server():
    release = threading.Event()
    policy = Stub()
    policy.infer = lambda obs: release.wait(30)
    start = time.monotonic()
    with running(make(policy, shutdown_s=0.1)) as server, raw(server) as connection:
        connection.send(msgpack_numpy.packb(EXAMPLE))
        while not server.metrics.registry.get_sample_value("openpi_waiting_requests"):
            time.sleep(0.01)
        server.shutdown()
        with pytest.raises(websockets.ConnectionClosed):
            connection.recv(timeout=10)
    assert time.monotonic() - start < 20
    release.set()


def test_a_client_that_says_nothing_does_not_keep_the_server():
    start = time.monotonic()
    with running(make()) as server, raw(server) as connection:
        server.shutdown()
        with pytest.raises(websockets.ConnectionClosedOK):
            connection.recv(timeout=10)
    assert time.monotonic() - start < 20


def test_metrics_count(server):
    status, text = get(server, "/metrics")
    assert status == 200
    assert 'openpi_requests_total{outcome="ok"}' in text
    assert "openpi_ready 1.0" in text


def test_loading_then_ready():
    release = threading.Event()

    def load():
        assert release.wait(5)
        return Stub()

    server = make(load, example=EXAMPLE)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    assert server.wait_started()
    assert get(server, "/healthz") == (503, "loading\n")
    threading.Timer(0.2, release.set).start()
    with client(server) as early:  # waits for the metadata
        assert "actions" in early.infer(EXAMPLE)
    assert server.health is Health.OK
    server.shutdown()
    thread.join(5)
    assert not thread.is_alive()


def test_failed_load_is_said():
    def load():
        raise OSError("no checkpoint there")

    with running(make(load)) as server:
        assert get(server, "/healthz") == (500, "failed: OSError: no checkpoint there\n")
        with pytest.raises(errors.InferenceError, match="no checkpoint there"):
            client(server)


def test_api_key():
    with running(make(api_keys=["secret", "other"])) as server:
        with client(server, api_key="secret") as policy:
            assert "actions" in policy.infer(EXAMPLE)
        with pytest.raises(errors.ServerRefusedError, match="Api-Key"):
            client(server, api_key="wrong")
        with pytest.raises(errors.ServerRefusedError):
            client(server)
        assert get(server, "/healthz")[0] == 200
        assert get(server, "/metrics")[0] == 401
        assert get(server, "/metrics", {"Authorization": "Api-Key other"})[0] == 200


def test_tls(tmp_path):
    certificate, key = _self_signed(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    trusting = ssl.create_default_context(cafile=str(certificate))
    with running(make(tls=context)) as server:
        options = ClientOptions(timeout_s=10, connect_timeout_s=5, tls=trusting)
        with WebsocketClientPolicy("wss://localhost", server.port, options=options) as policy:
            assert "actions" in policy.infer(EXAMPLE)
        with pytest.raises(errors.ServerRefusedError, match="cannot be trusted"):
            WebsocketClientPolicy("wss://localhost", server.port, options=FAST)


def _self_signed(folder):
    import datetime

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    pem = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (folder / "key.pem").write_bytes(key.private_bytes(*pem))
    return folder / "cert.pem", folder / "key.pem"


def test_size_limit_and_client_limit():
    with running(make(max_message_bytes=10_000, max_clients=1)) as server:
        with client(server) as policy:
            with pytest.raises(websockets.InvalidStatus), raw(server):
                pass
            with pytest.raises(errors.ServerLostError, match="1009"):
                policy.infer({"state": np.zeros(10_000)})
        with client(server) as policy:
            assert "actions" in policy.infer(EXAMPLE)


def test_shutdown_finishes_what_runs():
    with running(make()) as server, client(server) as policy:
        results = []
        thread = threading.Thread(target=lambda: results.append(policy.infer({**EXAMPLE, "sleep": 0.4})))
        thread.start()
        time.sleep(0.1)
        server.shutdown()
        thread.join(5)
        assert "actions" in results[0]


def test_slow_loris_and_vanished_clients_do_no_harm(server):
    packed = msgpack_numpy.packb(EXAMPLE)
    with socket.create_connection(("127.0.0.1", server.port)) as slow, raw(server) as half:
        slow.sendall(b"GET / HTTP/1.1\r\nHost:")  # and never goes on
        half.socket.sendall(b"\x82\xfe\x10\x00")  # a frame of 4096 bytes that never comes
        with raw(server) as gone:
            gone.send(packed)
            gone.socket.shutdown(socket.SHUT_RDWR)
        with client(server) as policy:
            assert "actions" in policy.infer(EXAMPLE)
        half.socket.shutdown(socket.SHUT_RDWR)
