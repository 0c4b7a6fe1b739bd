"""aloha_sim_node in front of a client that knows only the real robot's topics."""

import numpy as np
import pytest
from geometry_msgs.msg import PoseArray
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, Image, JointState
from std_msgs.msg import Bool, Float32, Float64MultiArray, UInt32
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from openpi_ros import qos, sim_messages
from openpi_ros.conversions import image_array, time_ns
from openpi_sim.aloha.world import AlohaWorld

ARM = ["waist", "shoulder", "elbow", "forearm_roll", "wrist_angle", "wrist_rotate"]
START = [0.0, -0.96, 1.16, 0.0, -0.3, 0.0, 0.1]
TOPICS = {
    "/clock": (Clock, qos.SENSOR),
    "cam_high/image_raw": (Image, qos.SENSOR),
    "cam_high/camera_info": (CameraInfo, qos.SENSOR),
    "follower_left/joint_states": (JointState, qos.SENSOR),
    "follower_right/joint_states": (JointState, qos.SENSOR),
    "sim/objects": (PoseArray, qos.STATE),
    "sim/reward": (Float32, qos.STATE),
    "sim/success": (Bool, qos.STATE),
    "sim/episode": (UInt32, qos.LATCHED),
    "sim/real_time_factor": (Float32, qos.STATE),
}


@pytest.fixture
def client(connect):
    return connect(TOPICS)


def test_it_publishes_obeys_and_resets_as_the_real_robot_and_its_drivers(start, client):
    simulation = start("openpi_ros.aloha_sim_node", "--ros-args", "-p", "cameras:=[cam_high]", "-p", "seed:=3")
    client.wait(lambda: client.newest.keys() == TOPICS.keys(), "a message on every topic")
    _check_camera(client)
    _check_joint_states(client)
    _command_both_interfaces(client)
    _refuse_a_bad_command(client, simulation)
    _reset(client)
    simulation.process.terminate()
    assert simulation.wait_for_end() == 0


def _check_camera(client) -> None:
    image, info = client.newest["cam_high/image_raw"], client.newest["cam_high/camera_info"]
    assert (image.encoding, image.width, image.height) == ("rgb8", 640, 480)
    assert image.header.frame_id == info.header.frame_id == "cam_high_optical_frame"
    assert time_ns(image.header.stamp) % 40_000_000 == 0  # 25 Hz
    assert info.k[0] == pytest.approx(240 / np.tan(np.radians(39)))
    red = image_array(image).astype(int)
    assert ((red[..., 0] > 150) & (red[..., 1] < 100)).sum() > 100  # the cube


def _check_joint_states(client) -> None:
    assert list(client.joints("follower_left/joint_states")) == [*ARM, "gripper", "left_finger", "right_finger"]
    for side in ("left", "right"):
        joints = client.joints(f"follower_{side}/joint_states")
        np.testing.assert_allclose([joints[name] for name in ARM], START[:6], atol=0.02)
        assert joints["left_finger"] == -joints["right_finger"]
        assert 0.02 < joints["left_finger"] < 0.025


def _command_both_interfaces(client) -> None:
    trajectory = client.node.create_publisher(JointTrajectory, "follower_left/joint_trajectory", qos.COMMAND)
    forward = client.node.create_publisher(Float64MultiArray, "follower_right/commands", qos.COMMAND)
    client.wait(lambda: trajectory.get_subscription_count() and forward.get_subscription_count(), "the controllers")
    point = JointTrajectoryPoint(positions=[1.0, 0.3, *START[1:6]])
    trajectory.publish(JointTrajectory(joint_names=["gripper", *ARM], points=[point]))
    forward.publish(Float64MultiArray(data=[-0.3, *START[1:]]))
    client.wait(lambda: abs(client.joints("follower_left/joint_states")["waist"] - 0.3) < 0.02, "the left arm moves")
    client.wait(lambda: abs(client.joints("follower_right/joint_states")["waist"] + 0.3) < 0.02, "the right arm moves")
    client.wait(lambda: client.joints("follower_left/joint_states")["left_finger"] > 0.05, "the left gripper opens")


def _refuse_a_bad_command(client, simulation) -> None:
    forward = client.node.create_publisher(Float64MultiArray, "follower_right/commands", qos.COMMAND)
    client.wait(lambda: forward.get_subscription_count() > 0, "the controller")
    forward.publish(Float64MultiArray(data=[float("nan")] * 7))
    simulation.wait_for_text("The group 'right' refused a command", 20)


def _reset(client) -> None:
    before = time_ns(client.newest["/clock"].clock)
    assert client.newest["sim/episode"].data == 1
    assert client.reset("aloha_sim_node", 5) == (True, "episode 2, seed 5")
    client.wait(lambda: client.newest["sim/episode"].data == 2, "the new episode")
    client.newest.pop("sim/objects")
    client.wait(lambda: "sim/objects" in client.newest, "its objects")
    world = AlohaWorld()
    world.reset(5)
    (cube,) = sim_messages.objects(client.newest["sim/objects"])
    np.testing.assert_allclose(cube[:2], world.objects["box"][:2], atol=1e-3)
    assert time_ns(client.newest["/clock"].clock) > before  # time never goes back
    assert client.newest["sim/reward"].data == 0.0


def test_no_rendering_library_ends_it_with_what_to_install(start, monkeypatch):
    monkeypatch.setenv("PYOPENGL_PLATFORM", "glx")  # what a missing libEGL looks like to MuJoCo
    simulation = start("openpi_ros.aloha_sim_node")
    assert simulation.wait_for_end(60) == 1
    assert "apt install libegl1" in simulation.output()
