from pathlib import Path

import numpy as np
import pytest

from openpi.strategy_study import comparison
from openpi_sim.aloha.delayed import DelayedLoop, NoisyExpert, PolicyInput, Trace
from openpi_sim.aloha.expert import Expert
from openpi_sim.aloha.world import AlohaWorld


def trace(wanted: list[float], boundary: list[bool]) -> Trace:
    rows = np.tile(np.array(wanted)[:, None], (1, 14))
    return Trace(
        wanted=rows,
        commands=rows,
        boundary=np.array(boundary),
        inside=np.full((5, 14), 0.01),
        starved=3,
        cut=1,
        success=True,
    )


def test_figures_hand_computed() -> None:
    made = trace([0.0, 0.1, 0.3, 0.3, 0.2], [False, False, True, False, True])
    assert comparison.boundary_jumps(made) == pytest.approx([0.2, 0.1])
    third = np.diff([0.0, 0.1, 0.3, 0.3, 0.2], n=3) / 0.02**3
    assert comparison.jerk(made) == pytest.approx(np.mean(third**2))
    row = comparison.summarize("p", "latest", 100, [made, made], True)
    assert (row.boundary_max, row.inside_p95, row.largest) == pytest.approx((0.2, 0.01, 0.2))
    assert (row.starved, row.cut, row.success) == (3.0, 1.0, 1.0)


def test_table_and_plot(tmp_path: Path) -> None:
    made = trace([0.0, 0.1, 0.3, 0.3, 0.2], [False, False, True, False, True])
    rows = [comparison.summarize("p", "latest", delay, [made], False) for delay in (0, 100)]
    assert comparison.table(rows).count("| p | latest |") == 2
    comparison.plot(rows, tmp_path / "plots" / "strategies.png")
    assert (tmp_path / "plots" / "strategies.png").stat().st_size > 1000
    comparison.save_table(rows, tmp_path / "strategies.json")
    assert '"strategy": "latest"' in (tmp_path / "strategies.json").read_text()


@pytest.fixture(scope="module")
def world() -> AlohaWorld:
    return AlohaWorld("transfer_cube")


@pytest.fixture(scope="module")
def plan(world: AlohaWorld) -> np.ndarray:
    world.reset(0)
    return Expert("transfer_cube").plan(world.objects)


class Player:
    """A policy that knows the time: the plan from the observation's step on."""

    def __init__(self, plan: np.ndarray) -> None:
        self._plan, self._calls = plan, 0

    def infer(self, observation: PolicyInput) -> tuple[np.ndarray, int]:
        self._calls += 1
        return self._plan[np.minimum(np.arange(50), len(self._plan) - 1)], 0


def test_a_clean_chunk_reaches_the_arms_unchanged(world: AlohaWorld, plan: np.ndarray) -> None:
    world.reset(0)
    made = DelayedLoop("latest", 0, interval_steps=100).run(world, Player(plan), 45)
    assert made.commands == pytest.approx(plan[:45], abs=1e-9)
    assert (made.starved, made.cut) == (0, 0)


@pytest.mark.parametrize("strategy", ["latest", "temporal_ensemble", "rtc"])
def test_no_tick_starves_while_the_delay_fits_the_chunk(world: AlohaWorld, plan: np.ndarray, strategy: str) -> None:
    world.reset(0)
    made = DelayedLoop(strategy, 400_000_000).run(world, NoisyExpert(plan, 0.0, np.random.default_rng(0)), 200)
    assert made.starved == 0


def test_open_loop_starves_by_the_delay_of_every_chunk(world: AlohaWorld, plan: np.ndarray) -> None:
    world.reset(0)
    made = DelayedLoop("open_loop", 100_000_000).run(world, NoisyExpert(plan, 0.0, np.random.default_rng(0)), 155)
    assert 15 <= made.starved <= 30


def test_clean_expert_passes_unclamped_and_succeeds(world: AlohaWorld, plan: np.ndarray) -> None:
    world.reset(0)
    expert = NoisyExpert(plan, 0.0, np.random.default_rng(0))
    made = DelayedLoop("latest", 100_000_000, interval_steps=25).run(world, expert, len(plan) + 60)
    assert made.success
    assert (made.starved, made.cut) == (0, 0)
