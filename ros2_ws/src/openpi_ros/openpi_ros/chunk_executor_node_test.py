from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: source setup/env.sh")
pytest.importorskip("openpi_msgs.msg", reason="needs the built workspace: make setup")

from openpi_ros.chunk_executor_node import make_executor
from openpi_ros.parameters import load_specs
from openpi_ros.tick_statistics import TickStatistics
from openpi_runtime.executor import ExecutorRules
from openpi_runtime.robots import load_robot


def params(**changes: Any) -> dict[str, Any]:
    return {name: spec.default for name, spec in load_specs("chunk_executor_node").items()} | changes


def test_defaults_of_the_parameters_are_those_of_the_executor() -> None:
    executor = make_executor(load_robot("aloha"), params())
    assert executor.rules == ExecutorRules()
    assert executor.limits.names == load_robot("aloha").action_names


@pytest.mark.parametrize("strategy", ["open_loop", "latest", "temporal_ensemble", "rtc"])
def test_every_strategy_can_be_chosen(strategy: str) -> None:
    assert make_executor(load_robot("aloha"), params(strategy=strategy)).mode.name == "IDLE"


def test_workspace_box_reaches_the_filter() -> None:
    executor = make_executor(load_robot("aloha"), params(workspace=[-1.0, -1.0, 0.0, 1.0, 1.0, 1.0]))
    box = executor.rules.safety.workspace
    assert box is not None
    assert np.array_equal(box.upper, np.ones(3))


@pytest.mark.parametrize("corners", [[0.0, 1.0], [0.0, 0.0, 0.0, 1.0, 1.0, -1.0]])
def test_wrong_workspace_is_a_sentence(corners: list[float]) -> None:
    with pytest.raises(ValueError, match=r"Parameter 'workspace' is .* must be empty or six numbers"):
        make_executor(load_robot("aloha"), params(workspace=corners))


def test_statistics_of_ticks_and_chunks() -> None:
    statistics = TickStatistics()
    ms = 1_000_000
    statistics.accepted(7, 10 * ms, 11 * ms)
    statistics.ticked(0, 6, 12 * ms, 13 * ms)
    statistics.ticked(2 * ms, 7, 32 * ms, 32 * ms + ms // 2)  # due at 30, so that 19 were the wait
    statistics.ticked(0, 7, 50 * ms, 51 * ms)
    figures = statistics.figures()
    assert figures["ticks"] == 3
    assert figures["tick_jitter_p50_ms"] == 0.0
    assert figures["chunk_to_command_p50_ms"] == pytest.approx(3.5)


def test_a_chunk_that_comes_while_its_tick_is_overdue_waits_for_none() -> None:
    statistics = TickStatistics()
    ms = 1_000_000
    statistics.accepted(7, 10 * ms, 11 * ms)
    statistics.ticked(3 * ms, 7, 12 * ms, 13 * ms)
    assert statistics.figures()["chunk_to_command_p50_ms"] == pytest.approx(3.0)
