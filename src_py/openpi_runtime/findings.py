"""What `openpi doctor` finds: judgements on what was looked up or heard, each with what to do."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Sequence

from openpi_runtime.sync import FUTURE_NS


class Level(enum.Enum):
    """How bad it is."""

    OK = "OK"
    WARN = "WARN"
    ERROR = "ERROR"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Finding:
    """One line of the doctor's report; `advice` says what to do, empty where all is well."""

    level: Level
    subject: str
    text: str
    advice: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wanted:
    """What a robot description expects of a topic.

    Attributes:
        kind: message type, as in "sensor_msgs/msg/Image".
        min_hz: fewest messages a second that make sense.
        max_age_s: oldest that a stamp may be when its message comes.
        names: joints that have to be in it.
    """

    topic: str
    kind: str
    min_hz: float
    max_age_s: float
    names: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Heard:
    """What was heard on a topic in some seconds.

    Attributes:
        kinds: message types of its publishers, one each.
        arrivals: number of messages.
        ages_s: of each message's stamp when it came, on the graph's clock.
        unstamped: number of messages whose stamp is zero.
        names: joints named.
    """

    kinds: tuple[str, ...] = ()
    seconds: float = 1.0
    arrivals: int = 0
    ages_s: Sequence[float] = ()
    unstamped: int = 0
    names: frozenset[str] = frozenset()


RATE_SLACK = 0.9  # of the rate that is wanted: a few seconds hold a message more or less


def judge(wanted: Wanted, heard: Heard) -> Finding:
    """Whether a topic is as a robot needs it; the first problem found."""
    problem = _silence(wanted, heard) or _stamps(wanted, heard) or _content(wanted, heard)
    if problem is not None:
        return problem
    senders = f"{len(heard.kinds)} publishers" if len(heard.kinds) > 1 else "1 publisher"
    text = f"{_rate(heard):.1f} Hz, {senders}, stamped {_typical(heard.ages_s) * 1e3:.0f} ms before it comes"
    return Finding(level=Level.OK, subject=wanted.topic, text=text)


def judge_senders(topic: str, senders: Sequence[str], takers: int) -> Finding | None:
    """More than one who commands is the worst of all; nobody who obeys is worth knowing.

    Args:
        senders: the node's name of each publisher; two of the same name are two stacks.
        takers: number of subscriptions.
    """
    if len(senders) > 1:
        text, advice = f"is commanded by {', '.join(sorted(senders))}", "Stop all but one of them."
        return Finding(level=Level.ERROR, subject=topic, text=text, advice=advice)
    if senders and not takers:
        text, advice = f"{senders[0]} commands, but nobody listens", "Start the robot's controller."
        return Finding(level=Level.WARN, subject=topic, text=text, advice=advice)
    return Finding(level=Level.OK, subject=topic, text=f"commanded by {senders[0]}") if senders else None


def judge_shadow(topic: str, senders: Sequence[str]) -> Finding | None:
    """What a dry run publishes beside a topic of commands; None where there is none."""
    if not senders:
        return None
    text = f"dry run of {', '.join(sorted(senders))}: these commands reach no controller"
    return Finding(level=Level.OK, subject=topic, text=text)


def _silence(wanted: Wanted, heard: Heard) -> Finding | None:
    if not heard.kinds:
        return _error(wanted, "nobody publishes it", "Start the driver, or remap its topic to this name.")
    if wanted.kind not in heard.kinds:
        advice = "Correct the topic (for cameras also `compressed`) in the robot's YAML."
        return _error(wanted, f"is {', '.join(sorted(set(heard.kinds)))} instead of {wanted.kind}", advice)
    if not heard.arrivals:
        advice = "See whether the driver runs; images get lost without the DDS profile (setup/env.sh)."
        return _error(wanted, f"nothing came in {heard.seconds:g} s", advice)
    return None


def _stamps(wanted: Wanted, heard: Heard) -> Finding | None:
    if heard.unstamped:
        return _error(wanted, "its stamps are zero", "Let its driver fill in header.stamp; the nodes use no other.")
    age = _typical(heard.ages_s)
    if age > wanted.max_age_s:
        advice = "Synchronise the computers' clocks, or see whether /clock and use_sim_time belong together."
        return _error(wanted, f"is stamped {age:.3g} s before it comes, at most {wanted.max_age_s:g} is used", advice)
    if age < -FUTURE_NS / 1e9:
        return _error(wanted, f"is stamped {-age:.3g} s in the future", "Synchronise the computers' clocks.")
    return None


def _content(wanted: Wanted, heard: Heard) -> Finding | None:
    if missing := [name for name in wanted.names if name not in heard.names]:
        advice = f"It names {', '.join(sorted(heard.names))}: correct `joints` in the robot's YAML, or the driver."
        return _error(wanted, f"lacks {', '.join(missing)}", advice)
    if _rate(heard) < RATE_SLACK * wanted.min_hz:
        advice = "See what slows the driver down, or lower rate_hz in the robot's YAML."
        return _warning(wanted, f"{_rate(heard):.1f} Hz, fewer than {wanted.min_hz:g}", advice)
    return None


def _rate(heard: Heard) -> float:
    return heard.arrivals / heard.seconds


def _typical(values: Sequence[float]) -> float:
    return sorted(values)[len(values) // 2]


def _error(wanted: Wanted, text: str, advice: str) -> Finding:
    return Finding(level=Level.ERROR, subject=wanted.topic, text=text, advice=advice)


def _warning(wanted: Wanted, text: str, advice: str) -> Finding:
    return Finding(level=Level.WARN, subject=wanted.topic, text=text, advice=advice)
