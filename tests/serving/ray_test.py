"""The Ray Serve application: two replicas of the tiny model, in an environment of its own that has Ray."""

import json
import os
import socket
import subprocess
import sysconfig
from pathlib import Path

import pytest
import serving_peers as peers

import openpi

REQUIREMENTS = ("ray[serve]==2.60.0",)

# The waits are for machines that are busy with other things.
SETTINGS = {
    "JAX_PLATFORMS": "cpu",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_raylet_start_wait_time_s": "200",
    "RAY_agent_register_timeout_ms": "200000",
}

START = """
import asyncio, json, os, signal, sys, time, urllib.request
import ray
from ray import serve
from openpi.policies.aloha_policy import make_aloha_example
from openpi.serving import ray_app
from openpi_client import errors
from openpi_client.async_client import AsyncWebsocketClientPolicy, ClientOptions

PORT = int(sys.argv[1])
OPTIONS = ClientOptions(timeout_s=240, connect_timeout_s=240)
for attempt in range(4):  # Ray gives up its own start when its helpers take longer than it waits
    try:
        ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False, configure_logging=False)
        break
    except Exception as error:
        print("NO RAY", error, flush=True)
        ray.shutdown()
else:
    sys.exit()
serve.start(http_options={"host": "127.0.0.1", "port": PORT})

def client(path=""):
    return AsyncWebsocketClientPolicy(f"ws://127.0.0.1:{PORT}/{path}", options=OPTIONS)

def replicas():
    return serve.status().applications["default"].deployments["PolicyReplica"].replica_states

def healthz():
    return urllib.request.urlopen(f"http://127.0.0.1:{PORT}/healthz", timeout=60).read().decode()
"""

END = """
print("RESULT", json.dumps(asyncio.run(main())), flush=True)
serve.shutdown()
ray.shutdown()
"""

TINY_MODEL = """
arguments = {"config": "pi0_aloha_sim_small", "random_weights": "true", "replicas": "2", "batch": "2", "cpus": "0.5"}
serve.run(ray_app.application({**arguments, "models_in_memory": "2"}))

async def main():
    example, clients = make_aloha_example(), [client() for _ in range(6)]
    results = []
    for _ in range(3):
        results += await asyncio.gather(*(one.infer(example) for one in clients))
    other = await client("another").infer(example)
    try:
        await client().infer({"state": [1]})
        failure = ""
    except errors.InferenceError as error:
        failure = str(error)
    return {
        "shapes": sorted({str(result["actions"].shape) for result in [*results, other]}),
        "failure": failure,
        "running": replicas(),
        "health": healthz(),
        "metadata": clients[0].metadata,
    }
"""

# A stub that says which checkpoint and process answered.
LOAD_AND_FAULTS = """
class Slow:
    def __init__(self, name):
        if name == "broken":
            raise OSError("broken weights")
        self.name = name
    def infer(self, obs):
        time.sleep(0.2)
        return {"name": self.name, "pid": os.getpid()}

options = ray_app.RayOptions(
    replicas=1, max_replicas=2, ongoing=1, batch=1, cpus=0.1, grow_after_s=1, shrink_after_s=2, health_period_s=1
)
serve.run(ray_app.build(Slow, lambda wanted: wanted or "latest", options))

async def asked(until):
    clients, answers, end = [client() for _ in range(6)], [], time.monotonic() + 150
    while not until() and time.monotonic() < end:
        answers += await asyncio.gather(*(one.infer({}) for one in clients))
    return answers

async def main():
    said = {"before": replicas()}
    answers = await asked(lambda: replicas().get("RUNNING") == 2)
    said["under load"] = replicas()
    others = [await client(name).infer({}) for name in ("one", "two", "one")]
    said["names"] = [answers[0]["name"], *(other["name"] for other in others)]
    try:
        await client("broken").infer({})
    except errors.InferenceError as error:
        said["failure"] = str(error)
    end = time.monotonic() + 150
    while replicas() != {"RUNNING": 1} and time.monotonic() < end:
        await asyncio.sleep(0.5)
    said["afterwards"] = replicas()
    victim = (await client().infer({}))["pid"]
    os.kill(victim, signal.SIGKILL)
    survivor = None
    while survivor is None and time.monotonic() < end + 150:
        try:
            survivor = (await client().infer({}))["pid"]
        except (errors.PolicyClientError, ConnectionError):
            await asyncio.sleep(0.5)
    said["replaced"] = survivor not in (None, victim)
    said["health"] = healthz()
    return said
"""


@pytest.fixture(scope="module")
def python() -> str:
    """An interpreter with Ray that sees this project's environment too."""
    python = peers.interpreter("ray", REQUIREMENTS)
    site = next(Path(python).parent.parent.glob("lib/python*/site-packages"))
    sources = Path(openpi.__file__).parent.parent
    (site / "openpi-project.pth").write_text(f"{sources}\n{sysconfig.get_paths()['purelib']}\n")
    return python


def run(python: str, script: str, folder: Path) -> dict:
    """What the script's `main` returns."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    done = subprocess.run(
        [python, "-c", START + script + END, str(port)],
        capture_output=True,
        text=True,
        timeout=540,
        env={**os.environ, **SETTINGS},
        cwd=folder,
        check=False,
    )
    if "NO RAY" in done.stdout and "RESULT" not in done.stdout and done.returncode == 0:
        pytest.skip(f"Ray does not start on this machine: {done.stdout[-300:]}")
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    assert lines, done.stdout[-3000:] + done.stderr[-6000:]
    return json.loads(lines[0].removeprefix("RESULT "))


@pytest.mark.long
@pytest.mark.timeout(570)
def test_two_replicas_of_the_tiny_model(python, tmp_path):
    said = run(python, TINY_MODEL, tmp_path)
    assert said["shapes"] == ["(50, 14)"]
    assert said["running"] == {"RUNNING": 2}
    assert "'cam_high' is missing" in said["failure"]
    assert said["metadata"]["action_dim"] == 14
    assert said["health"] == "OK\n"


@pytest.mark.long
@pytest.mark.timeout(570)
def test_replicas_come_with_the_load_and_leave_and_are_replaced(python, tmp_path):
    said = run(python, LOAD_AND_FAULTS, tmp_path)
    assert said["before"] == {"RUNNING": 1}
    assert said["under load"] == {"RUNNING": 2}
    assert said["afterwards"] == {"RUNNING": 1}
    assert said["names"] == ["latest", "one", "two", "one"]
    assert "broken weights" in said["failure"]
    assert said["replaced"]
    assert said["health"] == "OK\n"
