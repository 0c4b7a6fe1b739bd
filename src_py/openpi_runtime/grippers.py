"""Grippers of a robot description: their scales, and how a driver takes their commands."""

from __future__ import annotations

import dataclasses

from openpi_runtime.located_yaml import Entry


@dataclasses.dataclass(frozen=True, kw_only=True)
class Span:
    """The closed and open ends of a gripper on one scale."""

    closed: float
    open: float

    def fraction(self, value: float) -> float:
        """How far open `value` is: 0 closed, 1 open."""
        return (value - self.closed) / (self.open - self.closed)

    def at(self, fraction: float) -> float:
        """The value that is `fraction` open."""
        return self.closed + fraction * (self.open - self.closed)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Calibration:
    """One gripper on the driver's scales: `position` as joint states report it, `joint` as commands ask for it."""

    position: Span
    joint: Span


@dataclasses.dataclass(frozen=True, kw_only=True)
class GripperChannel:
    """Where a gripper is commanded apart from the arm, on the scale of `Calibration.joint`.

    Attributes:
        topic: std_msgs/Float64MultiArray with one value.
        action: control_msgs/action/GripperCommand, used instead of the topic where control_msgs is installed.
        max_effort: N or Nm, as the gripper's driver counts it; 0 leaves it to the driver.
    """

    topic: str
    action: str = ""
    max_effort: float = 0.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gripper:
    """A gripper of a group; its column is in runtime units (`RobotSpec.gripper_convention`).

    With a threshold its commands are binarised: wholly to the upper end above it, wholly to the lower one else.
    Without a channel the real robot takes it as the last value of the arm's command.
    """

    name: str
    state_joint: str
    command_joint: str
    calibration: Calibration
    calibrations: dict[str, Calibration]
    threshold: float | None = None
    channel: GripperChannel | None = None


def parse_gripper(entry: Entry, convention: Span) -> Gripper:
    """Reads the `gripper` of a group; `convention` has the ends of its runtime units.

    Raises:
        SpecError: a field is missing, unknown or wrong.
    """
    fields = entry.mapping(
        required=("name", "state_joint", "command_joint", "calibration", "calibrations"),
        optional=("threshold", "channel"),
    )
    calibrations = {name: _calibration(value) for name, value in fields["calibrations"].entries().items()}
    chosen = fields["calibration"].text(tuple(calibrations))
    ends = min(convention.closed, convention.open), max(convention.closed, convention.open)
    return Gripper(
        name=fields["name"].text(),
        state_joint=fields["state_joint"].text(),
        command_joint=fields["command_joint"].text(),
        calibration=calibrations[chosen],
        calibrations=calibrations,
        threshold=fields["threshold"].number(*ends) if "threshold" in fields else None,
        channel=_channel(fields["channel"]) if "channel" in fields else None,
    )


def parse_span(entry: Entry) -> Span:
    """Reads `{closed: .., open: ..}`. Raises SpecError, also where both are the same."""
    fields = entry.mapping(required=("closed", "open"))
    span = Span(closed=fields["closed"].number(-100, 100), open=fields["open"].number(-100, 100))
    if span.closed == span.open:
        raise entry.wrong("two different values for closed and open")
    return span


def _calibration(entry: Entry) -> Calibration:
    fields = entry.mapping(required=("position", "joint"))
    return Calibration(position=parse_span(fields["position"]), joint=parse_span(fields["joint"]))


def _channel(entry: Entry) -> GripperChannel:
    fields = entry.mapping(required=("topic",), optional=("action", "max_effort"))
    return GripperChannel(
        topic=fields["topic"].relative_name(),
        action=fields["action"].relative_name() if "action" in fields else "",
        max_effort=fields["max_effort"].number(0, 1000) if "max_effort" in fields else 0.0,
    )
