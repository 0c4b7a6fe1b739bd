"""The robots' input and output transforms: bad observations and what the golden vectors do not show."""

import numpy as np
import pytest

from openpi.models.model import ModelType
from openpi.policies import arrays
from openpi.policies.aloha_policy import AlohaInputs, AlohaOutputs, make_aloha_example
from openpi.policies.droid_policy import DroidInputs, DroidOutputs, make_droid_example
from openpi.policies.libero_policy import LiberoInputs, LiberoOutputs, make_libero_example


@pytest.fixture
def aloha() -> dict:
    return make_aloha_example()


def without(data: dict, key: str) -> dict:
    return {name: value for name, value in data.items() if name != key}


def test_examples_fit_their_robots(aloha):
    assert AlohaInputs()(aloha)["state"].shape == (14,)
    assert DroidInputs(ModelType.PI05)(make_droid_example())["state"].shape == (8,)
    assert LiberoInputs(ModelType.PI0)(make_libero_example())["state"].shape == (8,)


def test_aloha_actions_survive_the_way_in_and_out(aloha):
    actions = np.random.default_rng(0).uniform(-1, 1, size=(5, 14))
    for adapt in (True, False):
        inside = AlohaInputs(adapt)({**aloha, "actions": actions})["actions"]
        assert np.allclose(inside, actions) != adapt
        np.testing.assert_allclose(AlohaOutputs(adapt)({"actions": inside})["actions"], actions, atol=1e-12)


def test_aloha_leaves_the_observation_alone(aloha):
    before = aloha["state"].copy()
    AlohaInputs()(aloha)
    np.testing.assert_array_equal(aloha["state"], before)
    assert aloha["images"]["cam_high"].shape == (3, 224, 224)


def test_aloha_accepts_images_with_channels_last(aloha):
    turned = {name: image.transpose(1, 2, 0) for name, image in aloha["images"].items()}
    expected = AlohaInputs()(aloha)["image"]
    for name, image in AlohaInputs()({**aloha, "images": turned})["image"].items():
        np.testing.assert_array_equal(image, expected[name])


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ({}, r"'cam_high' is missing; there are \[\]"),
        ({"cam_left_wrist": np.zeros((3, 4, 4), np.uint8)}, r"'cam_high' is missing; there are \['cam_left_wrist'\]"),
        ({"cam_top": np.zeros((3, 4, 4), np.uint8)}, r"Unknown ALOHA cameras \['cam_top'\]"),
        ({"cam_high": np.zeros((3, 4, 4), np.int64)}, "'cam_high' has dtype int64"),
        ({"cam_high": np.zeros((1, 3, 4, 4), np.uint8)}, r"'cam_high' has shape \(1, 3, 4, 4\)"),
        ({"cam_high": np.zeros((4, 4), np.uint8)}, r"'cam_high' has shape \(4, 4\)"),
        ({"cam_high": np.zeros((4, 4, 1), np.uint8)}, r"'cam_high' has shape \(4, 4, 1\)"),
        ({"cam_high": np.full((3, 4, 4), 255.0)}, "values from 0 to 255; floats must lie in 0 to 1"),
        ({"cam_high": np.full((3, 4, 4), np.nan)}, "floats must lie in 0 to 1"),
    ],
)
def test_bad_aloha_images(aloha, images, message):
    with pytest.raises(ValueError, match=message):
        AlohaInputs()({**aloha, "images": images})


@pytest.mark.parametrize("length", [7, 13, 16])
def test_bad_aloha_state(aloha, length):
    with pytest.raises(ValueError, match=rf"'state' has shape \({length},\); its last axis must have 14 values"):
        AlohaInputs()({**aloha, "state": np.zeros(length)})


def test_missing_parts_are_named(aloha):
    with pytest.raises(ValueError, match="'state' is missing"):
        AlohaInputs()(without(aloha, "state"))
    droid, libero = make_droid_example(), make_libero_example()
    for key in droid.keys() - {"prompt"}:
        with pytest.raises(ValueError, match=f"'{key}' is missing"):
            DroidInputs(ModelType.PI0)(without(droid, key))
    for key in libero.keys() - {"prompt"}:
        with pytest.raises(ValueError, match=f"'{key}' is missing"):
            LiberoInputs(ModelType.PI0)(without(libero, key))


def test_droid_prompt_may_be_bytes_and_joints_must_be_seven():
    droid = make_droid_example()
    assert DroidInputs(ModelType.PI0)({**droid, "prompt": b"open"})["prompt"] == "open"
    with pytest.raises(ValueError, match="must have 7 values"):
        DroidInputs(ModelType.PI0)({**droid, "observation/joint_position": np.zeros(6)})
    with pytest.raises(ValueError, match="must have 1 values"):
        DroidInputs(ModelType.PI0)({**droid, "observation/gripper_position": np.zeros(2)})


@pytest.mark.parametrize("outputs", [AlohaOutputs(), DroidOutputs(), LiberoOutputs()])
def test_too_few_action_dimensions(outputs):
    with pytest.raises(ValueError, match="The model gives 6 action dimensions"):
        outputs({"actions": np.zeros((5, 6))})


def test_float_images_are_truncated():
    image = arrays.camera_image({"cam": np.full((3, 2, 2), 0.999, np.float32)}, "cam")
    assert image.dtype == np.uint8
    assert (image == 254).all()
