"""Runs every strategy at every delay and measures how well chunks are joined."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from openpi_runtime.strategies import STRATEGIES
from openpi_sim.aloha.delayed import ChunkPolicy, DelayedLoop, NoisyExpert, Trace
from openpi_sim.aloha.expert import Expert
from openpi_sim.aloha.world import AlohaWorld

DELAYS_MS = (0, 100, 200, 400)
PERIOD_S = 0.02
ARMS = [i for i in range(14) if i % 7 != 6]  # joints; a gripper may jump
EXPERT_NOISE = 0.01  # rad
EXPERT_TICKS = 1000  # twice the expert's own time: open_loop waits for every chunk


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """One strategy at one delay, over all its episodes. Jumps in rad from one tick to the next, largest joint.

    Attributes:
        boundary_max, boundary_p95: where one chunk follows another, before ramp and filter.
        inside_p95: between neighbouring actions of the chunks as they were predicted.
        jerk: mean square of the commands' third difference, (rad/s^3)^2.
        starved, clamped: ticks per episode.
        success: share of episodes that solved the task; None where the policy is not made to.
    """

    policy: str
    strategy: str
    delay_ms: int
    boundary_max: float
    boundary_p95: float
    inside_p95: float
    jerk: float
    starved: float
    clamped: float
    success: float | None


def summarize(policy: str, strategy: str, delay_ms: int, traces: Sequence[Trace], counts_success: bool) -> Row:
    """Figures over several episodes."""
    jumps = np.concatenate([boundary_jumps(trace) for trace in traces])
    inside = np.concatenate([np.abs(trace.inside[:, ARMS]).max(axis=1) for trace in traces])
    return Row(
        policy=policy,
        strategy=strategy,
        delay_ms=delay_ms,
        boundary_max=float(jumps.max(initial=0.0)),
        boundary_p95=float(np.quantile(jumps, 0.95)) if len(jumps) else 0.0,
        inside_p95=float(np.quantile(inside, 0.95)),
        jerk=float(np.mean([jerk(trace) for trace in traces])),
        starved=float(np.mean([trace.starved for trace in traces])),
        clamped=float(np.mean([trace.clamped for trace in traces])),
        success=float(np.mean([trace.success for trace in traces])) if counts_success else None,
    )


def boundary_jumps(trace: Trace) -> np.ndarray:
    """Largest joint step of the strategy's actions at each change of chunk, rad; before ramp and filter."""
    steps = np.abs(np.diff(trace.wanted[:, ARMS], axis=0)).max(axis=1)
    return steps[trace.boundary[1:]]


def jerk(trace: Trace) -> float:
    """Mean square of the commands' third difference quotient over joints and time, (rad/s^3)^2."""
    return float(np.mean((np.diff(trace.commands[:, ARMS], n=3, axis=0) / PERIOD_S**3) ** 2))


def compare(
    name: str,
    make_policy: Callable[[AlohaWorld, int], ChunkPolicy],
    ticks: int,
    episodes: int,
    counts_success: bool,
    say: Callable[[str], None],
) -> list[Row]:
    """Every strategy at every delay, each on the same episodes."""
    world = AlohaWorld("transfer_cube")
    rows = []
    for strategy in STRATEGIES:
        for delay_ms in DELAYS_MS:
            loop, traces = DelayedLoop(strategy, delay_ms * 1_000_000), []
            for episode in range(episodes):
                world.reset(episode)
                policy = make_policy(world, episode)
                traces.append(loop.run(world, policy, ticks))
            rows.append(summarize(name, strategy, delay_ms, traces, counts_success))
            say(str(rows[-1]))
    return rows


def compare_expert(episodes: int, say: Callable[[str], None]) -> list[Row]:
    """The expert with chunk-wise noise: what becomes of the task."""
    expert = Expert("transfer_cube")

    def make(world: AlohaWorld, episode: int) -> NoisyExpert:
        return NoisyExpert(expert.plan(world.objects), EXPERT_NOISE, np.random.default_rng(episode))

    return compare("noisy expert", make, EXPERT_TICKS, episodes, True, say)


def table(rows: Sequence[Row]) -> str:
    """Markdown."""
    head = (
        "| policy | strategy | delay ms | boundary jump max | p95 | inside p95 | jerk^2 | starved | clamped | success |"
    )
    lines = [head, "|" + "---|" * 10]
    for row in rows:
        success = "" if row.success is None else f"{row.success:.0%}"
        lines.append(
            f"| {row.policy} | {row.strategy} | {row.delay_ms} | {row.boundary_max:.3f} | {row.boundary_p95:.3f} "
            f"| {row.inside_p95:.3f} | {row.jerk:.3g} | {row.starved:.0f} | {row.clamped:.0f} | {success} |"
        )
    return "\n".join(lines)


def plot(rows: Sequence[Row], path: Path) -> None:
    """Boundary jumps, jerk and starved ticks over delay, one line per strategy, a row of plots per policy."""
    from matplotlib.figure import Figure

    policies = list(dict.fromkeys(row.policy for row in rows))
    quantities = {"boundary_max": "largest boundary jump, rad", "jerk": "mean squared jerk", "starved": "starved ticks"}
    figure = Figure(figsize=(12, 3.4 * len(policies)), layout="constrained")
    axes = figure.subplots(len(policies), len(quantities), squeeze=False)
    for policy, line in zip(policies, axes, strict=True):
        for (quantity, label), ax in zip(quantities.items(), line, strict=True):
            for strategy in STRATEGIES:
                mine = [row for row in rows if (row.policy, row.strategy) == (policy, strategy)]
                ax.plot([row.delay_ms for row in mine], [getattr(row, quantity) for row in mine], "o-", label=strategy)
            ax.set(xlabel="delay, ms", ylabel=label, title=policy, yscale="log" if quantity == "jerk" else "linear")
    axes[0][0].legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def save_table(rows: Sequence[Row], path: Path) -> None:
    """JSON, one object per row."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([dataclasses.asdict(row) for row in rows], indent=2) + "\n")
