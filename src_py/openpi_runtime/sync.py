"""Observations from streams that come at their own times: newest at or before, never too old."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Sequence
from typing import Any

FUTURE_NS = 100_000_000  # how far ahead of the clock a stamp may be: messages overtake /clock


def stamp_problem(stamp_ns: int, now_ns: int | None) -> str:
    """Why nobody can tell by its stamp how old a message is; empty where one can.

    One rule for cameras and for what measures the state, in every node. now_ns: None where there is no clock to
    compare with, as in a bag.
    """
    if stamp_ns == 0:
        return "its stamps are zero: its driver must fill in header.stamp"
    if now_ns is not None and stamp_ns > now_ns + FUTURE_NS:
        return "its stamps are ahead of the clock: synchronise the clocks"
    return ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gap:
    """One thing that is missing.

    Attributes:
        age_s: None where it never came.
        problem: why what comes is of no use, see `stamp_problem`; empty where nothing comes.
    """

    name: str
    age_s: float | None
    max_age_s: float
    problem: str = ""

    def __str__(self) -> str:
        if self.problem or self.age_s is None:
            return self.steady
        return f"{self.name} is {self.age_s:.2f} s old (at most {self.max_age_s:g} s)"

    @property
    def steady(self) -> str:
        """The same in words that do not change while the gap lasts."""
        if self.problem:
            return f"{self.name} cannot be used, {self.problem}"
        return f"{self.name} never came" if self.age_s is None else f"{self.name} older than {self.max_age_s:g} s"


@dataclasses.dataclass(frozen=True)
class Missing:
    """Why there is no observation: what is absent or too old, by name and age."""

    gaps: tuple[Gap, ...]

    def __str__(self) -> str:
        return "; ".join(str(gap) for gap in self.gaps)

    @property
    def steady(self) -> str:
        """The same in words that do not change while nothing comes: for states and logs."""
        return "; ".join(gap.steady for gap in self.gaps)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Observation:
    """One value per stream, each the newest at or before stamp_ns.

    Attributes:
        stamp_ns: the reference time asked for.
        values: stream name -> value; optional streams that are missing are absent.
        stamps_ns: stream name -> the value's own stamp.
    """

    stamp_ns: int
    values: dict[str, Any]
    stamps_ns: dict[str, int]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stream:
    """One input: how old it may be, and whether an observation needs it."""

    name: str
    max_age_ns: int
    required: bool = True


class ObservationSync:
    """Keeps the last values of each stream and picks the newest at or before a time."""

    def __init__(self, streams: Sequence[Stream], keep: int = 8) -> None:
        """keep: values remembered per stream."""
        self._streams = {stream.name: stream for stream in streams}
        self._values: dict[str, collections.deque[tuple[int, Any]]] = {
            stream.name: collections.deque(maxlen=keep) for stream in streams
        }
        self._problems: dict[str, str] = {}
        self.rejected: collections.Counter[str] = collections.Counter()

    def add(self, stream: str, stamp_ns: int, value: Any, now_ns: int | None = None) -> bool:
        """Takes a value; False where its stamp is not newer than the last one, or says nothing (`stamp_problem`).

        A source whose stamp is frozen or jumps back thus ages like a silent one.
        """
        values = self._values[stream]
        self._problems[stream] = stamp_problem(stamp_ns, now_ns)
        if self._problems[stream] or (values and stamp_ns <= values[-1][0]):
            self.rejected[stream] += 1
            return False
        values.append((stamp_ns, value))
        return True

    def sample(self, now_ns: int) -> Observation | Missing:
        """The newest value of each stream at or before now_ns, or what is missing."""
        found = {name: pick for name in self._streams if (pick := self._pick(name, now_ns)) is not None}
        fresh = {name: pick for name, pick in found.items() if now_ns - pick[0] <= self._streams[name].max_age_ns}
        lacking = [name for name, stream in self._streams.items() if stream.required and name not in fresh]
        if lacking:
            return Missing(tuple(self._gap(name, found.get(name), now_ns) for name in lacking))
        return Observation(
            stamp_ns=now_ns,
            values={name: value for name, (_, value) in fresh.items()},
            stamps_ns={name: stamp for name, (stamp, _) in fresh.items()},
        )

    def ages_s(self, now_ns: int) -> dict[str, float | None]:
        """Age of each stream's newest value; None where nothing came yet."""
        newest = {name: values[-1][0] if values else None for name, values in self._values.items()}
        return {name: None if stamp is None else (now_ns - stamp) / 1e9 for name, stamp in newest.items()}

    def clear(self) -> None:
        """Forgets every value, as after a jump of the clock."""
        for values in self._values.values():
            values.clear()
        self._problems.clear()

    def _pick(self, name: str, now_ns: int) -> tuple[int, Any] | None:
        return next(((stamp, value) for stamp, value in reversed(self._values[name]) if stamp <= now_ns), None)

    def _gap(self, name: str, pick: tuple[int, Any] | None, now_ns: int) -> Gap:
        age = None if pick is None else (now_ns - pick[0]) / 1e9
        limit = self._streams[name].max_age_ns / 1e9
        return Gap(name=name, age_s=age, max_age_s=limit, problem=self._problems.get(name, ""))
