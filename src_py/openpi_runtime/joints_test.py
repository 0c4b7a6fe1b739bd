import numpy as np
import pytest

from openpi_runtime.joints import HISTORY_NS, JointMerger, JointSample
from openpi_runtime.robots import RobotSpec, load_robot
from openpi_runtime.sync import FUTURE_NS, Missing

AGE = 200_000_000


@pytest.fixture
def merger(twin: RobotSpec) -> JointMerger:
    return JointMerger(twin, twin.state, AGE)


def test_topics_are_merged_and_reordered_by_name(merger: JointMerger) -> None:
    merger.update("right/joint_states", 20, ["finger", "spare", "elbow"], [0.05, 9, 3.0])
    merger.update("left/joint_states", 10, ["elbow", "finger"], [1.0, 0.025])
    sample = merger.sample(30)
    assert isinstance(sample, JointSample)
    assert sample.values == pytest.approx([1.0, 0.5, 3.0, 1.0])
    assert sample.stamp_ns == 10


def test_nobody_changes_the_state_that_all_are_given(merger: JointMerger) -> None:
    for topic in merger.topics:
        merger.update(topic, 10, ["elbow", "finger"], [1.0, 0.0])
    sample = merger.sample(10)
    assert isinstance(sample, JointSample)
    with pytest.raises(ValueError, match="read-only"):
        sample.values[0] = 2.0


def test_aloha_messages_as_the_driver_sends_them() -> None:
    spec = load_robot("aloha")
    merger = JointMerger(spec, spec.state, AGE)
    names = ["waist", "shoulder", "elbow", "forearm_roll", "wrist_angle", "wrist_rotate", "gripper"]
    for topic in merger.topics:
        values = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 1.0, 0.058, -0.058]
        merger.update(topic, 1, [*names, "left_finger", "right_finger"], values)
    sample = merger.sample(1)
    assert isinstance(sample, JointSample)
    assert sample.values == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 1.0] * 2)


def test_names_what_is_missing_and_what_is_old(merger: JointMerger) -> None:
    merger.update("left/joint_states", AGE, ["elbow", "finger"], [0, 0])
    merger.update("right/joint_states", 2 * AGE, ["elbow"], [0])
    missing = merger.sample(3 * AGE)
    assert isinstance(missing, Missing)
    text = str(missing)
    assert "left/joint_states (elbow, gripper) is 0.40 s old" in text
    assert "right/joint_states (gripper) never came" in text


def test_readings_that_are_not_finite_or_not_newer_are_left_out(merger: JointMerger) -> None:
    for topic in merger.topics:
        merger.update(topic, 100, ["elbow", "finger"], [1.0, 0.0])
    merger.update("left/joint_states", 110, ["elbow"], [np.nan])
    merger.update("left/joint_states", 90, ["elbow"], [5.0])
    sample = merger.sample(120)
    assert isinstance(sample, JointSample)
    assert sample.values[0] == 1.0


def test_a_stamp_slightly_ahead_of_the_clock_counts_as_now(merger: JointMerger) -> None:
    for topic in merger.topics:
        merger.update(topic, FUTURE_NS + 100, ["elbow", "finger"], [0, 0], now_ns=100)
    assert isinstance(merger.sample(100), JointSample)
    assert isinstance(merger.sample(101 + AGE), Missing)


@pytest.mark.parametrize(("stamp_ns", "problem"), [(0, "stamps are zero"), (10**12, "stamps are ahead of the clock")])
def test_a_stamp_that_says_nothing_is_left_out_and_told(merger: JointMerger, stamp_ns: int, problem: str) -> None:
    for topic in merger.topics:
        merger.update(topic, AGE, ["elbow", "finger"], [1.0, 0], now_ns=AGE)
    merger.update("left/joint_states", stamp_ns, ["elbow", "finger"], [5.0, 0], now_ns=AGE)
    sample = merger.sample(2 * AGE)
    assert isinstance(sample, JointSample)
    assert sample.values[0] == 1.0
    missing = merger.sample(2 * AGE + 1)
    assert isinstance(missing, Missing)
    assert f"left/joint_states (elbow, gripper) cannot be used, its {problem}" in str(missing)
    assert "right/joint_states (elbow, gripper) is 0.20 s old" in str(missing)
    for topic in merger.topics:
        merger.update(topic, 2 * AGE, ["elbow", "finger"], [2.0, 0], now_ns=2 * AGE)
    assert isinstance(merger.sample(2 * AGE + 1), JointSample)


def test_a_state_is_not_known_for_a_time_long_after_it(merger: JointMerger) -> None:
    for stamp in (AGE, AGE + HISTORY_NS + 1):
        for topic in merger.topics:
            merger.update(topic, stamp, ["elbow", "finger"], [0, 0])
        assert merger.at(stamp) is not None
        assert merger.at(stamp + AGE) is not None
        assert merger.at(stamp + AGE + 1) is None
    assert merger.at(AGE) is None  # forgotten


def test_history_answers_for_a_time(merger: JointMerger) -> None:
    for stamp in (10, 20, 30):
        for topic in merger.topics:
            merger.update(topic, stamp, ["elbow", "finger"], [stamp, 0])
    sample = merger.at(25)
    assert sample is not None
    assert sample.values[0] == 20
    assert merger.at(5) is None
    merger.clear()
    assert merger.at(25) is None


def test_nothing_is_known_after_clear(merger: JointMerger) -> None:
    for topic in merger.topics:
        merger.update(topic, AGE, ["elbow", "finger"], [0, 0])
    assert isinstance(merger.sample(AGE), JointSample)
    merger.clear()
    missing = merger.sample(AGE)
    assert isinstance(missing, Missing)
    assert "never came" in str(missing)
    merger.update(merger.topics[0], AGE, ["elbow", "finger"], [0, 0])
    assert isinstance(merger.sample(AGE), Missing)
    assert merger.at(AGE) is None
