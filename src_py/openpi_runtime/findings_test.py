import dataclasses
from typing import Any

import pytest

from openpi_runtime.findings import Finding, Heard, Level, Wanted, judge, judge_senders, judge_shadow

IMAGE, JOINTS = "sensor_msgs/msg/Image", "sensor_msgs/msg/JointState"
WANTED = Wanted(topic="joint_states", kind=JOINTS, min_hz=20, max_age_s=0.2, names=("elbow", "wrist"))
HEARD = Heard(kinds=(JOINTS,), seconds=2.0, arrivals=100, ages_s=[0.004] * 100, names=frozenset({"wrist", "elbow"}))


def test_what_is_as_it_should_be() -> None:
    finding = judge(WANTED, HEARD)
    assert (finding.level, finding.advice) == (Level.OK, "")
    assert finding.text == "50.0 Hz, 1 publisher, stamped 4 ms before it comes"


@pytest.mark.parametrize(
    ("changes", "level", "text", "advice"),
    [
        ({"kinds": ()}, Level.ERROR, "nobody publishes it", "Start the driver"),
        ({"kinds": (IMAGE,)}, Level.ERROR, f"is {IMAGE} instead of {JOINTS}", "Correct the topic"),
        ({"arrivals": 0, "ages_s": []}, Level.ERROR, "nothing came in 2 s", "DDS profile"),
        ({"ages_s": [3.0] * 100}, Level.ERROR, "is stamped 3 s before it comes, at most 0.2 is used", "clocks"),
        ({"ages_s": [-1.5] * 100}, Level.ERROR, "is stamped 1.5 s in the future", "clocks"),
        ({"unstamped": 1}, Level.ERROR, "its stamps are zero", "fill in header.stamp"),
        ({"names": frozenset({"wrist"})}, Level.ERROR, "lacks elbow", "It names wrist: correct `joints`"),
        ({"arrivals": 20}, Level.WARN, "10.0 Hz, fewer than 20", "rate_hz"),
    ],
)
def test_what_is_wrong_is_named_with_what_to_do(changes: dict[str, Any], level: Level, text: str, advice: str) -> None:
    finding = judge(WANTED, dataclasses.replace(HEARD, **changes))
    assert (finding.subject, finding.level, finding.text) == ("joint_states", level, text)
    assert advice in finding.advice


def test_one_late_message_among_many_is_no_finding() -> None:
    assert judge(WANTED, dataclasses.replace(HEARD, ages_s=[5.0] + [0.004] * 99)).level is Level.OK


def test_a_message_fewer_than_the_rate_is_no_finding() -> None:
    assert judge(WANTED, dataclasses.replace(HEARD, arrivals=39)).level is Level.OK


def test_two_publishers_are_told() -> None:
    assert "2 publishers" in judge(WANTED, dataclasses.replace(HEARD, kinds=(JOINTS, JOINTS))).text


@pytest.mark.parametrize(
    ("senders", "takers", "level", "text"),
    [
        (["executor"], 1, Level.OK, "commanded by executor"),
        (["executor"], 0, Level.WARN, "executor commands, but nobody listens"),
        (["teleop", "executor"], 1, Level.ERROR, "is commanded by executor, teleop"),
        (["executor", "executor"], 1, Level.ERROR, "is commanded by executor, executor"),  # two stacks at once
    ],
)
def test_who_commands(senders: list[str], takers: int, level: Level, text: str) -> None:
    finding = judge_senders("commands", senders, takers)
    assert isinstance(finding, Finding)
    assert (finding.level, finding.text) == (level, text)


def test_a_topic_nobody_commands_on_is_no_finding() -> None:
    assert judge_senders("commands", [], 1) is None
    assert judge_shadow("dry_run/commands", []) is None
