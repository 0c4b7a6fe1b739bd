import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: source setup/env.sh")

from geometry_msgs.msg import PoseStamped
from sensor_msgs.msg import JointState

from openpi_ros.robot_state import reading, state_topics
from openpi_runtime.robots import load_robot


def test_a_pose_is_read_as_six_coordinates():
    message = PoseStamped()
    message.pose.position.x, message.pose.position.z = 0.5, 1.2
    message.pose.orientation.x, message.pose.orientation.w = -1.0, 0.0
    names, values = reading(message)
    assert names == ("x", "y", "z", "rx", "ry", "rz")
    assert values == pytest.approx([0.5, 0.0, 1.2, -3.14159265, 0.0, 0.0])


def test_joint_states_are_read_as_they_are():
    names, values = reading(JointState(name=["b", "a"], position=[1.0, 2.0]))
    assert (list(names), list(values)) == (["b", "a"], [1.0, 2.0])


def test_topics_of_a_hand_and_of_arms():
    assert state_topics(load_robot("libero")) == {"joint_states": JointState, "end_effector_pose": PoseStamped}
    assert set(state_topics(load_robot("aloha")).values()) == {JointState}
