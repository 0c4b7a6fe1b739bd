import re
from pathlib import Path

import pytest

from openpi_runtime import paths
from openpi_runtime.conftest import TWIN
from openpi_runtime.grippers import GripperChannel
from openpi_runtime.located_yaml import SpecError
from openpi_runtime.robots import RobotSpec, available_robots, load_robot


def test_aloha_layout() -> None:
    spec = load_robot("aloha")
    left, right = spec.groups
    assert len(spec.state) == len(spec.action) == 14
    assert spec.period_ns == 20_000_000
    assert spec.executed_steps == 25
    assert left.joints == ("waist", "shoulder", "elbow", "forearm_roll", "wrist_angle", "wrist_rotate")
    assert spec.group_columns(left) == list(range(7))
    assert spec.group_columns(right) == list(range(7, 14))
    assert [i for i, column in enumerate(spec.action) if spec.is_gripper(column)] == [6, 13]
    assert [camera.name for camera in spec.cameras if camera.required] == [
        "cam_high",
        "cam_left_wrist",
        "cam_right_wrist",
    ]


def test_aloha_gripper_calibrations() -> None:
    gripper = load_robot("aloha").groups[0].gripper
    assert gripper is not None
    usual, other = gripper.calibrations["trossen"], gripper.calibrations["interbotix"]
    assert gripper.calibration == usual
    assert usual.position.fraction(0.058) == 1.0
    assert usual.position.fraction(0.01844) == 0.0
    assert (usual.joint.at(0.0), usual.joint.at(1.0)) == pytest.approx((-0.6213, 1.4910))
    assert (other.joint.at(0.0), other.joint.at(1.0)) == pytest.approx((0.6197, 1.6214))


def test_the_real_robots_controller_and_gripper_are_in_the_description() -> None:
    assert load_robot("aloha").controller == "interbotix"
    droid = load_robot("droid")
    gripper = droid.groups[0].gripper
    assert droid.controller == "joint_trajectory"
    assert gripper is not None
    assert gripper.channel == GripperChannel(
        topic="gripper_position_controller/commands", action="franka_gripper/gripper_action", max_effort=20.0
    )


def test_the_first_controller_that_all_groups_share_is_the_default(twin: RobotSpec) -> None:
    assert twin.controller == "forward"


def test_every_robot_in_the_configuration_loads() -> None:
    assert "aloha" in available_robots()
    for name in available_robots():
        assert load_robot(name).name == name


def test_unknown_robot_names_the_known_ones() -> None:
    with pytest.raises(SpecError, match=r"no robot 'alhoa'; known: .*aloha"):
        load_robot("alhoa")


def test_a_urdf_beside_the_description_comes_first(tmp_path: Path) -> None:
    (tmp_path / "robot.yaml").write_text(TWIN)
    assert load_robot(tmp_path / "robot.yaml").urdf == "twin.urdf"
    (tmp_path / "mine.yaml").write_text(TWIN)
    (tmp_path / "twin.urdf").touch()
    assert load_robot(tmp_path / "mine.yaml").urdf_path == tmp_path / "twin.urdf"


def test_missing_file_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="cannot be read"):
        load_robot(tmp_path / "none.yaml")


def test_the_configuration_folder_can_be_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "robots").mkdir()
    (tmp_path / "robots" / "mine.yaml").write_text(TWIN)
    monkeypatch.setenv("OPENPI_CONFIG_DIR", str(tmp_path))
    assert load_robot("mine").name == "twin"


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        ("rate_hz: 50", "rate_hz: 50\nrate_hz: 100", 4, "rate_hz is given twice"),
        ("rate_hz: 50", "rate_hz: {50", 4, "this is not valid YAML: .*expected ',' or '}'"),
        ("rate_hz: 50", "rate_hz: -1", 3, "rate_hz is -1; allowed: a number from 0.1 to 1000"),
        (
            "executed_steps: 5",
            "executed_steps: 2.5",
            4,
            "is 2.5; allowed: a whole number from 1 to 1000",
        ),
        ("executed_steps: 5\n", "", 2, "lacks the field 'executed_steps'"),
        ("executed_steps: 5", "executed_step: 5", 4, "executed_step is not a known field; allowed: .*executed_steps"),
        ("topic: top/image_raw", "topic: top camera", 14, "allowed: a relative topic name"),
        ("topic: top/image_raw", "topic: top//image_raw", 14, "allowed: a relative topic name"),
        ("topic: top/image_raw", "topic: 2/image_raw", 14, "allowed: a relative topic name"),
        (
            "command_joint: gripper, ",
            "command_joint: gripper, threshold: 1.5, ",
            8,
            "1.5; allowed: a number from 0 to 1",
        ),
        (
            "unit: rad, group: right",
            "unit: gripper, group: right",
            18,
            r"state\[2\].unit is 'gripper'; allowed: rad, m",
        ),
        ("unit: gripper, group: left", "unit: m, group: left", 17, r"state\[1\].unit is 'm'; allowed: gripper"),
        ("urdf: twin.urdf", "urdf: twin.urdf\nspeed: 3", 6, "speed is not a known field; allowed: name, rate_hz"),
        ("role: base", "role: front", 14, r"cameras\[0\].role is 'front'; allowed: base, left_wrist"),
        ("required: true", "required: 1", 14, "required is 1; allowed: true or false"),
        ("topic: top/image_raw", "topic: /top/image_raw", 14, "allowed: a relative topic name"),
        ("forward: {topic: right", "forwards: {topic: right", 12, "allowed: joint_trajectory, forward, franka, interb"),
        ("forward: {topic: right", "franka: {topic: right", 7, "groups share no controller; allowed: one of joint_tr"),
        ("topic: right/commands", "topic: right/commands, interface: effort", 12, "'effort'; allowed: position, velo"),
        ("topic: right/commands", "topic: /right/commands", 12, "allowed: a relative topic name"),
        ("rate_hz: 50", "rate_hz: 50\ncontroller: franka", 4, "controller is 'franka'; allowed: forward"),
        (
            "command_joint: gripper, ",
            "command_joint: gripper, channel: {action: a}, ",
            8,
            "channel lacks the field 'topic'",
        ),
        ("unit: rad, group: right", "unit: deg, group: right", 18, r"state\[2\].unit is 'deg'; allowed: rad"),
        ("group: right, joint: elbow", "group: middle, joint: elbow", 18, "is 'middle'; allowed: left, right"),
        ("group: right, joint: elbow", "group: right, joint: knee", 18, "is 'knee'; allowed: elbow, gripper"),
        ("name: right_elbow", "name: left_elbow", 15, "names 'left_elbow' more than once"),
        ("calibration: usual", "calibration: other", 8, "calibration is 'other'; allowed: usual"),
        ("{closed: 0.0, open: 0.05}", "{closed: 0.05, open: 0.05}", 9, "two different values"),
        (
            "joints: [elbow], joint_states: right",
            "joints: [], joint_states: right",
            11,
            "a list with at least one",
        ),
        (
            "unit: gripper, group: right, joint: gripper",
            "unit: rad, group: right, joint: elbow",
            15,
            "commands joint 'elbow' of group 'right' 2",
        ),
    ],
)
def test_errors_say_where_and_what_is_allowed(tmp_path: Path, old: str, new: str, line: int, message: str) -> None:
    path = tmp_path / "robot.yaml"
    assert old in TWIN
    path.write_text(TWIN.replace(old, new))
    with pytest.raises(SpecError, match=message) as error:
        load_robot(path)
    assert str(error.value).startswith(f"{path}, line {line}:")


