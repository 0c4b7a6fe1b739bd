"""From what was recorded, each signal at its own times, to the even steps that policies are trained on.

An observation at t has the newest state and pictures at or before t. Its action is the first command at or after t;
where nothing was commanded, as in a pause, the state one period later.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float64, Int64

from openpi_runtime.relative import action_state
from openpi_runtime.robots import RobotSpec

# Of the usual time between two commands (or steps): what comes later answers no observation before it.
_PAUSE = 3.0

Stamps = Int64[np.ndarray, " n"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stream:
    """Values [n, d] at growing times [n] ns; for commands, of the action columns named."""

    name: str
    stamps_ns: Stamps
    values: Float64[np.ndarray, "n d"]
    columns: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Demonstration:
    """Even steps of one episode.

    Attributes:
        times_ns: [t] of the observations.
        states: [t, s] in the order of the robot's state columns.
        targets: [t, a] what each action column is to reach: joints in rad, grippers in runtime units, deltas as such.
        pictures: camera -> [t] which of its pictures is seen.
    """

    times_ns: Stamps
    states: Float64[np.ndarray, "t s"]
    targets: Float64[np.ndarray, "t a"]
    pictures: dict[str, Int64[np.ndarray, " t"]]


def align(
    spec: RobotSpec,
    state: Stream,
    cameras: Mapping[str, Stamps],
    commands: Sequence[Stream],
    *,
    fps: float,
    max_age_s: float = 0.5,
) -> Demonstration:
    """Steps at `fps` from the first time at which everything has been seen to the last that has an action.

    Where commands were recorded, the first is the action of the first step: what stood still before it is left out.

    Args:
        commands: none, or streams that together hold every action column.

    Raises:
        ValueError: something was never recorded, or there is a gap of more than max_age_s; names signal and time.
    """
    sights = {"the state": state.stamps_ns, **{f"camera {name}": stamps for name, stamps in cameras.items()}}
    for name, stamps in [*sights.items(), *((command.name, command.stamps_ns) for command in commands)]:
        if not len(stamps):
            raise ValueError(f"{name} was never recorded")
    period_ns = 1e9 / fps
    times = _times(state, list(sights.values()), commands, period_ns)
    seen = {name: _newest(name, stamps, times, max_age_s) for name, stamps in sights.items()}
    states = state.values[seen["the state"]]
    return Demonstration(
        times_ns=times,
        states=states,
        targets=_targets(spec, commands, state, times, round(period_ns)),
        pictures={name: seen[f"camera {name}"] for name in cameras},
    )


def robot_actions(spec: RobotSpec, demonstration: Demonstration) -> Float64[np.ndarray, "t a"]:
    """The targets as the robot's policies predict them: velocity columns as the part of a step's displacement, the
    whole arm scaled down where a joint is beyond 1; all others as they are."""
    actions = demonstration.targets.copy()
    velocity = [column.kind == "velocity" for column in spec.action]
    if any(velocity):
        measured = np.array([action_state(spec, state) for state in demonstration.states])
        moved = (demonstration.targets - measured)[:, velocity] / spec.velocity_step
        actions[:, velocity] = moved / np.maximum(np.abs(moved).max(axis=1, keepdims=True), 1.0)
    return actions


def _times(state: Stream, sights: Sequence[Stamps], commands: Sequence[Stream], period_ns: float) -> Stamps:
    """Of the steps: from the first time at which everything has been seen to the last that has an action."""
    begin = max(stamps[0] for stamps in sights)
    if commands:
        begin = max(begin, min(command.stamps_ns[0] for command in commands) - round(period_ns))
    # The last observation's action must have been recorded too.
    ends = [command.stamps_ns[-1] for command in commands] or [state.stamps_ns[-1] - period_ns]
    end = min([*ends, *(stamps[-1] for stamps in sights)])
    if end < begin:
        raise ValueError("state, pictures and commands were not recorded at the same time")
    return begin + np.round(np.arange(int((end - begin) // period_ns) + 1) * period_ns).astype(np.int64)


def _newest(name: str, stamps: Stamps, times: Stamps, max_age_s: float) -> Int64[np.ndarray, " t"]:
    """Which of the samples is the newest at or before each time."""
    index = np.searchsorted(stamps, times, side="right") - 1
    ages_s = (times - stamps[index]) / 1e9
    if ages_s.max() > max_age_s:
        late = int(ages_s.argmax())
        at_s = (times[late] - times[0]) / 1e9
        raise ValueError(f"{name} is {ages_s[late]:.2f} s old at {at_s:.2f} s; at most {max_age_s:g} s is allowed")
    return index


def _targets(
    spec: RobotSpec, commands: Sequence[Stream], state: Stream, times: Stamps, period_ns: int
) -> Float64[np.ndarray, "t a"]:
    """The first command at or after each time; where there is none, or a pause before it, what the robot did: where it
    was a period later.

    So also for a gripper that nobody commanded on a topic: bags hold no goals of its action.
    """
    deltas = np.array([column.kind == "delta" for column in spec.action])
    if not commands and deltas.any():
        names = ", ".join(spec.action[column].name for column in np.flatnonzero(deltas))
        raise ValueError(f"no command was recorded, and the deltas {names} do not follow from the state")
    did = np.where(deltas, 0.0, _reached(spec, state, times + period_ns))
    if not commands:
        return did
    commanded = {column for command in commands for column in command.columns}
    missing = [column for number, column in enumerate(spec.action) if number not in commanded]
    if others := [column.name for column in missing if not spec.is_gripper(column)]:
        raise ValueError(f"no command was recorded for {', '.join(others)}")
    targets = _commanded(spec, commands, times, period_ns)
    return np.where(np.isnan(targets), did, targets)


def _commanded(
    spec: RobotSpec, commands: Sequence[Stream], times: Stamps, period_ns: int
) -> Float64[np.ndarray, "t a"]:
    """The first command at or after each time, NaN in columns without and where nobody commanded for a while."""
    targets = np.full((len(times), len(spec.action)), np.nan)
    for command in commands:
        usual_ns = max(period_ns, np.median(np.diff(command.stamps_ns))) if len(command.stamps_ns) > 1 else period_ns
        index = np.searchsorted(command.stamps_ns, times, side="left")
        soon = command.stamps_ns[index] - times <= _PAUSE * usual_ns
        targets[:, list(command.columns)] = np.where(soon[:, None], command.values[index], np.nan)
    return targets


def _reached(spec: RobotSpec, state: Stream, times: Stamps) -> Float64[np.ndarray, "t a"]:
    """The state at each time, as a command to get there."""
    index = np.searchsorted(state.stamps_ns, times, side="right") - 1
    return np.array([action_state(spec, values) for values in state.values[index]])
