"""What a codec's actions are: how they are taken from a recording, and how a model's actions read for the robot."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from openpi.codecs import signals
from openpi.codecs.signals import Signals

GRIP_THRESHOLD = 0.5
VELOCITY_STEP = 0.2  # [rad] that a DROID joint turns in one step at velocity 1

Columns = dict[str, Any]


class ActionForm(Protocol):
    """A way to write actions as one vector a step."""

    def names(self, read: Signals) -> tuple[str, ...]:
        """A name for each value of the vector."""

    def from_recording(self, recording: Mapping[str, Any], read: Signals) -> np.ndarray:
        """[t, d]: the action of each recorded step."""

    def to_robot(self, actions: np.ndarray, observation: Mapping[str, Any], read: Signals) -> Columns:
        """A chunk [h, d], d as many as there are names, as commands by name, each [h, n]."""


@dataclasses.dataclass(frozen=True)
class AbsoluteTarget:
    """The commanded targets: `signal` (pose or joints) and the grip."""

    signal: str = signals.TARGET_POSE

    def names(self, read: Signals) -> tuple[str, ...]:
        return (*read.names(self.signal), signals.TARGET_GRIP)

    def from_recording(self, recording: Mapping[str, Any], read: Signals) -> np.ndarray:
        return np.concatenate([read.vector(recording, key) for key in (self.signal, signals.TARGET_GRIP)], axis=-1)

    def to_robot(self, actions: np.ndarray, observation: Mapping[str, Any], read: Signals) -> Columns:
        target, grip = actions[:, :-1], actions[:, -1:]
        target = read.pose_out(target) if self.signal in signals.POSES else target
        return {self.signal: target, signals.TARGET_GRIP: grip}


@dataclasses.dataclass(frozen=True)
class AbsoluteTrajectory:
    """Where the robot really was one step later (`state`), as a target for `signal`; the grip open or closed."""

    state: str = signals.EE_POSE
    signal: str = signals.TARGET_POSE

    def names(self, read: Signals) -> tuple[str, ...]:
        return AbsoluteTarget(self.signal).names(read)

    def from_recording(self, recording: Mapping[str, Any], read: Signals) -> np.ndarray:
        state, grip = _next(read.vector(recording, self.state)), _next(read.vector(recording, signals.GRIP))
        return np.concatenate([state, binarised(grip)], axis=-1)

    def to_robot(self, actions: np.ndarray, observation: Mapping[str, Any], read: Signals) -> Columns:
        commands = AbsoluteTarget(self.signal).to_robot(actions, observation, read)
        return {**commands, signals.TARGET_GRIP: binarised(commands[signals.TARGET_GRIP])}


@dataclasses.dataclass(frozen=True)
class JointDelta:
    """DROID: joint velocities in -1..1 and a grip that is open or closed; becomes absolute joint targets.

    A step with any velocity beyond 1 is scaled down as a whole, so that the direction of motion is kept.
    """

    def names(self, read: Signals) -> tuple[str, ...]:
        velocities = (f"joint_velocity_{joint}" for joint in range(read.size(signals.TARGET_JOINTS)))
        return (*velocities, signals.TARGET_GRIP)

    def from_recording(self, recording: Mapping[str, Any], read: Signals) -> np.ndarray:
        joints, targets = read.vector(recording, signals.JOINTS), read.vector(recording, signals.TARGET_JOINTS)
        velocity = within_one((targets - joints) / VELOCITY_STEP)
        return np.concatenate([velocity, binarised(read.vector(recording, signals.TARGET_GRIP))], axis=-1)

    def to_robot(self, actions: np.ndarray, observation: Mapping[str, Any], read: Signals) -> Columns:
        deltas = VELOCITY_STEP * within_one(actions[:, :-1])
        targets = read.vector(observation, signals.JOINTS) + np.cumsum(deltas, axis=0)
        return {signals.TARGET_JOINTS: targets, signals.TARGET_GRIP: binarised(actions[:, -1:])}


def binarised(grip: np.ndarray) -> np.ndarray:
    """0 or 1, whichever is nearer."""
    return (grip > GRIP_THRESHOLD).astype(np.float32)


def within_one(velocity: np.ndarray) -> np.ndarray:
    """Each row scaled down so that no value is beyond 1."""
    return velocity / np.maximum(np.abs(velocity).max(axis=-1, keepdims=True), 1.0)


def _next(values: np.ndarray) -> np.ndarray:
    return np.concatenate([values[1:], values[-1:]])
