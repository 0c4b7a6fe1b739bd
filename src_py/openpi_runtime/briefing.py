"""What an executor is about to command and within which limits, for the person who stands beside the robot."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

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
    safety = rules.safety
    first = f"first motion at {rules.ramp_speed:g} rad/s"
    hold = f"HOLD beyond a limit by {safety.tolerance:.0%} of its range, or at a step above {safety.max_step:g} rad"
    how = f"at {robot.rate_hz:g} Hz, controller {controller!r}:"
    return "\n  ".join([_headline(robot, simulated, dry_run), how, *names, *_rows(robot, limits), f"{first}; {hold}"])


def _headline(robot: RobotSpec, simulated: bool, dry_run: bool) -> str:
    kind = "SIMULATED" if simulated else "REAL"
    if dry_run:
        return f"DRY RUN: commands for the {kind} robot {robot.name!r} go to shadow topics and move nothing"
    return f"Commands move the {kind} robot {robot.name!r}"


def _rows(robot: RobotSpec, limits: Limits) -> Iterator[str]:
    for column, low, high, fast in zip(robot.action, limits.lower, limits.upper, limits.velocity, strict=True):
        unit, speed = _units(robot, column)
        name = f"{column.group} {column.joint}"
        yield f"{name:20} {low:7.3f} to {high:6.3f} {unit}, at most {fast:.3g} {speed}"


def _units(robot: RobotSpec, column: Column) -> tuple[str, str]:
    """Of what is commanded, which for columns of velocities is a position."""
    if robot.is_gripper(column):
        return f"({robot.gripper_convention.closed:g} closed, {robot.gripper_convention.open:g} open)", "per s"
    if column.kind == "delta":
        return "of a step", "per s"
    unit = "rad" if column.kind == "velocity" else column.unit
    return unit, f"{unit}/s"
