import dataclasses

import numpy as np
import pytest

from openpi_runtime.conftest import twin_limits
from openpi_runtime.robots import RobotSpec
from openpi_runtime.servo import VelocityServo

PERIOD_S = 0.02
ZERO = np.zeros(4)


def test_a_robot_on_its_path_gets_the_commands_own_speed(twin: RobotSpec) -> None:
    velocity = np.array([0.5, 0.0, -0.5, 0.0])
    speed = VelocityServo(twin, twin_limits()).speed(velocity * PERIOD_S, velocity, ZERO)
    assert speed == pytest.approx(velocity)


def test_a_robot_that_turns_more_slowly_than_told_still_arrives(twin: RobotSpec) -> None:
    servo, measured, command = VelocityServo(twin, twin_limits()), ZERO, ZERO
    for tick in range(250):  # 0.4 rad in 2 s, then 3 s at rest
        last, command = command, np.array([min(0.4, 0.004 * (tick + 1)), 0.0, 0.0, 0.0])
        speed = servo.speed(command, (command - last) / PERIOD_S, measured)
        measured = measured + 0.9 * PERIOD_S * speed
    assert measured[0] == pytest.approx(0.4, abs=1e-3)


def test_columns_of_velocities_reach_their_command_in_one_period(twin: RobotSpec) -> None:
    action = tuple(dataclasses.replace(column, kind="velocity") for column in twin.action)
    servo = VelocityServo(dataclasses.replace(twin, action=action, velocity_step=0.02), twin_limits())
    measured, before = np.array([0.1, 0.0, -0.1, 0.0]), np.array([0.4, 0.0, 0.4, 0.0])
    command = measured + np.array([0.02, 0.0, -0.01, 0.0])
    assert servo.speed(command, (command - before) / PERIOD_S, measured) == pytest.approx([1.0, 0.0, -0.5, 0.0])


def test_nothing_is_faster_than_the_limits_or_leads_past_them(twin: RobotSpec) -> None:
    limits = twin_limits()
    servo = VelocityServo(twin, limits)
    random = np.random.default_rng(0)
    for _ in range(500):
        command, velocity, measured = random.uniform(-3, 3, (3, 4))
        speed = servo.speed(command, 10 * velocity, measured)
        ahead = measured + speed * PERIOD_S
        assert (np.abs(speed) <= limits.velocity).all()
        inside = (measured >= limits.lower) & (measured <= limits.upper)
        assert (ahead >= limits.lower - 1e-9)[inside].all()
        assert (ahead <= limits.upper + 1e-9)[inside].all()
        assert (speed >= 0)[measured < limits.lower].all()  # outside, only back
        assert (speed <= 0)[measured > limits.upper].all()
