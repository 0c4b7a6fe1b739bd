from pathlib import Path

import numpy as np
import pytest

from openpi_runtime.conftest import TWIN
from openpi_runtime.located_yaml import SpecError
from openpi_runtime.robots import RobotSpec, load_robot

SECTION = """
observation:
  image_layout: hwc
  images:
    - {camera: top, key: observation/image}
  state:
    - {key: [robot, arms], columns: [right_elbow, left_elbow]}
    - {key: [robot, grippers], columns: [left_gripper]}
"""
PICTURE = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)


def robot(tmp_path: Path, section: str) -> RobotSpec:
    path = tmp_path / "mine.yaml"
    path.write_text(TWIN + section)
    return load_robot(path)


def test_columns_and_cameras_come_under_their_keys(tmp_path: Path) -> None:
    layout = robot(tmp_path, SECTION).observation
    observation = layout.observation(np.array([1.0, 2.0, 3.0, 4.0]), {"top": PICTURE, "other": PICTURE}, "go")
    assert observation.keys() == {"prompt", "robot", "observation/image"}
    assert observation["prompt"] == "go"
    np.testing.assert_array_equal(observation["robot"]["arms"], [3.0, 1.0])
    np.testing.assert_array_equal(observation["robot"]["grippers"], [2.0])
    assert observation["observation/image"] is PICTURE


def test_without_the_section_it_is_state_and_images(tmp_path: Path) -> None:
    observation = robot(tmp_path, "").observation.observation(np.arange(4.0), {"top": PICTURE}, "go")
    np.testing.assert_array_equal(observation["state"], np.arange(4.0))
    np.testing.assert_array_equal(observation["images"]["top"], PICTURE.transpose(2, 0, 1))
    assert np.shares_memory(observation["images"]["top"], PICTURE)


@pytest.mark.parametrize("section", ["", SECTION], ids=["chw", "hwc"])
def test_pictures_are_changed_upright_and_laid_back(tmp_path: Path, section: str) -> None:
    layout = robot(tmp_path, section).observation
    given = layout.observation(np.arange(4.0), {"top": PICTURE}, "go")
    changed = layout.with_pictures(given, lambda picture: picture[:, :1])
    expected = layout.observation(np.arange(4.0), {"top": PICTURE[:, :1]}, "go")
    key = layout.images["top"]
    for name in key:
        given, changed, expected = given[name], changed[name], expected[name]
    np.testing.assert_array_equal(changed, expected)
    assert changed.flags.c_contiguous
    assert given.size == PICTURE.size


def test_the_robots_speak_their_policies_language() -> None:
    droid = load_robot("droid")
    pictures = {camera.name: PICTURE for camera in droid.cameras}
    observation = droid.observation.observation(np.arange(8.0), pictures, "go")
    assert {key: np.shape(value) for key, value in observation.items()} == {
        "prompt": (),
        "observation/exterior_image_1_left": (2, 4, 3),
        "observation/wrist_image_left": (2, 4, 3),
        "observation/joint_position": (7,),
        "observation/gripper_position": (1,),
    }
    np.testing.assert_array_equal(observation["observation/gripper_position"], [7.0])


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ("image_layout: hwc", "image_layout: bgr", r"line 23: observation.image_layout is 'bgr'; allowed: chw, hwc"),
        ("camera: top", "camera: tip", r"observation.images\[0\].camera is 'tip'; allowed: top"),
        ("left_elbow]", "elbow]", r"observation.state\[0\].columns\[1\] is 'elbow'; allowed: left_elbow, left_gripper"),
        ("key: observation/image", "key: robot", r"observation.state\[0\].key .*clashes with the key \['robot'\]"),
        ("key: observation/image", "key: prompt", r"clashes with the key \['prompt'\]"),
        ("  state:", "    - {camera: top, key: x}\n  state:", r"'top' a second time"),
        ("  image_layout: hwc\n", "", "lacks the field 'image_layout'"),
    ],
)
def test_a_wrong_section_is_told_with_its_place(tmp_path: Path, before: str, after: str, told: str) -> None:
    assert before in SECTION
    with pytest.raises(SpecError, match=told):
        robot(tmp_path, SECTION.replace(before, after))
