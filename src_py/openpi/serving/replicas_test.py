import os
import signal
import socket
import subprocess
import sys
import threading
import time

import numpy as np
import psutil
import pytest

from openpi.serving.background import running
from openpi.serving.replicas import ReplicaServer
from openpi_client import errors
from openpi_client.async_client import ClientOptions
from openpi_client.websocket_client_policy import WebsocketClientPolicy

REPLICA = """
import os, sys, time
import numpy as np
from openpi.serving.websocket_policy_server import ServerOptions, WebsocketPolicyServer

class Stub:
    def infer(self, obs):
        if "boom" in obs:
            raise RuntimeError("boom")
        time.sleep(float(obs.get("sleep", 0)))
        return {"actions": np.zeros((2, 3)), "pid": os.getpid()}

WebsocketPolicyServer(Stub(), metadata={"stub": True}, options=ServerOptions(unix_path=sys.argv[1])).serve_forever()
"""
OPTIONS = ClientOptions(timeout_s=20, connect_timeout_s=20)


@pytest.fixture(scope="module")
def server():
    def command(number, path):
        return [sys.executable, "-c", REPLICA, path]

    with running(ReplicaServer(command, 2, "127.0.0.1", 0)) as server:
        deadline = time.monotonic() + 20
        while not all(replica.ready for replica in server.replicas) and time.monotonic() < deadline:
            time.sleep(0.02)
        yield server


def connect(server) -> WebsocketClientPolicy:
    return WebsocketClientPolicy("127.0.0.1", server.port, options=OPTIONS)


def test_two_slow_requests_run_on_two_replicas(server):
    with connect(server) as one, connect(server) as two:
        assert one.get_server_metadata() == {"stub": True}
        pids = []
        threads = [
            threading.Thread(target=lambda client=client: pids.append(client.infer({"sleep": 0.5})["pid"]))
            for client in (one, two)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(set(pids)) == 2


def test_an_error_closes_only_its_own_connection(server):
    with connect(server) as bystander:
        with connect(server) as policy, pytest.raises(errors.InferenceError, match="boom"):
            policy.infer({"boom": 1})
        np.testing.assert_array_equal(bystander.infer({})["actions"], np.zeros((2, 3)))


def test_a_killed_replica_is_replaced_and_its_request_answered(server):
    with connect(server) as policy:
        results = []
        thread = threading.Thread(target=lambda: results.append(policy.infer({"sleep": 1.0})))
        thread.start()
        time.sleep(0.3)
        busy = next(replica for replica in server.replicas if replica.outstanding)
        killed = busy.process.pid
        os.kill(killed, signal.SIGKILL)
        thread.join(20)
        assert results[0]["pid"] != killed
        deadline = time.monotonic() + 20
        while not busy.ready and time.monotonic() < deadline:
            time.sleep(0.05)
        assert busy.ready
        assert busy.starts == 2
        assert b'openpi_replica_up{replica="1"} 1.0' in server._metrics_text()


FRONT = """
import os, sys
from openpi.serving.replicas import ReplicaServer

os.register_at_fork(before=os.abort)  # it may have threads that bear no fork, as JAX's
front = ReplicaServer(lambda number, path: [sys.executable, "-c", sys.argv[1], path], 1, "127.0.0.1", int(sys.argv[2]))
front.serve_forever()
"""


def test_a_front_that_is_killed_leaves_no_replica_behind():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    front = subprocess.Popen([sys.executable, "-c", FRONT, REPLICA, str(port)])
    try:
        with WebsocketClientPolicy("127.0.0.1", port, options=OPTIONS) as policy:
            replica = psutil.Process(policy.infer({})["pid"])
        assert replica.is_running()
    finally:
        front.kill()
        front.wait()
    assert not psutil.wait_procs([replica], timeout=15)[1]


def test_replicas_that_cannot_load_say_why():
    source = REPLICA.replace("Stub(),", "lambda: open('/no/such/checkpoint'),")
    with running(ReplicaServer(lambda number, path: [sys.executable, "-c", source, path], 2, "127.0.0.1", 0)) as server:
        assert "no/such/checkpoint" in server.failure
        with pytest.raises(errors.InferenceError, match="no/such/checkpoint"):
            connect(server)


def test_a_number_below_one_is_refused():
    with pytest.raises(ValueError, match="1 or more"):
        ReplicaServer(lambda number, path: [], 0)
