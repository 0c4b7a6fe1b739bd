"""Measures what a policy server adds to its policy's own time, ours beside the published one."""

import asyncio
import contextlib
import dataclasses
import json
import os
import random
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
PERCENT, RESAMPLED = (50, 99), 1000


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


@dataclasses.dataclass
class Turns:
    """What came out, turn by turn: times of the requests in ms, those of the policy taken off."""

    times: list[list[float]] = dataclasses.field(default_factory=list)
    rates: list[float] = dataclasses.field(default_factory=list)

    def row(self) -> dict[str, Any]:
        """Figures over all requests of all turns."""
        p50, p99 = np.percentile(np.concatenate(self.times), PERCENT)
        rate = float(np.median(self.rates))
        return {"p50_ms": round(p50, 3), "p99_ms": round(p99, 3), "requests_per_s": round(rate, 3)}


def ratios(ours: Turns, published: Turns) -> dict[str, str]:
    """Our percentiles over theirs, with the 95 % interval that drawing the turns again gives."""
    rng = np.random.default_rng(0)

    def percentiles(turns: Turns, chosen: Any) -> np.ndarray:
        return np.percentile(np.concatenate([turns.times[i] for i in chosen]), PERCENT)

    def drawn(turns: Turns) -> np.ndarray:
        return percentiles(turns, rng.integers(len(turns.times), size=len(turns.times)))

    every = range(len(ours.times))
    measured = percentiles(ours, every) / percentiles(published, every)
    low, high = np.percentile([drawn(ours) / drawn(published) for _ in range(RESAMPLED)], [2.5, 97.5], axis=0)
    names = [f"p{percent}_ratio" for percent in PERCENT]
    return {name: f"{m:.2f} ({a:.2f}-{b:.2f})" for name, m, a, b in zip(names, measured, low, high, strict=True)}


Ask = Callable[[Which, Load], tuple[list[float], float]]


def measure(
    policy: str, loads: Sequence[Load], published_python: Path | None, starts: int, rounds: int
) -> list[dict[str, Any]]:
    """Rows of each load on this policy: of our server and, where its interpreter is given, the published one.

    The servers take turns in random order, `rounds` turns (a fifth of that for several clients) for each of `starts`
    pairs of processes: where a process's memory comes to lie has its own influence.
    """
    servers: tuple[Which, ...] = ("ours", "published") if published_python else ("ours",)
    turns: dict[tuple[Load, Which], Turns] = {(load, which): Turns() for load in loads for which in servers}
    for _ in range(starts):
        with _servers(servers, policy, published_python) as ask:
            for which in servers:
                ask(which, Load(policy, 1, "3x224", 1))  # so that neither still loads while the other has its turn
            for load, which in _order(loads, servers, rounds):
                times, rate = ask(which, load)
                turns[load, which].times.append(times)
                turns[load, which].rates.append(rate)
    return [_row(load, which, turns) for load, which in turns]


def _order(loads: Sequence[Load], servers: Sequence[Which], rounds: int) -> Iterator[tuple[Load, Which]]:
    for load in loads:
        for _ in range(rounds if load.clients == 1 else max(1, rounds // 5)):  # the more clients, the clearer it is
            yield from ((load, which) for which in random.sample(servers, len(servers)))


def _row(load: Load, which: Which, turns: dict[tuple[Load, Which], Turns]) -> dict[str, Any]:
    row = {"server": which, **dataclasses.asdict(load), **turns[load, which].row()}
    compared = which == "ours" and (load, "published") in turns
    return row | (ratios(turns[load, "ours"], turns[load, "published"]) if compared else {})


@contextlib.contextmanager
def _servers(servers: Iterable[Which], policy: str, published_python: Path | None) -> Iterator[Ask]:
    with contextlib.ExitStack() as stack:
        ports = {which: stack.enter_context(_server(which, policy, published_python)) for which in servers}
        pythons = {"ours": Path(sys.executable), "published": published_python or Path(sys.executable)}

        def ask(which: Which, load: Load) -> tuple[list[float], float]:
            if load.client == "own":
                return _ask_apart(pythons[which], ports[which], load)
            return asyncio.run(_ask(ports[which], load))

        yield ask


def observation(form: str) -> dict[str, Any]:
    """An observation of the form that a Load names."""
    rng = np.random.default_rng(0)
    state = {"state": np.zeros(14, np.float32), "prompt": "transfer the cube"}
    if form == "640x480":
        return {**state, "image": rng.integers(256, size=(480, 640, 3), dtype=np.uint8)}
    names = ("cam_high", "cam_left_wrist", "cam_right_wrist")
    return {**state, "images": {name: rng.integers(256, size=(3, 224, 224), dtype=np.uint8) for name in names}}


async def _ask(port: int, load: Load) -> tuple[list[float], float]:
    """Overhead of every request [ms], and requests per second of all clients together."""
    warm_up = min(benchmark_client.WARM_UP_REQUESTS, load.requests)
    async with _clients(port, load.clients) as clients:
        await asyncio.gather(*(_ask_one(client, load, warm_up) for client in clients))
        start = time.perf_counter()
        taken = await asyncio.gather(*(_ask_one(client, load, load.requests) for client in clients))
        elapsed = time.perf_counter() - start
    return [one for client_times in taken for one in client_times], load.clients * load.requests / elapsed


def _ask_apart(python: Path, port: int, load: Load) -> tuple[list[float], float]:
    """As `_ask`, with the client that this interpreter has."""
    command = [str(python), "-P", str(Path(benchmark_client.__file__)), str(port), str(load.requests)]
    packed, environment = msgpack_numpy.packb(observation(load.observation)), _environment()
    done = subprocess.run(command, input=packed, stdout=subprocess.PIPE, check=True, timeout=START_S, env=environment)
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
    padding = "x" * random.randrange(4096)  # the size of the environment shifts what lies behind it
    return {**os.environ, "JAX_PLATFORMS": os.environ.get("JAX_PLATFORMS", "cpu"), "OPENPI_BENCH_PADDING": padding}
