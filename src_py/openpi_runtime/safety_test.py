import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from openpi_runtime.safety import Box, Limits, Outcome, SafetyFilter, SafetyRules

PERIOD_S = 0.02


def limits(**changes: object) -> Limits:
    made = Limits(
        names=("a", "b"),
        lower=np.array([-1.0, -2.0]),
        upper=np.array([1.0, 2.0]),
        velocity=np.full(2, 5.0),
        acceleration=np.full(2, np.inf),
        gripper=np.zeros(2, dtype=bool),
        delta=np.zeros(2, dtype=bool),
    )
    return dataclasses.replace(made, **changes)  # type: ignore[arg-type]


def test_clean_targets_pass_untouched() -> None:
    safety = SafetyFilter(limits(), PERIOD_S)
    last = np.zeros(2)
    for k in range(100):
        target = np.array([0.9 * np.sin(k / 15), 1.8 * np.sin(k / 25)])
        verdict = safety.check(target, last)
        assert verdict.outcome is Outcome.PASS
        assert verdict.command is not target
        assert np.array_equal(verdict.command, target)
        last = verdict.command


@pytest.mark.parametrize(
    ("target", "outcome", "reason"),
    [
        ([1.05, 0], Outcome.CLAMP, "a clamped to its position limit"),
        ([1.11, 0], Outcome.HOLD, "a is beyond its limits by 0.110"),
        ([1, -2.15], Outcome.CLAMP, "b clamped to its position limit"),
        ([np.nan, 0], Outcome.HOLD, "a is not finite"),
        ([1, np.inf], Outcome.HOLD, "b is not finite"),
        ([0.4, 0], Outcome.HOLD, "a is a step of 0.600"),
        ([0.8, 0], Outcome.CLAMP, "a clamped to its velocity limit"),
    ],
)
def test_each_check(target: list[float], outcome: Outcome, reason: str) -> None:
    last = np.array([1.0, -2.0 if target[1] < -1 else 0.0])
    verdict = SafetyFilter(limits(), PERIOD_S).check(np.array(target), last)
    assert verdict.outcome is outcome
    assert reason in verdict.reason
    if outcome is Outcome.HOLD:
        assert np.array_equal(verdict.command, last)


def test_a_joint_without_ends_turns_on_and_on() -> None:
    safety = SafetyFilter(limits(lower=np.array([-np.inf, -2.0]), upper=np.array([np.inf, 2.0])), PERIOD_S)
    verdict = safety.check(np.array([40.05, 2.05]), np.array([40.0, 2.0]))
    assert (verdict.outcome, verdict.reason) == (Outcome.CLAMP, "b clamped to its position limit")
    assert verdict.command.tolist() == [40.05, 2.0]


def test_too_fast_twice_in_a_row_holds_but_not_with_a_pause_between() -> None:
    safety = SafetyFilter(limits(), PERIOD_S)
    zero, fast = np.zeros(2), np.array([0.2, 0.0])
    assert [safety.check(t, zero).outcome.value for t in (fast, zero, fast, fast)] == ["clamp", "pass", "clamp", "hold"]


def test_acceleration_is_clamped() -> None:
    safety = SafetyFilter(limits(acceleration=np.array([50.0, np.inf])), PERIOD_S)
    verdict = safety.check(np.array([0.05, 0.05]), np.zeros(2))
    assert verdict.outcome is Outcome.CLAMP
    assert verdict.command == pytest.approx([0.02, 0.05])
    assert safety.check(np.array([0.05, 0.05]), verdict.command).command == pytest.approx([0.05, 0.05])


def test_grippers_may_step() -> None:
    made = limits(gripper=np.array([True, False]), velocity=np.array([100.0, 5.0]))
    assert SafetyFilter(made, PERIOD_S).check(np.array([1.0, 0]), np.array([-1.0, 0])).outcome is Outcome.PASS


def test_workspace_box() -> None:
    box = Box(lower=np.array([-1, -1, 0.1]), upper=np.ones(3))
    rules = SafetyRules(workspace=box)
    safety = SafetyFilter(limits(), PERIOD_S, rules, lambda q: {"left": np.array([q[0], 0.0, 0.15 - q[1]])})
    assert safety.check(np.array([0, 0.04]), np.zeros(2)).outcome is Outcome.PASS
    verdict = safety.check(np.array([0, 0.06]), np.zeros(2))
    assert verdict.outcome is Outcome.HOLD
    assert "left would leave the workspace, at (0.000, 0.000, 0.090) m" in verdict.reason
    with pytest.raises(ValueError, match="needs forward kinematics"):
        SafetyFilter(limits(), PERIOD_S, rules)


@given(
    targets=st.lists(hnp.arrays(np.float64, 2, elements=st.floats(-3, 3) | st.just(np.nan)), max_size=30),
    start=hnp.arrays(np.float64, 2, elements=st.floats(-3, 3)),
    acceleration=st.floats(1, 1000),
)
def test_whatever_comes_what_goes_out_is_within_limits(targets: list, start: np.ndarray, acceleration: float) -> None:
    made = limits(acceleration=np.full(2, acceleration))
    safety = SafetyFilter(made, PERIOD_S, SafetyRules(max_step=10.0, strikes=10, tolerance=10.0))
    last = made.clip(start)
    for target in targets:
        command = safety.check(target, last).command
        assert np.all(command >= made.lower)
        assert np.all(command <= made.upper)
        assert np.all(np.abs(command - last) <= made.velocity * PERIOD_S + 1e-9)
        last = command
