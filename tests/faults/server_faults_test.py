"""Faults of a remote policy server: killed, hung, slow, answering garbage, restarted."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fault_world import CHUNK_S, ERROR, HOLD, POLICY, RUNNING, Report, World, judged

SLACK_S = 1.0
REQUEST_S = 2.0


class Server:
    """The stub server's process, always on the same port."""

    def __init__(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, mode: str = "ok") -> None:
        self.stop()
        script = Path(__file__).with_name("stub_server.py")
        self.process = subprocess.Popen([sys.executable, str(script), str(self.port), mode])
        end = time.monotonic() + 30.0
        while time.monotonic() < end:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.05)
        raise AssertionError("The stub server did not start.")

    def stop(self) -> float:
        """SIGKILL; returns when."""
        if self.process is not None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
            self.process.wait()
        self.process = None
        return time.monotonic()


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.stop()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, server: Server) -> Iterator[World]:
    with judged(tmp_path_factory.mktemp("server_faults"), image_size=(48, 64)) as made:
        server.start()
        made.start(POLICY, backend="remote", port=server.port, request_timeout=REQUEST_S)
        made.start_executor(chunk_topic=f"{POLICY}/action_chunk")
        yield made


@pytest.fixture
def going(world: World, server: Server) -> World:
    if server.process is None:
        server.start()
    world.follow_policy()
    return world


def fails_and_holds(world: World, fault: float, report: Report, what: str) -> None:
    """The request fails in its time and is reported; the executor plays its chunk and holds."""
    held = world.wait_mode(HOLD, "no chunk", timeout_s=CHUNK_S + SLACK_S)
    report(f"server {what}: HOLD", held - fault)
    assert world.stands(held)
    world.wait(lambda: bool(world.diagnosis(POLICY, ERROR, fault)), REQUEST_S + CHUNK_S + SLACK_S, "ERROR is reported")
    at, text = world.diagnosis(POLICY, ERROR, fault)[0]
    report(f"server {what}: diagnostics ERROR", at - fault)
    assert text


def recovers(world: World, server: Server, report: Report, what: str) -> None:
    server.start()
    back = time.monotonic()
    report(f"server {what}, then back: RUNNING", world.wait_mode(RUNNING, timeout_s=15.0) - back)


def test_killed_server_and_a_new_one(going: World, server: Server, report: Report) -> None:
    fault = server.stop()
    fails_and_holds(going, fault, report, "killed")
    recovers(going, server, report, "killed")


def test_hung_server(going: World, server: Server, report: Report) -> None:
    assert server.process is not None
    fault = time.monotonic()
    server.process.send_signal(signal.SIGSTOP)
    fails_and_holds(going, fault, report, "hung")
    recovers(going, server, report, "hung")


@pytest.mark.parametrize("mode", ["slow", "garbage"])
def test_useless_server(going: World, server: Server, report: Report, mode: str) -> None:
    fault = server.stop()
    server.start(mode)
    fails_and_holds(going, fault, report, mode)
    seen = len(going.chunks)
    time.sleep(1.0)
    assert len(going.chunks) == seen
    recovers(going, server, report, mode)


def test_server_that_answers_nan(going: World, server: Server, report: Report) -> None:
    fault = server.stop()
    server.start("nan")
    held = going.wait_mode(HOLD, "no chunk", timeout_s=5.0 + SLACK_S)
    report("server nan: HOLD", held - fault)
    recovers(going, server, report, "nan")
