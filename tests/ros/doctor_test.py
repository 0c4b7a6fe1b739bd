"""`openpi doctor` on a running stack, and on none."""

import json
import subprocess
import sys


def doctor(*arguments: str) -> tuple[int, dict[str, dict[str, str]]]:
    """Exit status, and the findings by subject."""
    command = [sys.executable, "-m", "openpi", "doctor", "--json", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)
    assert not done.stderr, done.stderr
    return done.returncode, {finding["subject"]: finding for finding in json.loads(done.stdout)}


def test_a_stack_that_is_well(start, domain, monkeypatch):
    monkeypatch.setenv("ROS_DOMAIN_ID", str(domain))
    stack = start("openpi_bringup.up", "aloha", "policy:=hold")
    stack.wait_for_text("Ready: backend hold", 60)
    stack.wait_for_text("Episode 1", 60)
    status, found = doctor()
    assert status == 0, found
    assert {found[node]["level"] for node in ("openpi_policy_node", "chunk_executor_node")} == {"OK"}
    assert found["/cam_high/image_raw"]["level"] == "OK"
    assert found["executor"]["text"] == "IDLE"
    assert found["/follower_left/joint_trajectory"]["text"] == "commanded by chunk_executor_node"


def test_no_stack_and_no_profile(domain, monkeypatch):
    monkeypatch.setenv("ROS_DOMAIN_ID", str(domain))
    monkeypatch.delenv("FASTRTPS_DEFAULT_PROFILES_FILE")
    status, found = doctor("--robot", "droid", "--seconds", "0.2", "--namespace", "lab")
    assert status == 1
    assert found["/lab/exterior/image_raw"]["text"] == "nobody publishes it"
    assert found["/lab/joint_states"]["level"] == "ERROR"
    assert found["chunk_executor_node"]["advice"] == "Start the stack: openpi-up."
    assert found["DDS profile"]["level"] == "ERROR"
    assert found["Python module rclpy"]["level"] == "OK"
