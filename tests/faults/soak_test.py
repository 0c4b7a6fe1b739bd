"""Five minutes of running with faults in between: memory does not grow, nothing leaves the limits."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fault_world import EXECUTOR, POLICY, Report, World, judged

SECONDS, WARM_UP_S, SAMPLE_S = 300.0, 60.0, 5.0
HALF_HOUR_S = 1800.0
ALLOWED_MB = 15.0  # in half an hour, extrapolated; the noise of the measurement is a few
NODES = (POLICY, EXECUTOR)


def resident_mb(pid: int) -> float:
    """Resident memory of a process."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


@pytest.mark.long
@pytest.mark.timeout(600)
def test_memory_does_not_grow(tmp_path: Path, report: Report) -> None:
    with judged(tmp_path, image_size=(240, 320)) as world:
        world.start(POLICY, backend="hold")
        world.start_executor(chunk_topic=f"{POLICY}/action_chunk")
        world.follow_policy()
        table = np.array(list(samples(world)))
    for name, memory in zip(NODES, table.T[1:], strict=True):
        growth = float(np.polyfit(table[:, 0], memory, 1)[0]) * HALF_HOUR_S
        report(f"{name}: {memory[-1]:.1f} MB, growth in 30 minutes as extrapolated, MB", growth)
        assert growth < ALLOWED_MB


def samples(world: World) -> Iterator[tuple[float, ...]]:
    """Seconds and each node's memory in MB, while joint states are lost for half a second every half minute."""
    begun = time.monotonic()
    while (elapsed := time.monotonic() - begun) < SECONDS:
        world.mock.silent = {"left"} if int(elapsed / SAMPLE_S) % 6 == 0 else set()
        time.sleep(0.5)
        world.mock.silent = set()
        time.sleep(SAMPLE_S - 0.5)
        if elapsed > WARM_UP_S:
            yield (elapsed, *(resident_mb(world.processes[name].pid) for name in NODES))
