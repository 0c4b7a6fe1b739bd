"""`openpi-up` as a user types it: what it starts, how it stops, what it says to wrong arguments."""

import os
import signal
import subprocess
import sys

import pytest

from openpi_bringup.up import main, remove_leftovers

NODES = {"aloha_sim_node", "openpi_policy_node", "chunk_executor_node"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("alhoa",), "There is no stack 'alhoa'. Did you mean 'aloha'?"),
        (("aloha", "startegy:=rtc"), "Did you mean 'strategy'?"),
        (("aloha", "strategy:=fastest"), "must be one of: open_loop, latest, temporal_ensemble, rtc"),
        (("aloha", "port:=99999"), "must be a port number from 1 to 65535"),
        (("aloha", "namespace:=1 2"), "must be a ROS namespace"),
        (("aloha", "sim"), "write name:=value"),
        (("aloha", "sim:=false"), "policy:=expert reads the simulator's objects"),
        (("aloha", "sim:=true", "sim:=false"), "given twice"),
        (("dorid",), "There is no stack 'dorid'. Did you mean 'droid'?"),
        (("droid", "sim:=false", "policy:=expert"), "policy:=expert reads the simulator's objects"),
    ],
)
def test_a_wrong_command_line_is_answered_by_a_sentence(capsys, arguments, said):
    assert main(arguments) == 2
    assert said in capsys.readouterr().err


def test_a_process_ends_with_that_status_and_sentence():
    command = [sys.executable, "-m", "openpi_bringup.up", "alhoa"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("openpi-up: There is no stack 'alhoa'")
    assert done.stderr.count("\n") == 1


def test_every_argument_is_described(capsys):
    assert main(["aloha", "--show-args"]) == 0
    said = capsys.readouterr().out
    for name in (
        *("sim", "strategy", "policy", "config", "checkpoint", "prompt", "host", "port", "rviz"),
        *("controller", "dry_run", "namespace", "use_sim_time", "record", "log_level"),
    ):
        assert f"\n  {name}\n" in said, name


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("robot:=alohaa",), "There is no robot 'alohaa'; known: aloha"),
        (("policy:=local", "config:=pi0_alohaa"), "pi0_aloha"),
        (("policy:=local", "checkpoint:=/nowhere/checkpoint"), "/nowhere/checkpoint"),
    ],
)
def test_a_wrong_value_ends_the_stack_with_a_sentence(start, arguments, said):
    stack = start("openpi_bringup.up", "aloha", *arguments)
    assert stack.wait_for_end(90) != 0
    assert said in stack.output()
    assert not stack.survivors()


def test_interrupt_in_the_middle_leaves_no_process_behind(start):
    stack = start("openpi_bringup.up", "aloha")
    stack.wait(lambda: set(stack.nodes()) == NODES, 120, "three nodes run")
    stack.wait_for_text("Ready: backend expert")
    stack.process.send_signal(signal.SIGINT)
    stack.wait_for_end()
    assert not stack.survivors()


def test_killing_it_leaves_no_process_behind_and_files_to_the_next(start, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    stack = start("openpi_bringup.up", "aloha", "policy:=hold")
    stack.wait(lambda: set(stack.nodes()) == NODES, 120, "three nodes run")
    stack.wait_for_text("Ready: backend hold")
    stack.process.kill()
    stack.wait_for_end()
    stack.wait_for_nodes_to_end()
    (left,) = tmp_path.glob("openpi-up-*")
    (tmp_path / f"openpi-up-{os.getpid()}-x").mkdir()  # of one that runs
    remove_leftovers(tmp_path)
    assert not left.exists()
    assert (tmp_path / f"openpi-up-{os.getpid()}-x").exists()


@pytest.mark.parametrize("victim", ["openpi_policy_node"])
def test_the_crash_of_one_node_stops_the_others(start, victim):
    stack = start("openpi_bringup.up", "aloha", "policy:=hold")
    stack.wait(lambda: set(stack.nodes()) == NODES, 120, "three nodes run")
    os.kill(stack.nodes()[victim], signal.SIGKILL)
    assert stack.wait_for_end() != 0
    assert not stack.survivors()


def test_a_camera_that_never_comes_is_named_with_its_topic(start):
    node = start(
        "openpi_ros.openpi_policy_node",
        *("--ros-args", "-p", "backend:=hold", "-p", "startup_timeout:=1.0", "-r", "__ns:=/robot1"),
    )
    node.wait_for_text("No request can be made", 30)
    assert "/robot1/cam_high/image_raw" in node.output()
    assert "cam_high never came" in node.output()


def test_without_a_rendering_library_the_simulator_says_what_to_install(start, monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "disable")
    node = start("openpi_ros.aloha_sim_node")
    assert node.wait_for_end(60) == 1
    assert "libegl1" in node.output()
    assert "Traceback" not in node.output()
