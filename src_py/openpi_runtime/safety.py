"""The last check before a controller: nothing passes that is not finite, in range, and reachable in one tick."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float64

Vector = Float64[np.ndarray, " d"]
ROUNDING = 1e-9  # slack for sums of floats, far below any encoder


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limits:
    """What may be commanded, per action column, in the columns' own units (rad, m, gripper units).

    Attributes:
        lower, upper: range of positions.
        velocity: per second. acceleration: per second squared. Both may be infinite.
        gripper: True where the column is a gripper.
        delta: True where the column is a motion from where the robot is, so that 0 is to stand.
    """

    names: tuple[str, ...]
    lower: Vector
    upper: Vector
    velocity: Vector
    acceleration: Vector
    gripper: Bool[np.ndarray, " d"]
    delta: Bool[np.ndarray, " d"]

    @property
    def by_deltas(self) -> bool:
        """Whether the robot is moved by deltas (grippers aside)."""
        return bool(self.delta.any())

    def clip(self, command: Vector) -> Vector:
        """The nearest command in range."""
        return bounded(command, self.lower, self.upper)

    @property
    def range(self) -> Vector:
        """upper - lower."""
        return self.upper - self.lower


@dataclasses.dataclass(frozen=True, kw_only=True)
class Box:
    """A workspace in metres, in the frame of the robot's base: corners [3] each."""

    lower: Float64[np.ndarray, 3]
    upper: Float64[np.ndarray, 3]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SafetyRules:
    """How strict the filter is.

    Attributes:
        tolerance: part of a column's range by which a target may lie outside and be clamped; beyond it, HOLD.
        strikes: targets in a row faster than the velocity limit that lead to HOLD; fewer are clamped.
        max_step: rad (or m) between a target and the last command, beyond which HOLD follows at once; grippers
            and deltas are exempt.
        workspace: where end effectors may be; None: anywhere.
    """

    tolerance: float = 0.05
    strikes: int = 2
    max_step: float = 0.5
    workspace: Box | None = None


class Outcome(enum.Enum):
    """What the filter did with a target."""

    PASS = "pass"
    CLAMP = "clamp"
    HOLD = "hold"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Verdict:
    """The filter's answer: a command that may be published, and why it differs from the target."""

    outcome: Outcome
    command: Vector
    reason: str = ""


class _Refused(Exception):
    """A target that leads to HOLD; the message is the reason."""


def bounded(values: Vector, lower: Vector | float, upper: Vector | float) -> Vector:
    """np.clip, whose wrappers take five times as long for a vector as short as a robot's."""
    result: Vector = np.minimum(np.maximum(values, lower), upper)
    return result


