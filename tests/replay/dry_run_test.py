"""`dry_run:=true`: commands go to shadow topics, and nothing reaches a controller."""

import pytest
from trajectory_msgs.msg import JointTrajectory

from openpi_bringup.stacks import STACKS
from openpi_ros import qos
from openpi_ros.commander import PolicyCommander


@pytest.mark.parametrize("name", STACKS)
@pytest.mark.parametrize("dry_run", ["true", "false"])
def test_every_stack_passes_it_on(name, dry_run):
    stack = STACKS[name]
    given = {"dry_run": dry_run} | ({"robot": "droid"} if name == "robot" else {})
    executor = next(
        process for process in stack.compose(stack.resolve(given)) if process.executable == "chunk_executor_node"
    )
    assert executor.parameters["dry_run"] == (dry_run == "true")


def test_commands_are_on_the_shadow_topics_only(start, domain, monkeypatch):
    monkeypatch.setenv("ROS_DOMAIN_ID", str(domain))
    stack = start("openpi_bringup.up", "aloha", "policy:=hold", "dry_run:=true")
    stack.wait_for_text("DRY RUN: commands for the SIMULATED robot 'aloha' go to shadow topics and move nothing", 60)
    stack.wait_for_text("Ready: backend hold", 60)
    real: list[JointTrajectory] = []
    shadows: list[JointTrajectory] = []
    with PolicyCommander(use_sim_time=True) as commander:
        for side in ("left", "right"):
            topic = f"follower_{side}/joint_trajectory"
            commander.node.create_subscription(JointTrajectory, topic, real.append, qos.COMMAND)
            commander.node.create_subscription(JointTrajectory, f"dry_run/{topic}", shadows.append, qos.COMMAND)
        commander.bring_up()
        commander.start()
        commander.wait_for(lambda: len(shadows) >= 60, 60.0, "commands on the shadow topics")
        commander.stop()
        assert not real
        publishers = commander.node.get_publishers_info_by_topic("follower_left/joint_trajectory")
    assert not publishers
    assert len(shadows[0].points[0].positions) == 7
