"""Measures what a policy server adds to its policy's own time, ours beside the published one."""

import asyncio
import contextlib
import dataclasses
import itertools
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from openpi.serving import benchmark_client, benchmark_server
from openpi_client import msgpack_numpy
from openpi_client.async_client import AsyncWebsocketClientPolicy, ClientOptions

Which = Literal["ours", "published"]
START_S = 900.0  # compiling takes its time on a busy machine


@dataclasses.dataclass(frozen=True)
class Load:
    """What is asked for: of which policy, by how many clients, with which observation, how often each.

    client: "async": our asynchronous one for both servers. "own": the drop-in client of the server's own package, a
    single one in a process of its own; so a user of that package has it.
    """

    policy: str
    clients: int
    observation: Literal["3x224", "640x480"]
    requests: int
    client: Literal["async", "own"] = "async"


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
        pythons = {"ours": Path(sys.executable), "published": published_python or Path(sys.executable)}

        def ask(which: Which, load: Load) -> tuple[list[float], float]:
            if load.client == "own":
                return _ask_apart(pythons[which], ports[which], load)
            return asyncio.run(_ask(ports[which], load))

        for load in loads:
            yield _take_turns(load, servers, rounds, ask)


Ask = Callable[[Which, Load], tuple[list[float], float]]


def _take_turns(load: Load, servers: Iterable[Which], rounds: int, ask: Ask) -> list[Figures]:
    times: dict[Which, list[float]] = {which: [] for which in servers}
    rates: dict[Which, list[float]] = {which: [] for which in servers}
    for _, which in itertools.product(range(rounds), times):
        took, rate = ask(which, load)
        times[which] += took
        rates[which].append(rate)
    return [_figures(which, load, times[which], rates[which]) for which in times]


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
        await asyncio.gather(*(_ask_one(client, load, benchmark_client.WARM_UP_REQUESTS) for client in clients))
        start = time.perf_counter()
        taken = await asyncio.gather(*(_ask_one(client, load, load.requests) for client in clients))
        elapsed = time.perf_counter() - start
    return [one for client_times in taken for one in client_times], load.clients * load.requests / elapsed


def _ask_apart(python: Path, port: int, load: Load) -> tuple[list[float], float]:
    """As `_ask`, with the client that this interpreter has."""
    command = [str(python), "-P", str(Path(benchmark_client.__file__)), str(port), str(load.requests)]
    packed = msgpack_numpy.packb(observation(load.observation))
    done = subprocess.run(command, input=packed, stdout=subprocess.PIPE, check=True, timeout=START_S)
    times = json.loads(done.stdout)
    rate = 1e3 * len(times) / sum(total_ms for total_ms, _ in times)
    return [total_ms - _policy_ms(load, told_ms) for total_ms, told_ms in times], rate


async def _ask_one(client: AsyncWebsocketClientPolicy, load: Load, requests: int) -> list[float]:
    obs = observation(load.observation)
    times = []
    for _ in range(requests):
        start = time.perf_counter()
        result = await client.infer(obs)
        total_ms = (time.perf_counter() - start) * 1e3
        times.append(total_ms - _policy_ms(load, result["server_timing"]["infer_ms"]))
    return times


def _policy_ms(load: Load, told_ms: float) -> float:
    """The policy's own time: of a stub known beforehand, else what the server tells."""
    return {"instant": 0.0, "accelerator": benchmark_server.RUN_S * 1e3}.get(load.policy, told_ms)


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