class SafetyFilter:
    """Passes, clamps or refuses one target per tick.

    Whatever it is given, the command it returns lies within the limits and, where the last command did, within one
    tick's velocity limit of it.
    """

    def __init__(
        self,
        limits: Limits,
        period_s: float,
        rules: SafetyRules | None = None,
        end_effectors: Callable[[Vector], dict[str, Float64[np.ndarray, 3]]] | None = None,
    ) -> None:
        """end_effectors: forward kinematics, action columns -> position of each end effector in metres."""
        self.limits = limits
        self.rules = rules or SafetyRules()
        self._period_s = period_s
        self._end_effectors = end_effectors
        self._strikes = 0
        self._velocity = np.zeros_like(limits.lower)
        self._slack = self.rules.tolerance * limits.range
        self._longest = np.where(limits.gripper | limits.delta, np.inf, self.rules.max_step)
        self._reach = limits.velocity * period_s
        self._give = limits.acceleration * period_s**2
        if self.rules.workspace is not None and (end_effectors is None or limits.by_deltas):
            raise ValueError(
                "A workspace box needs forward kinematics of joint targets, which a robot that is moved by deltas does "
                "not have: give end_effectors, or leave workspace out."
            )

    def rest(self) -> None:
        """Forgets speed and strikes: the robot stands, as after a HOLD."""
        self._strikes = 0
        self._velocity = np.zeros_like(self._velocity)

    def misplaced(self, measured: Vector) -> str:
        """Which joints are measured so far outside their limits that a reading must be wrong; empty where none is."""
        wrong = (self._beyond(measured) > self._slack) & ~self.limits.gripper
        return f"{self._worst(wrong)} measured beyond the limits" if wrong.any() else ""

    def check(self, target: Vector, last: Vector) -> Verdict:
        """Checks a target against the last command (within limits). HOLD returns the last command."""
        last = self.limits.clip(last)
        try:
            self._refuse_wild(target, last)
            command, reasons = self._clamp(target, last)
            self._refuse_outside(command)
        except _Refused as refusal:
            self.rest()
            return Verdict(outcome=Outcome.HOLD, command=last, reason=str(refusal))
        self._velocity = (command - last) / self._period_s
        outcome = Outcome.CLAMP if reasons else Outcome.PASS
        return Verdict(outcome=outcome, command=command, reason="; ".join(reasons))

    def _refuse_wild(self, target: Vector, last: Vector) -> None:
        if not np.isfinite(target).all():
            raise _Refused(f"{self._worst(~np.isfinite(target))} is not finite")
        beyond = self._beyond(target)
        self._refuse(beyond > self._slack, beyond, "is beyond its limits by {:.3f}")
        step = np.abs(target - last)
        self._refuse(step > self._longest, step, "is a step of {:.3f} from the last command")

    def _clamp(self, target: Vector, last: Vector) -> tuple[Vector, list[str]]:
        lower, upper, reach = self.limits.lower, self.limits.upper, self._reach
        reasons: list[str] = []
        command = self._bound(target, lower, upper, "position", reasons)
        self._count_strike(np.abs(command - last) > reach + ROUNDING)
        command = self._bound(command, last - reach, last + reach, "velocity", reasons)
        glide = last + self._velocity * self._period_s
        command = self._bound(command, glide - self._give, glide + self._give, "acceleration", reasons)
        # Slowing down may not lead past a limit: position and velocity come before acceleration.
        return bounded(command, np.maximum(lower, last - reach), np.minimum(upper, last + reach)), reasons

    def _bound(self, command: Vector, lower: Vector, upper: Vector, what: str, reasons: list[str]) -> Vector:
        within = bounded(command, lower, upper)
        outside = np.abs(command - within) > ROUNDING
        if outside.any():
            reasons.append(f"{self._worst(outside)} clamped to its {what} limit")
        return within

    def _count_strike(self, fast: Bool[np.ndarray, " d"]) -> None:
        self._strikes = self._strikes + 1 if fast.any() else 0
        if self._strikes >= self.rules.strikes:
            raise _Refused(f"{self._worst(fast)} is faster than its velocity limit {self._strikes} times in a row")

    def _refuse_outside(self, command: Vector) -> None:
        box = self.rules.workspace
        if box is None or self._end_effectors is None:
            return
        for name, place in self._end_effectors(command).items():
            if (place < box.lower).any() or (place > box.upper).any():
                at = ", ".join(f"{value:.3f}" for value in place)
                raise _Refused(f"{name} would leave the workspace, at ({at}) m")

    def _beyond(self, place: Vector) -> Vector:
        """How far a place is outside the limits of position; negative inside."""
        return np.maximum(self.limits.lower - place, place - self.limits.upper)

    def _refuse(self, wrong: Bool[np.ndarray, " d"], size: Vector, text: str) -> None:
        if wrong.any():
            column = int(np.argmax(np.where(wrong, size, -np.inf)))
            raise _Refused(f"{self.limits.names[column]} {text.format(size[column])}")

    def _worst(self, wrong: Bool[np.ndarray, " d"]) -> str:
        return ", ".join(name for name, bad in zip(self.limits.names, wrong, strict=True) if bad)
