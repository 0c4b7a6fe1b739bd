"""franka_sim_node in front of a client that knows only the real robot's topics."""

import numpy as np
import pytest
from geometry_msgs.msg import PoseArray
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, Image, JointState
from std_msgs.msg import Bool, Float64MultiArray
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from openpi_ros import qos, sim_messages
from openpi_ros.conversions import time_ns
from openpi_runtime.robots import load_robot
from openpi_sim.franka.world import FrankaWorld

ROBOT = load_robot("droid")
(ARM,) = ROBOT.groups
REST = list(ROBOT.rest)
TOPICS = {
    "/clock": (Clock, qos.SENSOR),
    "joint_states": (JointState, qos.SENSOR),
    "exterior/image_raw": (Image, qos.SENSOR),
    "exterior/camera_info": (CameraInfo, qos.SENSOR),
    "wrist/image_raw": (Image, qos.SENSOR),
    "wrist/camera_info": (CameraInfo, qos.SENSOR),
    "sim/objects": (PoseArray, qos.STATE),
    "sim/success": (Bool, qos.STATE),
}


def test_it_publishes_obeys_and_resets_as_the_real_robot_and_its_drivers(start, connect):
    client = connect(TOPICS)
    simulation = start("openpi_ros.franka_sim_node", "--ros-args", "-p", "seed:=3", "-p", "width:=320")
    client.wait(lambda: client.newest.keys() == TOPICS.keys(), "a message on every topic")
    check_sensors(client)
    command_each_way(client)
    check_reset(client)
    simulation.process.terminate()
    assert simulation.wait_for_end() == 0


def check_sensors(client):
    joints = client.joints("joint_states")
    assert list(joints) == [*ARM.joints, "panda_finger_joint1", "panda_finger_joint2"]
    np.testing.assert_allclose(list(joints.values()), [*REST[:7], 0.04, 0.04], atol=0.01)
    stamp = time_ns(client.newest["joint_states"].header.stamp)
    assert stamp % ROBOT.period_ns == 0
    for name, field_of_view in (("exterior", 55), ("wrist", 70)):
        image, info = client.newest[f"{name}/image_raw"], client.newest[f"{name}/camera_info"]
        assert (image.encoding, image.width, image.height) == ("rgb8", 320, 480)
        assert image.header.frame_id == info.header.frame_id == f"{name}_optical_frame"
        assert info.k[0] == pytest.approx(240 / np.tan(np.radians(field_of_view / 2)))


def command_each_way(client):
    ways = {name: way["topic"] for name, way in ARM.controllers.items()}
    messages = {
        "joint_trajectory": lambda place: JointTrajectory(
            joint_names=["gripper", *ARM.joints],
            points=[JointTrajectoryPoint(positions=[1.0, place, *REST[1:7]])],
        ),
        "forward": lambda place: Float64MultiArray(data=[place, *REST[1:]]),
        "franka": lambda place: JointState(name=[*ARM.joints, "gripper"], position=[place, *REST[1:]]),
    }
    assert ways.keys() == messages.keys()
    for place, (name, make) in zip((0.2, -0.2, 0.1), messages.items(), strict=True):
        message = make(place)
        publisher = client.node.create_publisher(type(message), ways[name], qos.COMMAND)
        client.wait(publisher.get_subscription_count, f"the controller {name}")
        publisher.publish(message)
        client.wait(lambda goal=place: abs(client.joints("joint_states")["panda_joint1"] - goal) < 0.01, name)
        finger = 0.0 if name == "joint_trajectory" else 0.04
        client.wait(lambda f=finger: abs(client.joints("joint_states")["panda_finger_joint1"] - f) < 0.002, "the hand")


def check_reset(client):
    before = time_ns(client.newest["/clock"].clock)
    assert client.reset("franka_sim_node", 5) == (True, "episode 2, seed 5")
    client.newest.pop("sim/objects")
    world = FrankaWorld(ROBOT.urdf_path)
    world.reset(5)

    def placed() -> bool:
        if "sim/objects" not in client.newest:
            return False
        places = sim_messages.objects(client.newest["sim/objects"])
        return all(np.allclose(a[:2], b[:2], atol=1e-3) for a, b in zip(places, world.objects.values(), strict=True))

    client.wait(placed, "the cubes of seed 5")
    client.wait(lambda: abs(client.joints("joint_states")["panda_joint1"]) < 0.01, "the start pose")
    assert time_ns(client.newest["/clock"].clock) > before  # time never goes back
    assert not client.newest["sim/success"].data
