from openpi_runtime.briefing import briefing, limit_texts
from openpi_runtime.conftest import twin_limits
from openpi_runtime.executor import ExecutorRules
from openpi_runtime.kinematics import Kinematics, command_limits
from openpi_runtime.robots import RobotSpec, load_robot


def lines(robot: RobotSpec, **kind: bool) -> list[str]:
    kind = {"simulated": False, "dry_run": False} | kind
    names = ["/left/commands", "/right/commands"]
    return briefing(robot, twin_limits(), ExecutorRules(), controller="forward", names=names, **kind).split("\n")


def test_what_is_commanded_where_and_within_which_limits(twin: RobotSpec) -> None:
    assert lines(twin) == [
        "Commands move the REAL robot 'twin'",
        "  at 50 Hz, controller 'forward':",
        "  /left/commands",
        "  /right/commands",
        "  left elbow              -1.000 to 1.000 rad, at most 2 rad/s",
        "  left gripper             0.000 to 1.000 (0 closed, 1 open), at most 50 per s",
        "  right elbow             -1.000 to 1.000 rad, at most 2 rad/s",
        "  right gripper            0.000 to 1.000 (0 closed, 1 open), at most 50 per s",
        "  first motion at 0.5 rad/s; HOLD beyond a limit by 5% of its range, or at a step above 0.5 rad",
    ]


def test_simulated_and_dry_runs_say_so(twin: RobotSpec) -> None:
    assert lines(twin, simulated=True)[0] == "Commands move the SIMULATED robot 'twin'"
    assert lines(twin, dry_run=True)[0].startswith("DRY RUN: commands for the REAL robot 'twin' go to shadow topics")


def test_velocities_are_told_as_the_positions_they_lead_to() -> None:
    droid = load_robot("droid")
    limits = command_limits(droid, Kinematics.from_file(droid.urdf_path))
    text = briefing(droid, limits, ExecutorRules(), controller="forward", names=[], simulated=True, dry_run=False)
    assert "arm panda_joint4        -3.067 to -0.075 rad, at most 2.17 rad/s" in text
    assert "arm gripper              0.000 to 1.000 (1 closed, 0 open)" in text
    assert "no slower at first" in text  # a velocity begins where the arm is


def test_deltas_are_told_as_parts_of_a_step() -> None:
    libero = load_robot("libero")
    limits = command_limits(libero, Kinematics.from_file(libero.urdf_path))
    assert limit_texts(libero, limits)["arm rx"] == "-1.000 to 1.000 of a step"
    text = briefing(libero, limits, ExecutorRules(), controller="forward", names=[], simulated=True, dry_run=False)
    assert text.endswith("no slower at first; HOLD beyond a limit by 5% of its range")  # and by no ramp and no step
