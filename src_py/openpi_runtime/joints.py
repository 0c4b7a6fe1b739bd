"""Joint states of several topics, in any order of names, as one state vector in runtime units."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64

from openpi_runtime.robots import Column, Group, RobotSpec
from openpi_runtime.sync import Gap, Missing, stamp_problem

HISTORY_NS = 5_000_000_000  # of merged states, to look up the state at an observation's time: longer than any request


@dataclasses.dataclass(frozen=True, kw_only=True)
class JointSample:
    """A merged state: values [n] in the order of the columns, read-only, stamped with the oldest source's stamp."""

    values: Float64[np.ndarray, " n"]
    stamp_ns: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Reading:
    value: float
    stamp_ns: int


class JointMerger:
    """Merges joint states by name. Gripper readings become runtime units by the spec's calibration."""

    def __init__(self, spec: RobotSpec, columns: Sequence[Column], max_age_ns: int) -> None:
        self._spec = spec
        self._columns = tuple(columns)
        self._keys = [(column.group, column.joint) for column in columns]
        self._max_age_ns = max_age_ns
        self._readings: dict[tuple[str, str], _Reading] = {}
        self._problems: dict[str, str] = {}
        self._newest: JointSample | None = None
        self._history: collections.deque[JointSample] = collections.deque()

    @property
    def topics(self) -> tuple[str, ...]:
        """The topics to feed `update` from, each once: joint states, then poses."""
        return self._spec.joint_topics + self._spec.pose_topics

    def update(
        self, topic: str, stamp_ns: int, names: Sequence[str], positions: Sequence[float], now_ns: int | None = None
    ) -> None:
        """Takes one message; a pose comes under the names `POSE_AXES`.

        A joint it does not name keeps its old reading, and so grows too old.

        A stamp slightly ahead of the clock counts as now. Left out are messages whose stamp says nothing
        (`sync.stamp_problem`), and readings that are not finite, or older than the one held.
        """
        self._problems[topic] = stamp_problem(stamp_ns, now_ns)
        if self._problems[topic]:
            return
        stamp_ns = stamp_ns if now_ns is None else min(stamp_ns, now_ns)
        given = {name: float(value) for name, value in zip(names, positions, strict=False) if np.isfinite(value)}
        for group in self._spec.groups:
            self._take(group, topic, stamp_ns, given)
        self._remember()

    def sample(self, now_ns: int) -> JointSample | Missing:
        """The merged state, or which joints are missing or too old."""
        if self._newest is not None and now_ns - self._newest.stamp_ns <= self._max_age_ns:
            return self._newest
        gaps = (self._gap(column, now_ns) for column in self._columns)
        return Missing(_by_source([gap for gap in gaps if gap is not None]))

    def at(self, stamp_ns: int) -> JointSample | None:
        """The newest merged state at or before stamp_ns, None where none is remembered that is young enough then."""
        found = next((sample for sample in reversed(self._history) if sample.stamp_ns <= stamp_ns), None)
        return None if found is None or stamp_ns - found.stamp_ns > self._max_age_ns else found

    def ages_s(self, now_ns: int) -> dict[str, float | str]:
        """Age of the oldest reading of each topic; "never" where a joint of it never came."""
        ages: dict[str, float | str] = {}
        for topic in self.topics:
            columns = [column for column in self._columns if self._source(column) == topic]
            readings = [self._readings.get((c.group, c.joint)) for c in columns]
            stamps = [reading.stamp_ns for reading in readings if reading is not None]
            ages[topic] = (now_ns - min(stamps)) / 1e9 if len(stamps) == len(columns) else "never"
        return ages

    def clear(self) -> None:
        """Forgets every reading, as after a jump of the clock."""
        self._readings.clear()
        self._newest = None
        self._history.clear()
        self._problems.clear()

    def _take(self, group: Group, topic: str, stamp_ns: int, given: dict[str, float]) -> None:
        for joint in (*group.joints, *group.sensed):
            if joint in given and group.source(joint) == topic:
                self._store((group.name, joint), stamp_ns, given[joint])
        gripper = group.gripper
        if gripper is not None and gripper.state_joint in given and group.joint_states == topic:
            opening = gripper.calibration.position.fraction(given[gripper.state_joint])
            self._store((group.name, gripper.name), stamp_ns, self._spec.gripper_convention.at(opening))

    def _store(self, key: tuple[str, str], stamp_ns: int, value: float) -> None:
        held = self._readings.get(key)
        if held is None or stamp_ns > held.stamp_ns:
            self._readings[key] = _Reading(value=value, stamp_ns=stamp_ns)

    def _remember(self) -> None:
        """Merges where every column was read: here, so that a control tick finds it done."""
        readings = [self._readings[key] for key in self._keys if key in self._readings]
        if len(readings) < len(self._keys):
            return
        values = np.array([reading.value for reading in readings], dtype=np.float64)
        values.setflags(write=False)
        self._newest = JointSample(values=values, stamp_ns=min(reading.stamp_ns for reading in readings))
        if not self._history or self._newest.stamp_ns > self._history[-1].stamp_ns:
            self._history.append(self._newest)
            while self._newest.stamp_ns - self._history[0].stamp_ns > HISTORY_NS:
                self._history.popleft()

    def _source(self, column: Column) -> str:
        return self._spec.group(column.group).source(column.joint)

    def _gap(self, column: Column, now_ns: int) -> Gap | None:
        held = self._readings.get((column.group, column.joint))
        topic = self._source(column)
        limit = self._max_age_ns / 1e9
        age_ns = None if held is None else now_ns - held.stamp_ns
        if age_ns is not None and age_ns <= self._max_age_ns:
            return None
        age_s = None if age_ns is None else age_ns / 1e9
        problem = self._problems.get(topic, "")
        return Gap(name=f"{topic} {column.joint}", age_s=age_s, max_age_s=limit, problem=problem)


def _by_source(gaps: list[Gap]) -> tuple[Gap, ...]:
    """One gap per topic and age, its joints named together: a silent topic gives one sentence, not seven."""
    groups: dict[tuple[str, float | None], list[Gap]] = {}
    for gap in gaps:
        groups.setdefault((gap.name.split(" ")[0], gap.age_s), []).append(gap)
    return tuple(
        Gap(
            name=f"{topic} ({', '.join(gap.name.split(' ', 1)[1] for gap in members)})",
            age_s=age,
            max_age_s=members[0].max_age_s,
            problem=members[0].problem,
        )
        for (topic, age), members in groups.items()
    )
