import numpy as np
import pytest

from openpi_runtime.chunk import ActionChunk
from openpi_runtime.conventions import ActionConvention
from openpi_runtime.executor import Executor
from openpi_runtime.kinematics import Kinematics, command_limits
from openpi_runtime.modes import Mode
from openpi_runtime.robots import SpecError, load_robot
from openpi_runtime.strategies import make_strategy

MEASURED = np.array([0.1, -0.6, 0.2, -2.5, 0.0, 1.9, 0.3, 0.0])


@pytest.fixture(scope="module")
def droid():
    return load_robot("droid")


@pytest.mark.parametrize(
    ("velocity", "displacement"),
    [
        ([0.5, 0, 0, 0, 0, 0, 0], [0.1, 0, 0, 0, 0, 0, 0]),
        ([1, -1, 0, 0, 0, 0, 0.25], [0.2, -0.2, 0, 0, 0, 0, 0.05]),
        ([2, -1, 0, 0, 0, 0, 0.5], [0.2, -0.1, 0, 0, 0, 0, 0.05]),  # rescaled: the direction stays
    ],
)
def test_velocities_move_from_the_measured_position(droid, velocity, displacement):
    target = ActionConvention(droid).target(np.append(velocity, 0.0), MEASURED)
    np.testing.assert_allclose(target[:7] - MEASURED[:7], displacement, atol=1e-12)


@pytest.mark.parametrize(("action", "gripper"), [(-0.2, 0.0), (0.5, 0.0), (0.51, 1.0), (1.3, 1.0)])
def test_a_gripper_with_a_threshold_is_binarised(droid, action, gripper):
    assert ActionConvention(droid).target(np.append(np.zeros(7), action), MEASURED)[7] == gripper


REACH = np.append(np.full(7, 0.145), np.inf)


@pytest.mark.parametrize(
    ("displacement", "lag", "expected"),
    [
        ([0.1, -0.1], [0.0, 0.0], [0.1, -0.1]),
        ([0.2, -0.1], [0.0, 0.0], [0.145, -0.0725]),  # the direction stays
        ([0.2, 0.0], [-0.02, 0.0], [0.165, 0.0]),  # the command before was ahead of the arm
        ([-0.145, 0.0], [-0.02, 0.0], [-0.125, 0.0]),
        ([0.1, 0.1], [-0.2, 0.0], [0.1, 0.1]),  # what is behind catches up
        ([-0.1, 0.1], [-0.2, 0.0], [0.0, 0.0]),
        ([0.1, np.nan], [0.0, 0.0], [0.1, np.nan]),  # for the filter to refuse
    ],
)
def test_velocities_beyond_the_limits_shrink_together(droid, displacement, lag, expected):
    target, last = MEASURED.copy(), MEASURED.copy()
    target[:2] += displacement
    last[:2] -= lag
    slowed = ActionConvention(droid).slowed(target, MEASURED, last, REACH)
    np.testing.assert_allclose(slowed[:2] - MEASURED[:2], expected, atol=1e-12)
    np.testing.assert_array_equal(slowed[2:], MEASURED[2:])
    assert (slowed is target) == np.array_equal(displacement, expected, equal_nan=True)


def test_absolute_targets_are_left_to_the_filter():
    convention, target = ActionConvention(load_robot("aloha")), np.full(14, 0.5)
    assert convention.slowed(target, np.zeros(14), np.zeros(14), np.full(14, 0.01)) is target


def test_the_path_of_a_chunk_leads_on_from_each_step(droid):
    path = ActionConvention(droid).path(np.tile(np.append(np.full(7, 0.5), 1.0), (3, 1)), MEASURED)
    np.testing.assert_allclose(path[:, :7] - MEASURED[:7], np.outer([0.1, 0.2, 0.3], np.ones(7)), atol=1e-12)
    np.testing.assert_array_equal(path[:, 7], 1.0)


def test_absolute_targets_stay_as_they_are():
    action = np.linspace(-0.5, 0.5, 14)
    np.testing.assert_array_equal(ActionConvention(load_robot("aloha")).target(action, np.zeros(14)), action)


def test_velocity_columns_need_a_step(tmp_path, droid):
    from openpi_runtime import paths

    text = (paths.config_dir() / "robots/droid.yaml").read_text().replace("velocity_step: 0.2", "")
    path = tmp_path / "droid.yaml"
    path.write_text(text)
    with pytest.raises(SpecError, match=r"droid.yaml, line \d+: action.*velocity_step"):
        load_robot(path)


class Arm:
    """An executor for the Panda on a first chunk, and an arm that reaches a part of each command."""

    def __init__(self, droid, actions, follows=1.0):
        limits = command_limits(droid, Kinematics.from_file(droid.urdf_path))
        self.executor = Executor(droid, limits, make_strategy("latest"))
        self.executor.run(True)
        self.droid, self.actions, self.follows = droid, np.asarray(actions, np.float64), follows
        self.measured = MEASURED[:7].copy()
        self.ticks = 0

    def tick(self):
        now = 10**10 + self.ticks * self.droid.period_ns
        names = [*self.droid.group("arm").joints, "panda_finger_joint1"]
        self.executor.on_joint_state("joint_states", now, names, [*self.measured, 0.04], now)
        if self.ticks == 0:
            chunk = ActionChunk(
                chunk_id=1,
                stamp_ns=now,
                period_ns=self.droid.period_ns,
                actions=self.actions,
                action_names=self.droid.action_names,
            )
            assert self.executor.on_chunk(chunk, now) == ""
        self.ticks += 1
        result = self.executor.tick(now, now)
        assert result.mode is Mode.RUNNING, result.reason
        self.measured = self.measured + self.follows * (result.command[:7] - self.measured)
        return result


def test_the_executor_commands_what_the_convention_says(droid):
    action = np.array([0.3, -0.2, 0.0, 0.1, 0.0, -0.4, 0.0, 0.9])
    arm = Arm(droid, np.tile(action, (10, 1)))
    for _ in range(8):
        measured = arm.measured
        result = arm.tick()
        np.testing.assert_allclose(result.command[:7], measured + 0.2 * action[:7], atol=1e-6)
    assert result.command[7] == 1.0
    assert result.clamped_ticks == 0


@pytest.mark.parametrize("turns", [1, -1], ids=["on and on", "to and fro"])
def test_the_fastest_that_a_policy_may_ask_for_is_slowed_not_refused(droid, turns):
    velocity = np.array([1.0, -0.5, 0.3, 1.0, -1.0, 1.0, 0.2, 0.0])
    arm = Arm(droid, [velocity * turns**step for step in range(8)], follows=0.85)
    last = np.append(arm.measured, 0.0)
    limits = arm.executor.limits
    for tick in range(8):
        measured = arm.measured
        result = arm.tick()
        assert result.clamped_ticks == tick + 1
        assert (np.abs(result.command - last) <= limits.velocity / 15 + 1e-6)[:7].all()
        moved = (result.command[:7] - measured) / (velocity[:7] * turns**tick)
        np.testing.assert_allclose(moved, moved[0], atol=1e-9)  # one share for all joints
        assert 0.05 < moved[0] < 0.2
        last = result.command
    assert "slowed together" in arm.executor.last_clamp
