"""What an executor is about to command and within which limits, for the person who stands beside the robot."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from openpi_runtime.executor import ExecutorRules
from openpi_runtime.robots import Column, RobotSpec
from openpi_runtime.safety import Limits


def briefing(
    robot: RobotSpec,
    limits: Limits,
    rules: ExecutorRules,
    *,
    controller: str,
    names: Sequence[str],
    simulated: bool,
    dry_run: bool,
) -> str:
    """A short text.

    Args:
        names: the topics and actions commands go to.
        simulated, dry_run: whether anything real moves.
    """
    how = f"at {robot.rate_hz:g} Hz, controller {controller!r}:"
    return "\n  ".join(
        [_headline(robot, simulated, dry_run), how, *names, *_rows(robot, limits), _rules(robot, limits, rules)]
    )


def _headline(robot: RobotSpec, simulated: bool, dry_run: bool) -> str:
    kind = "SIMULATED" if simulated else "REAL"
    if dry_run:
        return f"DRY RUN: commands for the {kind} robot {robot.name!r} go to shadow topics and move nothing"
    return f"Commands move the {kind} robot {robot.name!r}"


def _rules(robot: RobotSpec, limits: Limits, rules: ExecutorRules) -> str:
    by_velocity = any(column.kind == "velocity" for column in robot.action)
    ramped = not (by_velocity or limits.by_deltas)
    first = f"first motion at {rules.ramp_speed:g} rad/s" if ramped else "no slower at first"
    hold = f"HOLD beyond a limit by {rules.safety.tolerance:.0%} of its range"
    return f"{first}; {hold}" + ("" if limits.by_deltas else f", or at a step above {rules.safety.max_step:g} rad")


def _rows(robot: RobotSpec, limits: Limits) -> Iterator[str]:
    for name, text in limit_texts(robot, limits).items():
        low, rest = text.split(" ", 1)
        yield f"{name:22} {low:>7} {rest}"


def limit_texts(robot: RobotSpec, limits: Limits) -> dict[str, str]:
    """What may be commanded, in words, by "group joint"."""
    texts = {}
    for column, low, high, fast in zip(robot.action, limits.lower, limits.upper, limits.velocity, strict=True):
        unit, speed = _units(robot, column)
        at_most = f", at most {fast:.3g} {speed}" if np.isfinite(fast) else ""
        texts[f"{column.group} {column.joint}"] = f"{low:.3f} to {high:.3f} {unit}{at_most}"
    return texts


def _units(robot: RobotSpec, column: Column) -> tuple[str, str]:
    """Of what is commanded, which for columns of velocities is a position."""
    if robot.is_gripper(column):
        return f"({robot.gripper_convention.closed:g} closed, {robot.gripper_convention.open:g} open)", "per s"
    if column.kind == "delta":
        return "of a step", "per s"
    unit = "rad" if column.kind == "velocity" else column.unit
    return unit, f"{unit}/s"
