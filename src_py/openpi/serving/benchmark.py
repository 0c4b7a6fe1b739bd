"""Measures what a policy server adds to its policy's own time, ours beside the published one."""

import asyncio
import contextlib
import dataclasses
import itertools
import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from openpi.serving import benchmark_server
from openpi_client.async_client import AsyncWebsocketClientPolicy, ClientOptions

Which = Literal["ours", "published"]
START_S = 900.0  # compiling takes its time on a busy machine
WARM_UP_REQUESTS = 3


@dataclasses.dataclass(frozen=True)
class Load:
    """What is asked for: of which policy, by how many clients, with which observation, how often each."""

    policy: str
    clients: int
    observation: Literal["3x224", "640x480", "aloha"]
    requests: int


@dataclasses.dataclass(frozen=True)
class Figures:
    """What came out; times in ms, those of the policy taken off."""

    which: Which
    load: Load
    p50_ms: float
    p99_ms: float
    requests_per_s: float

    def row(self) -> dict[str, Any]:
        """Plain data, for JSON and tables."""
        load = dataclasses.asdict(self.load)
        figures = {key: round(getattr(self, key), 3) for key in ("p50_ms", "p99_ms", "requests_per_s")}
        return {"server": self.which, **load, **figures}


def measure(policy: str, loads: Sequence[Load], published_python: Path | None, rounds: int) -> Iterator[list[Figures]]:
    """Figures of each load on this policy: of our server and, where its interpreter is given, the published one."""
    servers: tuple[Which, ...] = ("ours", "published") if published_python else ("ours",)
    with contextlib.ExitStack() as stack:
        ports = {which: stack.enter_context(_server(which, policy, published_python)) for which in servers}
        for load in loads:
            yield _take_turns(load, ports, rounds)


def _take_turns(load: Load, ports: Mapping[Which, int], rounds: int) -> list[Figures]:
    times: dict[Which, list[float]] = {which: [] for which in ports}
    rates: dict[Which, list[float]] = {which: [] for which in ports}
    for _, (which, port) in itertools.product(range(rounds), ports.items()):
        took, rate = asyncio.run(_ask(port, load))
        times[which] += took
        rates[which].append(rate)
    return [_figures(which, load, times[which], rates[which]) for which in ports]


def observation(form: str) -> dict[str, Any]:
    """An observation of the form that a Load names."""
    rng = np.random.default_rng(0)
    state = {"state": np.zeros(14, np.float32), "prompt": "transfer the cube"}
    if form == "640x480":
        return {**state, "image": rng.integers(256, size=(480, 640, 3), dtype=np.uint8)}
    names = ("cam_high", "cam_left_wrist", "cam_right_wrist")
    return {**state, "images": {name: rng.integers(256, size=(3, 224, 224), dtype=np.uint8) for name in names}}


def _figures(which: Which, load: Load, times: list[float], rates: list[float]) -> Figures:
    p50, p99 = np.percentile(times, [50, 99])
    return Figures(which, load, float(p50), float(p99), float(np.median(rates)))


async def _ask(port: int, load: Load) -> tuple[list[float], float]:
    """Overhead of every request [ms], and requests per second of all clients together."""
    async with _clients(port, load.clients) as clients:
        await asyncio.gather(*(_ask_one(client, load, WARM_UP_REQUESTS) for client in clients))
        start = time.perf_counter()
        taken = await asyncio.gather(*(_ask_one(client, load, load.requests) for client in clients))
        elapsed = time.perf_counter() - start
    return [one for client_times in taken for one in client_times], load.clients * load.requests / elapsed


async def _ask_one(client: AsyncWebsocketClientPolicy, load: Load, requests: int) -> list[float]:
    obs, own_ms = observation(load.observation), _own_ms(load.policy)
    times = []
    for _ in range(requests):
        start = time.perf_counter()
        result = await client.infer(obs)
        total_ms = (time.perf_counter() - start) * 1e3
        times.append(total_ms - (result["server_timing"]["infer_ms"] if own_ms is None else own_ms))
    return times


def _own_ms(policy: str) -> float | None:
    """The stub's own time, known beforehand; None where the server's word has to do."""
    return {"instant": 0.0, "accelerator": benchmark_server.RUN_S * 1e3}.get(policy)


@contextlib.asynccontextmanager
async def _clients(port: int, number: int) -> AsyncIterator[list[AsyncWebsocketClientPolicy]]:
    options = ClientOptions(timeout_s=60.0, connect_timeout_s=START_S)
    clients = [AsyncWebsocketClientPolicy(f"ws://127.0.0.1:{port}", options=options) for _ in range(number)]
    try:
        await asyncio.gather(*(client.connect() for client in clients))
        yield clients
    finally:
        await asyncio.gather(*(client.close() for client in clients))


@contextlib.contextmanager
def _server(which: Which, policy: str, published_python: Path | None) -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    arguments = [str(Path(benchmark_server.__file__)), which, policy, str(port)]
    python = Path(sys.executable)
    if which == "published" and published_python:
        python = python if policy == "tiny" else published_python
        arguments.append(str(next(published_python.parent.parent.glob("lib/python*/site-packages"))))
    quiet = subprocess.DEVNULL
    # -P: the folder of the script is no place to import from.
    process = subprocess.Popen([str(python), "-P", *arguments], stdout=quiet, stderr=quiet, env=_environment())
    try:
        yield port
    finally:
        process.terminate()
        process.wait(10)


def _environment() -> dict[str, str]:
    return {**os.environ, "JAX_PLATFORMS": os.environ.get("JAX_PLATFORMS", "cpu")}
