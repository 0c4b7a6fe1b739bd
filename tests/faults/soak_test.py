"""Five minutes of running with faults in between: memory does not grow, nothing leaves the limits."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

Report = Callable[[str, float], None]
RUNNING = 1
SECONDS, WARM_UP_S, SAMPLE_S = 300.0, 60.0, 5.0
HALF_HOUR_S = 1800.0
ALLOWED_MB = 15.0  # in half an hour, extrapolated; the noise of the measurement is a few
NODES = ("openpi_policy_node", "chunk_executor_node")


def resident_mb(pid: int) -> float:
    """Resident memory of a process."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


@pytest.fixture
def world(tmp_path: Path, make_world: Any) -> Iterator[Any]:
    made = make_world(tmp_path, image_size=(240, 320))
    try:
        made.start("openpi_policy_node", backend="hold")
        made.start_executor(chunk_topic="openpi_policy_node/action_chunk")
        yield made
    finally:
        made.close()


@pytest.mark.long
@pytest.mark.timeout(600)
def test_memory_does_not_grow(world: Any, report: Report) -> None:
    world.run(True)
    world.wait_mode(RUNNING, timeout_s=60.0)
    begun = time.monotonic()
    samples: list[tuple[float, ...]] = []
    while (elapsed := time.monotonic() - begun) < SECONDS:
        silent = int(elapsed / SAMPLE_S) % 6 == 0
        world.mock.silent = {"left"} if silent else set()
        time.sleep(0.5)
        world.mock.silent = set()
        time.sleep(SAMPLE_S - 0.5)
        if elapsed > WARM_UP_S:
            samples.append((elapsed, *(resident_mb(world.processes[name].pid) for name in NODES)))
    assert world.offences() == []
    table = np.array(samples)
    for name, memory in zip(NODES, table.T[1:], strict=True):
        growth = float(np.polyfit(table[:, 0], memory, 1)[0]) * HALF_HOUR_S
        report(f"{name}: {memory[-1]:.1f} MB, growth in 30 minutes as extrapolated, MB", growth)
        assert growth < ALLOWED_MB
