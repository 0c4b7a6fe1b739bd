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


def test_the_executor_commands_what_the_convention_says(droid):
    executor = Executor(droid, command_limits(droid, Kinematics.from_file(droid.urdf_path)), make_strategy("latest"))
    executor.run(True)
    start, period = 10**10, droid.period_ns
    names = [*droid.group("arm").joints, "panda_finger_joint1"]
    actions = np.tile([0.3, -0.2, 0.0, 0.1, 0.0, -0.4, 0.0, 0.9], (10, 1))
    measured = MEASURED[:7].copy()
    for tick in range(8):
        now = start + tick * period
        executor.on_joint_state("joint_states", now, names, [*measured, 0.04], now)
        if tick == 0:
            chunk = ActionChunk(
                chunk_id=1, stamp_ns=now, period_ns=period, actions=actions, action_names=droid.action_names
            )
            assert executor.on_chunk(chunk, now) == ""
        result = executor.tick(now, now)
        assert result.mode is Mode.RUNNING, result.reason
        np.testing.assert_allclose(result.command[:7], measured + 0.2 * actions[0, :7], atol=1e-6)
        measured = result.command[:7]
    assert result.command[7] == 1.0
    assert result.clamped_ticks == 0
