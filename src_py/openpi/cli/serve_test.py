import contextlib
import socket
import subprocess
import sys
import time
import urllib.request

import pytest
import tyro

from openpi.cli import serve


def parse(*argv: str) -> serve.Args:
    return tyro.cli(serve.Args, args=list(argv))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "Nothing to serve"),
        ({"config": "pi0_aloha_sim_small"}, "--random-weights"),
        ({"env": "droid", "dir": "x"}, "not both"),
        ({"env": "droid", "replicas": 0}, "1 or more"),
    ],
)
def test_wrong_options_are_explained(options, words):
    with pytest.raises(ValueError, match=words):
        serve.Args(**options)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("--config pi0_aloha_sim_small --random-weights --host 127.0.0.1 --port {taken}", "Cannot listen on .*{taken}"),
        ("--config pi0_aloha_sim_small --dir /no/such --host 127.0.0.1 --port 0", "/no/such"),
        ("--config pi0_aloha_sim_small --random-weights --tls-key key.pem --host 127.0.0.1 --port 0", "TLS needs both"),
        ("--config pi0_no_such --random-weights --host 127.0.0.1 --port 0", "no config 'pi0_no_such'"),
    ],
)
def test_what_cannot_be_served_is_told_before_anything_is_loaded(line, words, monkeypatch):
    monkeypatch.setattr(serve, "load_policy", lambda _: pytest.fail("loaded"))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        taken = listener.getsockname()[1]
        with pytest.raises((OSError, ValueError), match=words.format(taken=taken)):
            serve.main(parse(*line.format(taken=taken).split()))


def test_the_session_server_ends_orderly(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "openpi", "serve-sessions", "--checkpoints-dir", tmp_path, "--port", str(port)]
    process = subprocess.Popen(command)
    try:
        health = f"http://127.0.0.1:{port}/healthz"
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and process.poll() is None:
            with contextlib.suppress(OSError), urllib.request.urlopen(health, timeout=5) as answer:
                assert answer.read() == b"OK\n"
                break
            time.sleep(0.1)
        process.terminate()
        assert process.wait(20) == 0
    finally:
        process.kill()


def test_every_robot_has_a_config():
    from openpi.training import config

    for name, _ in serve.DEFAULTS.values():
        assert config.get_config(name).name == name


def test_a_replica_is_started_with_the_same_options():
    line = "--config pi0_aloha_sim_small --random-weights --replicas 3 --batch 4 --no-warm-up --api-keys a b"
    args = parse(*line.split())
    command = serve.replica_command(args, "/some/socket")
    replica = parse(*command[command.index("serve") + 1 :])
    assert replica.unix_socket == "/some/socket"
    assert (replica.config, replica.random_weights, replica.batch, replica.warm_up) == (args.config, True, 4, False)
    assert (replica.replicas, replica.api_keys) == (1, ())


def test_batch_sizes_double():
    assert serve._sizes(16) == [1, 2, 4, 8, 16]
    assert serve._sizes(12) == [1, 2, 4, 8, 12]
    assert serve._sizes(1) == [1]
