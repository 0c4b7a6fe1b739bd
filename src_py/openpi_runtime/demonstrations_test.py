import dataclasses

import numpy as np
import pytest

from openpi_runtime.demonstrations import Demonstration, Stream, align, robot_actions
from openpi_runtime.robots import load_robot

ALOHA, DROID = load_robot("aloha"), load_robot("droid")
MS = 1_000_000


def stream(stamps_ms, name="x", columns=()) -> Stream:
    """Every value is its own time in ms."""
    stamps = np.array(stamps_ms, np.int64)
    width = len(columns) or 14
    return Stream(name=name, stamps_ns=stamps * MS, values=np.tile(stamps[:, None] * 1.0, width), columns=columns)


def stamps(*milliseconds: int) -> np.ndarray:
    return np.array(milliseconds, np.int64) * MS


def steps(state, cameras, commands, **options) -> Demonstration:
    return align(ALOHA, state, cameras, commands, fps=50, **options)


LEFT, RIGHT = tuple(range(7)), tuple(range(7, 14))


def test_the_newest_is_seen_and_the_next_command_is_the_action() -> None:
    state, camera = stream(range(0, 101, 5)), stamps(7, 40, 73, 106)
    commands = [stream([0, 8, 26, 47, 66, 90], "left", LEFT), stream([7, 27, 48, 67, 95], "right", RIGHT)]
    demonstration = steps(state, {"cam": camera}, commands)
    assert (demonstration.times_ns / MS).tolist() == [7, 27, 47, 67, 87]  # begins with the first picture
    assert demonstration.states[:, 0].tolist() == [5, 25, 45, 65, 85]
    assert demonstration.pictures["cam"].tolist() == [0, 0, 1, 1, 2]
    assert demonstration.targets[:, 0].tolist() == [8, 47, 47, 90, 90]
    assert demonstration.targets[:, 7].tolist() == [7, 27, 48, 67, 95]


def test_what_stood_still_before_the_first_command_is_left_out() -> None:
    commands = [stream([700, 720, 740], "left", LEFT), stream([705, 725, 745], "right", RIGHT)]
    demonstration = steps(stream(range(0, 801, 10)), {"cam": stamps(0, 400, 800)}, commands)
    assert (demonstration.times_ns / MS).tolist() == [680, 700, 720, 740]
    assert demonstration.targets[:, 0].tolist() == [700, 700, 720, 740]


def test_a_pause_between_commands_is_labelled_with_what_the_robot_did() -> None:
    times = [*range(0, 101, 20), *range(601, 722, 20)]
    commands = [stream(times, "left", LEFT), stream(times, "right", RIGHT)]
    demonstration = steps(stream(range(0, 801, 10)), {"cam": stamps(*range(0, 801, 100))}, commands)
    targets = dict(zip((demonstration.times_ns / MS).tolist(), demonstration.targets[:, 0].tolist(), strict=True))
    assert [targets[at] for at in (80, 100)] == [80, 100]
    assert [targets[at] for at in range(120, 540, 20)] == [at + 20 for at in range(120, 540, 20)]
    assert [targets[at] for at in (560, 580, 600, 620)] == [601, 601, 601, 621]  # soon enough


def test_in_a_pause_a_robot_of_deltas_stands() -> None:
    robot = load_robot("libero")
    times = [*range(0, 201, 50), *range(1000, 1201, 50)]
    command = stream(times, "commands", tuple(range(len(robot.action))))
    state = dataclasses.replace(stream(range(0, 1300, 10)), values=np.zeros((130, len(robot.state))))
    demonstration = align(robot, state, {}, [command], fps=20)
    at = (demonstration.times_ns / MS).tolist().index(500)
    deltas = [number for number, column in enumerate(robot.action) if column.kind == "delta"]
    assert deltas
    assert not demonstration.targets[at, deltas].any()


def test_without_commands_the_action_is_the_state_one_period_later() -> None:
    demonstration = steps(stream(range(0, 101, 10)), {"cam": stamps(0, 60, 100)}, [])
    assert (demonstration.times_ns / MS).tolist() == [0, 20, 40, 60, 80]
    assert demonstration.targets[:, 3].tolist() == [20, 40, 60, 80, 100]


def test_a_gripper_that_took_goals_of_an_action_is_where_it_came_to() -> None:
    arms = tuple(column for column in range(14) if column != 13)
    demonstration = steps(stream(range(0, 101, 10)), {"cam": stamps(0, 100)}, [stream([5, 35, 65, 95], "arms", arms)])
    assert demonstration.targets[:3, 12].tolist() == [5, 35, 65]
    assert demonstration.targets[:3, 13].tolist() == [20, 40, 60]


@pytest.mark.parametrize(
    ("state", "cameras", "commands", "words"),
    [
        ([0, 900], [0, 20, 900], [], r"the state is 0.88 s old at 0.88 s; at most 0.5"),
        (range(0, 900, 10), [0, 890], [], r"camera cam is 0\.\d+ s old"),
        (range(0, 90, 10), [], [], "camera cam was never recorded"),
        (range(0, 90, 10), [0, 90], [stream([], "left", LEFT)], "left was never recorded"),
        (range(0, 90, 10), [0, 90], [stream([0, 80], "left", LEFT)], "no command was recorded for right_waist"),
        (range(0, 90, 10), [200, 300], [], "not recorded at the same time"),
    ],
)
def test_what_is_missing_is_named(state, cameras, commands, words) -> None:
    with pytest.raises(ValueError, match=words):
        steps(stream(state), {"cam": stamps(*cameras)}, commands)


def test_deltas_need_commands() -> None:
    with pytest.raises(ValueError, match="the deltas delta_x"):
        align(load_robot("libero"), stream(range(0, 90, 10)), {}, [], fps=20)


def test_velocities_are_parts_of_a_step() -> None:
    targets = np.array([[0.1, 0, 0, 0, 0, 0, -0.2, 1.0], [0.4, 0.2, 0, 0, 0, 0, 0, 0.0]])
    demonstration = Demonstration(times_ns=stamps(0, 1), states=np.zeros((2, 8)), targets=targets, pictures={})
    actions = robot_actions(DROID, demonstration)
    np.testing.assert_allclose(actions[0], [0.5, 0, 0, 0, 0, 0, -1, 1])
    np.testing.assert_allclose(actions[1], [1, 0.5, 0, 0, 0, 0, 0, 0])  # scaled as a whole
