import dataclasses
import sys
import types
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: source setup/env.sh")

from action_msgs.msg import GoalStatus
from rclpy.clock import Clock

from openpi_ros import outputs
from openpi_ros.outputs import RobotOutput
from openpi_ros.outputs import grippers as gripper_outputs
from openpi_runtime.kinematics import Kinematics, command_limits
from openpi_runtime.robots import Group, RobotSpec, load_robot
from openpi_runtime.safety import Limits

ALOHA_JOINTS = ["waist", "shoulder", "elbow", "forearm_roll", "wrist_angle", "wrist_rotate"]
PANDA_JOINTS = [f"panda_joint{i}" for i in range(1, 8)]


class FakeNode:
    """Collects what is published, by topic."""

    def __init__(self) -> None:
        self.sent: dict[str, list[Any]] = {}
        self.warnings: list[str] = []

    def create_publisher(self, _kind: type, topic: str, _qos: Any) -> Any:
        messages = self.sent.setdefault(topic, [])
        return types.SimpleNamespace(publish=messages.append, topic_name="/" + topic)

    def get_clock(self) -> Clock:
        return Clock()

    def get_logger(self) -> Any:
        return types.SimpleNamespace(warning=lambda text, **_: self.warnings.append(text))

    def resolve_service_name(self, name: str) -> str:
        return "/" + name


def limits_of(robot: RobotSpec) -> Limits:
    return command_limits(robot, Kinematics.from_file(robot.urdf_path))


def make(robot: RobotSpec, controller: str, **kind: bool) -> tuple[FakeNode, RobotOutput]:
    node = FakeNode()
    return node, RobotOutput(node, robot, limits_of(robot), controller, **kind)  # type: ignore[arg-type]


def publish(robot: RobotSpec, controller: str, **kind: bool) -> dict[str, list[Any]]:
    """What goes out for positions 0, 0.1, 0.2, ... and velocities of a tenth of that."""
    node, output = make(robot, controller, **kind)
    command = np.arange(len(robot.action)) / 10.0
    output.publish(command, command / 10.0, command)
    return node.sent


def by_velocity(robot: RobotSpec) -> RobotSpec:
    """The robot with its forward controller taking velocities."""

    def changed(group: Group) -> Group:
        forward = {**group.controllers["forward"], "interface": "velocity"}
        return dataclasses.replace(group, controllers={**group.controllers, "forward": forward})

    return dataclasses.replace(robot, groups=tuple(changed(group) for group in robot.groups))


def test_joint_trajectory() -> None:
    sent = publish(load_robot("aloha"), "joint_trajectory")
    assert set(sent) == {"follower_left/joint_trajectory", "follower_right/joint_trajectory"}
    (message,) = sent["follower_right/joint_trajectory"]
    (point,) = message.points
    assert message.joint_names == [*ALOHA_JOINTS, "gripper"]
    assert list(point.positions) == pytest.approx(np.arange(7, 14) / 10)
    assert list(point.velocities) == pytest.approx(np.arange(7, 14) / 100)
    assert point.time_from_start.nanosec == 20_000_000


def test_forward() -> None:
    (message,) = publish(load_robot("aloha"), "forward")["follower_left/commands"]
    assert list(message.data) == pytest.approx(np.arange(7) / 10)


def test_franka_gets_names_positions_and_velocities() -> None:
    (message,) = publish(load_robot("droid"), "franka")["joint_impedance_controller/target_joint"]
    assert message.name == PANDA_JOINTS
    assert list(message.position) == pytest.approx(np.arange(7) / 10)
    assert list(message.velocity) == pytest.approx(np.arange(7) / 100)
    assert message.header.stamp.sec > 0


def test_a_gripper_with_a_channel_goes_apart_on_its_drivers_scale() -> None:
    sent = publish(load_robot("droid"), "joint_trajectory", dry_run=False)
    (arm,) = sent["joint_trajectory_controller/joint_trajectory"]
    (gripper,) = sent["gripper_position_controller/commands"]
    assert arm.joint_names == PANDA_JOINTS
    assert len(arm.points[0].positions) == 7
    assert list(gripper.data) == pytest.approx([0.04 * (1 - 0.7)])  # 1 is closed, 0.04 m is open


def test_simulators_take_the_gripper_with_the_arm() -> None:
    sent = publish(load_robot("droid"), "joint_trajectory", simulated=True)
    assert set(sent) == {"joint_trajectory_controller/joint_trajectory"}
    (arm,) = sent["joint_trajectory_controller/joint_trajectory"]
    assert arm.joint_names == [*PANDA_JOINTS, "gripper"]


