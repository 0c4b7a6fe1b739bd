import dataclasses

import numpy as np
import pytest

from openpi_runtime.conftest import PERIOD_NS, Rig
from openpi_runtime.gate import ChunkGate

FUTURE_NS = 500_000_000


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"actions": np.zeros((50, 3))}, "wrong size: 50 x 3 instead of a horizon x 4"),
        ({"actions": np.zeros(4)}, "wrong size: 4 instead of"),
        ({"action_names": ("a", "b")}, "wrong names: a, b instead of left_elbow"),
        ({"actions": np.full((50, 4), np.inf)}, "not finite: left_elbow at step 0 is inf"),
        ({"period_ns": 2 * PERIOD_NS}, "wrong period: 40 ms instead of 20 ms"),
        ({"stamp_ns": 98_000_000_000}, "stale: its last step was due 1.020 s ago"),
        ({"stamp_ns": 101_000_000_000}, "from the future: stamped 1.000 s ahead"),
    ],
)
def test_refusals_say_why(rig: Rig, changes: dict, problem: str) -> None:
    gate = ChunkGate(rig.spec, FUTURE_NS)
    assert gate.admit(dataclasses.replace(rig.chunk(0.0), **changes), rig.now_ns).startswith(problem)
    assert gate.refused.total() == 1


def test_order_is_by_stamp_not_by_number(rig: Rig) -> None:
    gate = ChunkGate(rig.spec, FUTURE_NS)
    older, newer = rig.chunk(0.0), rig.chunk(0.0, stamp_ns=rig.now_ns + PERIOD_NS)
    restarted = dataclasses.replace(rig.chunk(0.0, stamp_ns=rig.now_ns + 2 * PERIOD_NS), chunk_id=1)
    assert gate.admit(newer, rig.now_ns) == ""
    assert gate.admit(older, rig.now_ns).startswith("out of order: stamped 0.020 s before chunk 2")
    assert gate.admit(newer, rig.now_ns).startswith("out of order")
    assert gate.admit(restarted, rig.now_ns) == ""
    gate.forget_order()
    assert gate.admit(older, rig.now_ns) == ""