def test_a_relative_column_needs_its_joint_in_the_state(tmp_path: Path) -> None:
    path = tmp_path / "robot.yaml"
    swapped = TWIN.replace("state: &layout", "action:").replace(
        "right, joint: elbow", "right, kind: relative, joint: elbow"
    )
    state = "state:\n  - {name: left_elbow, unit: rad, group: left, joint: elbow}"
    path.write_text(swapped.replace("action: *layout", state))
    with pytest.raises(SpecError, match="has the relative column 'right_elbow', so the state must have a column for"):
        load_robot(path)


@pytest.mark.parametrize("text", ["", "name: [", "- 1"])
def test_what_is_no_description_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "robot.yaml"
    path.write_text(text)
    with pytest.raises(SpecError, match=r"robot\.yaml"):
        load_robot(path)


def test_specs_cannot_be_changed(twin: RobotSpec) -> None:
    with pytest.raises(AttributeError):
        twin.rate_hz = 10  # type: ignore[misc]


WRONG = {  # what is changed in each robot that comes along, and what the answer is
    "no rate": (r"rate_hz: .*\n", "", "the file lacks the field 'rate_hz'"),
    "misspelt": ("rate_hz:", "rate:", "rate is not a known field; allowed: .*rate_hz"),
    "rate 0": (r"rate_hz: \d+", "rate_hz: 0", "rate_hz is 0; allowed: a number from 0.1"),
    "rate NaN": (r"rate_hz: \d+", "rate_hz: .nan", "rate_hz is nan; allowed: a number"),
    "unit": ("unit: rad", "unit: degrees", r"state\[\d\].unit is 'degrees'; allowed: rad"),
    "joint": (r"(unit: rad, group: \w+, joint: )\w+", r"\1knee", r"state\[\d\].joint is 'knee'; allowed: \w"),
    "group": (r"(unit: rad, group: )\w+", r"\1leg", r"state\[\d\].group is 'leg'; allowed: (left, right|arm)$"),
    "camera twice": (r"(cameras:\n(?: *#.*\n)*)(  - .*\n)", r"\1\2\2", "cameras names '.*' more than once"),
    "camera topic": (
        r"topic: (\w+)/image_raw",
        r"topic: /\1/image_raw",
        r"cameras\[0\].topic is .*a relative topic name",
    ),
    "gripper": (r"position: \{closed: \S+ open: [\d.]+", "position: {closed: 1, open: 1", "two different values"),
    "gripper NaN": (
        r"position: \{closed: [\d.]+",
        "position: {closed: .nan",
        r"position.closed is nan; allowed: a number",
    ),
    "gripper unit": (r"unit: gripper", "unit: m", r"unit is 'm'; allowed: gripper"),
    "controller": (
        r"    controllers:\n      \w+:",
        "    controllers:\n      magic:",
        "magic is not a known field; allowed: jo",
    ),
}


@pytest.mark.parametrize("name", ["aloha", "droid", "libero"])
@pytest.mark.parametrize("case", WRONG)
def test_a_mistake_in_any_robots_description_is_answered_with_its_place(tmp_path: Path, name: str, case: str) -> None:
    pattern, new, message = WRONG[case]
    text, times = re.subn(pattern, new, (paths.config_dir() / "robots" / f"{name}.yaml").read_text(), count=1)
    assert times == 1
    path = tmp_path / "wrong.yaml"
    path.write_text(text)
    with pytest.raises(SpecError, match=rf"wrong.yaml, line \d+: .*{message}"):
        load_robot(path)