def test_a_dry_run_uses_shadow_topics_only() -> None:
    sent = publish(load_robot("droid"), "joint_trajectory", dry_run=True)
    assert {topic for topic, messages in sent.items() if messages} == {
        "dry_run/joint_trajectory_controller/joint_trajectory",
        "dry_run/gripper_position_controller/commands",
    }
    assert all(topic.startswith("dry_run/") for topic in sent)


def test_names_are_what_is_commanded() -> None:
    _, output = make(load_robot("droid"), "franka")
    assert output.names == ["/joint_impedance_controller/target_joint", "/gripper_position_controller/commands"]


class FakeGuard:
    """Keeps what it is told."""

    def __init__(self, topics: dict[str, int], _period_s: float) -> None:
        self.topics, self.told, self.closed = topics, list[bool](), False

    def tell(self, moves: bool) -> None:
        self.told.append(moves)

    def close(self) -> None:
        self.closed = True


class TestVelocities:
    """A controller of velocities goes on with the last one, so standing still has to be said."""

    @pytest.fixture(autouse=True)
    def _no_process(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.guards: list[FakeGuard] = []

        def start(*arguments: Any) -> FakeGuard:
            self.guards.append(FakeGuard(*arguments))
            return self.guards[-1]

        monkeypatch.setattr(outputs, "VelocityGuard", start)

    topic = "forward_position_controller/commands"
    zeros = pytest.approx([0.0] * 7)

    def make(self) -> tuple[list[Any], RobotOutput]:
        node, output = make(by_velocity(load_robot("droid")), "forward")
        return node.sent[self.topic], output

    def test_a_followed_step_is_a_speed_from_where_the_robot_is(self) -> None:
        sent, output = self.make()
        measured = np.array(load_robot("droid").rest)
        command = measured + np.array([0.1, *[0.0] * 7])
        output.publish(command, np.zeros(8), measured)
        assert list(sent[0].data) == pytest.approx([0.1 * 15, *[0.0] * 6])

    def test_hold_is_zero_velocity_published_in_every_tick(self) -> None:
        sent, output = self.make()
        held = np.array(load_robot("droid").rest)
        for _ in range(3):
            output.publish(held, np.zeros(8), None)
        assert [list(message.data) for message in sent] == [self.zeros] * 3

    def test_stop_is_zero_velocity_once_and_then_silence(self) -> None:
        sent, output = self.make()
        output.publish(np.full(8, 0.1), np.ones(8), np.zeros(8))
        output.stop()
        output.stop()
        assert len(sent) == 2
        assert list(sent[1].data) == self.zeros

    def test_a_fresh_executor_stops_what_it_finds_moving(self) -> None:
        sent, output = self.make()
        output.stop()
        assert [list(message.data) for message in sent] == [self.zeros]

    def test_the_guard_is_told_whether_the_robot_moves(self) -> None:
        _, output = self.make()
        rest = np.array(load_robot("droid").rest)
        output.publish(rest + 0.1, np.zeros(8), rest)
        output.publish(rest, np.zeros(8), None)
        output.publish(rest + 0.1, np.zeros(8), rest)
        output.stop()
        output.close()
        (guard,) = self.guards
        assert guard.topics == {"/" + self.topic: 7}
        assert guard.told == [True, False, True, False]
        assert guard.closed

    def test_a_dry_run_needs_no_guard(self) -> None:
        make(by_velocity(load_robot("droid")), "forward", dry_run=True)
        assert not self.guards

    def test_a_gripper_without_a_channel_is_refused(self) -> None:
        with pytest.raises(ValueError, match="give its gripper a `channel`"):
            make(by_velocity(load_robot("aloha")), "forward")

    def test_simulators_are_not_sent_velocities(self) -> None:
        with pytest.raises(ValueError, match="simulators take positions; choose joint_trajectory"):
            make(by_velocity(load_robot("droid")), "forward", simulated=True)


class FakeClient:
    """An action server's other end."""

    def __init__(self, _node: Any, _kind: Any, name: str) -> None:
        self.name, self.ready, self.accepts = name, True, True
        self.status = GoalStatus.STATUS_EXECUTING
        self.positions: list[float] = []
        self.cancelled = 0
        self.destroyed = False

    def server_is_ready(self) -> bool:
        return self.ready

    def send_goal_async(self, goal: Any) -> Any:
        self.positions.append(goal.command.position)
        self.max_effort = goal.command.max_effort
        handle = types.SimpleNamespace(accepted=self.accepts, status=self.status, cancel_goal_async=self._cancel)
        answer = types.SimpleNamespace(result=lambda: handle)
        return types.SimpleNamespace(add_done_callback=lambda done: done(answer))

    def destroy(self) -> None:
        self.destroyed = True

    def _cancel(self) -> None:
        self.cancelled += 1


class TestGripperAction:
    """control_msgs/GripperCommand, with the package and the server played by the test."""

    @pytest.fixture(autouse=True)
    def _control_msgs(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.clients: list[FakeClient] = []

        def make_client(*arguments: Any) -> FakeClient:
            self.clients.append(FakeClient(*arguments))
            return self.clients[-1]

        package = types.ModuleType("control_msgs.action")
        goal = lambda: types.SimpleNamespace(command=types.SimpleNamespace())  # noqa: E731
        package.GripperCommand = types.SimpleNamespace(Goal=goal)  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "control_msgs", types.ModuleType("control_msgs"))
        monkeypatch.setitem(sys.modules, "control_msgs.action", package)
        monkeypatch.setattr(gripper_outputs, "ActionClient", make_client)
        self.node, self.output = make(load_robot("droid"), "joint_trajectory")
        (self.client,) = self.clients

    def command(self, *values: float) -> None:
        for value in values:
            self.output.publish(np.array([*[0.0] * 7, value]), np.zeros(8), np.zeros(8))

    def test_a_goal_is_sent_where_the_command_moves(self) -> None:
        self.command(0.0, 0.0, 1.0, 1.0)
        assert self.client.name == "franka_gripper/gripper_action"
        assert self.client.positions == pytest.approx([0.04, 0.0])
        assert self.client.max_effort == 20.0

    def test_small_moves_wait_but_the_ends_are_reached(self) -> None:
        self.command(0.5, 0.505, 0.995, 1.0)
        assert self.client.positions == pytest.approx([0.02, 0.0002, 0.0])

    def test_a_server_that_is_not_there_is_named_and_waited_for(self) -> None:
        self.client.ready = False
        self.command(1.0)
        assert "no action server franka_gripper/gripper_action" in self.node.warnings[0]
        self.client.ready = True
        self.command(1.0)
        assert self.client.positions == [0.0]

    def test_a_refused_goal_is_sent_again(self) -> None:
        self.client.accepts = False
        self.command(1.0, 1.0)
        assert self.client.positions == [0.0, 0.0]

    def test_stop_cancels_what_is_under_way(self) -> None:
        self.command(1.0)
        self.output.stop()
        self.output.stop()
        assert self.client.cancelled == 1
        self.command(1.0)
        assert self.client.positions == [0.0, 0.0]  # and the next run starts afresh

    @pytest.mark.parametrize(("status", "cancelled"), [("UNKNOWN", 1), ("ACCEPTED", 1), ("SUCCEEDED", 0)])
    def test_whatever_is_not_known_to_have_ended_is_cancelled(self, status: str, cancelled: int) -> None:
        self.client.status = getattr(GoalStatus, f"STATUS_{status}")  # unknown until the first status message
        self.command(1.0)
        self.output.stop()
        assert self.client.cancelled == cancelled

    def test_a_dry_run_has_no_client(self) -> None:
        make(load_robot("droid"), "joint_trajectory", dry_run=True)
        assert len(self.clients) == 1

    def test_close_ends_the_connection(self) -> None:
        self.output.close()
        assert self.client.destroyed


class TestInterbotix:
    """The Interbotix driver's two messages."""

    @pytest.fixture
    def _package(self, monkeypatch: pytest.MonkeyPatch) -> None:
        package = types.ModuleType("interbotix_xs_msgs")
        package.msg = types.SimpleNamespace(  # type: ignore[attr-defined]
            JointGroupCommand=types.SimpleNamespace, JointSingleCommand=types.SimpleNamespace
        )
        monkeypatch.setitem(sys.modules, "interbotix_xs_msgs", package)

    @pytest.mark.usefixtures("_package")
    def test_joints_and_the_motors_angle(self) -> None:
        sent = publish(load_robot("aloha"), "interbotix")
        (arm,) = sent["follower_left/commands/joint_group"]
        (gripper,) = sent["follower_left/commands/joint_single"]
        assert (arm.name, arm.cmd) == ("arm", pytest.approx(np.arange(6) / 10))
        # 0.6 open, of the motor's -0.6213 (closed) to 1.4910 (open)
        assert (gripper.name, gripper.cmd) == ("gripper", pytest.approx(-0.6213 + 0.6 * (1.4910 + 0.6213)))

    def test_a_missing_package_is_a_sentence(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "interbotix_xs_msgs", None)
        with pytest.raises(ImportError, match="needs the package interbotix_xs_msgs: install"):
            make(load_robot("aloha"), "interbotix")


def test_a_controller_the_robot_lacks_is_a_sentence() -> None:
    with pytest.raises(ValueError, match="'left' of aloha has no controller 'franka', but joint_trajectory, forward"):
        make(load_robot("aloha"), "franka")
