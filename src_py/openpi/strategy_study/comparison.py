"""Runs every strategy at every delay and measures how well chunks are joined."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

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
class Contender:
    """A strategy and the policy it is tried with.

    Attributes:
        name: in tables and plots. strategy: one of STRATEGIES.
        make_policy: makes the policy for an episode, from the world as it was reset and the episode's number.
    """

    name: str
    strategy: str
    make_policy: Callable[[AlohaWorld, int], ChunkPolicy]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """One contender at one delay, over all its episodes. Steps in rad from one tick to the next, largest joint.

    Attributes:
        boundary_max, boundary_p95: of the actions where one chunk follows another, before ramp and filter.
        inside_p95: between neighbouring actions of the chunks as they were predicted.
        largest: of the actions, anywhere.
        jerk: mean square of the commands' third difference, (rad/s^3)^2.
        starved, cut: ticks per episode.
        success: share of episodes that solved the task; None where the policy is not made to.
    """

    policy: str
    strategy: str
    delay_ms: int
    boundary_max: float
    boundary_p95: float
    inside_p95: float
    largest: float
    jerk: float
    starved: float
    cut: float
    success: float | None


def summarize(policy: str, name: str, delay_ms: int, traces: Sequence[Trace], counts_success: bool) -> Row:
    """Figures over several episodes."""
    jumps = np.concatenate([boundary_jumps(trace) for trace in traces])
    inside = np.concatenate([np.abs(trace.inside[:, ARMS]).max(axis=1) for trace in traces])
    return Row(
        policy=policy,
        strategy=name,
        delay_ms=delay_ms,
        boundary_max=float(jumps.max(initial=0.0)),
        boundary_p95=float(np.quantile(jumps, 0.95)) if len(jumps) else 0.0,
        inside_p95=float(np.quantile(inside, 0.95)),
        largest=float(max(steps(trace).max() for trace in traces)),
        jerk=float(np.mean([jerk(trace) for trace in traces])),
        starved=float(np.mean([trace.starved for trace in traces])),
        cut=float(np.mean([trace.cut for trace in traces])),
        success=float(np.mean([trace.success for trace in traces])) if counts_success else None,
    )


def steps(trace: Trace) -> np.ndarray:
    """Largest joint step of the strategy's actions from each tick to the next, rad; before ramp and filter."""
    return np.abs(np.diff(trace.wanted[:, ARMS], axis=0)).max(axis=1)


def boundary_jumps(trace: Trace) -> np.ndarray:
    """Those of the steps at which one chunk follows another."""
    return steps(trace)[trace.boundary[1:]]


def jerk(trace: Trace) -> float:
    """Mean square of the commands' third difference quotient over joints and time, (rad/s^3)^2."""
    return float(np.mean((np.diff(trace.commands[:, ARMS], n=3, axis=0) / PERIOD_S**3) ** 2))


def compare(
    policy: str,
    contenders: Sequence[Contender],
    ticks: int,
    episodes: int,
    counts_success: bool,
    say: Callable[[str], None],
) -> list[Row]:
    """Every contender at every delay, each on the same episodes."""
    world = AlohaWorld("transfer_cube")
    rows = []
    for contender in contenders:
        for delay_ms in DELAYS_MS:
            loop, traces = DelayedLoop(contender.strategy, delay_ms * 1_000_000), []
            for episode in range(episodes):
                world.reset(episode)
                traces.append(loop.run(world, contender.make_policy(world, episode), ticks))
            rows.append(summarize(policy, contender.name, delay_ms, traces, counts_success))
            say(str(rows[-1]))
    return rows


def compare_expert(episodes: int, seed: int, say: Callable[[str], None]) -> list[Row]:
    """The expert with chunk-wise noise: what becomes of the task."""
    expert = Expert("transfer_cube")

    def make(world: AlohaWorld, episode: int) -> NoisyExpert:
        return NoisyExpert(expert.plan(world.objects), EXPERT_NOISE, np.random.default_rng([seed, episode]))

    contenders = [Contender(name=name, strategy=name, make_policy=make) for name in STRATEGIES]
    return compare("noisy expert", contenders, EXPERT_TICKS, episodes, True, say)


def table(rows: Sequence[Row]) -> str:
    """Markdown."""
    columns = ("policy", "strategy", "delay ms", "boundary max", "boundary p95", "inside p95", "largest step", "jerk^2")
    lines = ["| " + " | ".join([*columns, "starved", "cut", "success"]) + " |", "|" + "---|" * 11]
    for row in rows:
        success = "" if row.success is None else f"{row.success:.0%}"
        lines.append(
            f"| {row.policy} | {row.strategy} | {row.delay_ms} | {row.boundary_max:.3f} | {row.boundary_p95:.3f} "
            f"| {row.inside_p95:.3f} | {row.largest:.3f} | {row.jerk:.2g} | {row.starved:.0f} | {row.cut:.0f} "
            f"| {success} |"
        )
    return "\n".join(lines)


def plot(rows: Sequence[Row], path: Path) -> None:
    """Boundary jumps, jerk and starved ticks over delay, one line per strategy, a row of plots per policy.

    Dotted: 95th percentile inside the chunks of rtc, which its boundary jumps should not exceed.
    """
    from matplotlib.figure import Figure

    policies = list(dict.fromkeys(row.policy for row in rows))
    quantities = {
        "boundary_p95": "boundary jump, 95th percentile, rad",
        "boundary_max": "largest boundary jump, rad",
        "jerk": "mean squared jerk, (rad/s^3)^2",
        "starved": "starved ticks",
    }
    figure = Figure(figsize=(15, 3.4 * len(policies)), layout="constrained")
    axes = figure.subplots(len(policies), len(quantities), squeeze=False)
    for policy, line in zip(policies, axes, strict=True):
        mine = [row for row in rows if row.policy == policy]
        for (quantity, label), ax in zip(quantities.items(), line, strict=True):
            for name in dict.fromkeys(row.strategy for row in mine):
                _draw(ax, [row for row in mine if row.strategy == name], quantity, "o-", name)
            ax.set(xlabel="delay, ms", ylabel=label, title=policy, yscale="linear" if quantity == "starved" else "log")
        _draw(line[0], [row for row in mine if row.strategy == "rtc"], "inside_p95", "k:", "inside rtc's chunks")
        line[0].legend(fontsize="small")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def _draw(ax: Any, rows: Sequence[Row], quantity: str, style: str, label: str) -> None:
    ax.plot([row.delay_ms for row in rows], [getattr(row, quantity) for row in rows], style, label=label)


def save_table(rows: Sequence[Row], path: Path) -> None:
    """JSON, one object per row."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([dataclasses.asdict(row) for row in rows], indent=2) + "\n")
