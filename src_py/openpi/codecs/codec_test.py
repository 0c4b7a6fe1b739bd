import numpy as np
import pytest

from openpi import codecs
from openpi.codecs import codec as codec_module
from openpi.codecs.actions import within_one

STEPS = 6
STATE_SIZES = {"ee": 8, "ee_joints": 15, "ee_traj": 8, "ee_joints_traj": 15, "joints_traj": 8, "droid": 8}


def _poses(rng) -> np.ndarray:
    quaternions = rng.normal(size=(STEPS, 4))
    quaternions /= np.linalg.norm(quaternions, axis=1, keepdims=True)
    return np.concatenate([rng.normal(size=(STEPS, 3)), quaternions], axis=1)


@pytest.fixture
def recording():
    rng = np.random.default_rng(0)
    joints = rng.normal(size=(STEPS, 7))
    return {
        "robot_state.ee_pose": _poses(rng),
        "robot_state.q": joints,
        "grip": rng.random((STEPS, 1)),
        "robot_command.pose": _poses(rng),
        "robot_command.joints": joints + rng.uniform(-0.15, 0.15, (STEPS, 7)),
        "target_grip": rng.random((STEPS, 1)),
        "image.wrist": rng.integers(0, 255, (STEPS, 48, 64, 3), dtype=np.uint8),
        "image.exterior": rng.integers(0, 255, (STEPS, 64, 48, 3), dtype=np.uint8),
    }


def at(recording, step):
    return {key: values[step] for key, values in recording.items()} | {"task": "stack the cubes"}


@pytest.mark.parametrize("name", codecs.names())
def test_training_and_inference_see_the_same(name, recording):
    codec = codecs.get(name)
    columns = codec.training_columns(recording)
    assert columns["observation.state"].shape == (STEPS, STATE_SIZES[name])
    assert {key: list(np.shape(values)[1:]) for key, values in columns.items()} == {
        key: feature["shape"] for key, feature in codec.features().items()
    }
    for step in range(STEPS):
        observation = codec.encode(at(recording, step))
        state = np.concatenate([observation[key] for key in codec.state_keys])
        np.testing.assert_array_equal(state, columns["observation.state"][step])
        for signal, key in codec.image_keys.items():
            np.testing.assert_array_equal(observation[key], columns[codec_module.IMAGE_COLUMNS[signal]][step])
        assert observation["prompt"] == "stack the cubes"


@pytest.mark.parametrize(
    ("name", "source", "target"),
    [
        ("ee", "robot_command.pose", "robot_command.pose"),
        ("ee_joints", "robot_command.pose", "robot_command.pose"),
        ("ee_traj", "robot_state.ee_pose", "robot_command.pose"),
        ("ee_joints_traj", "robot_state.ee_pose", "robot_command.pose"),
        ("joints_traj", "robot_state.q", "robot_command.joints"),
    ],
)
def test_a_policy_that_repeats_the_data_repeats_the_commands(name, source, target, recording):
    codec = codecs.get(name)
    actions = codec.training_columns(recording)["action"]
    commands = codec.decode({"actions": actions}, at(recording, 0))
    if name.endswith("_traj"):
        np.testing.assert_allclose(commands[target][:-1], recording[source][1:], atol=1e-6)
        np.testing.assert_array_equal(commands["target_grip"][:-1], recording["grip"][1:] > 0.5)
    else:
        np.testing.assert_allclose(commands[target], recording[source], atol=1e-6)
        np.testing.assert_allclose(commands["target_grip"], recording["target_grip"], atol=1e-6)
    np.testing.assert_array_equal(commands["actions"], actions)


def test_droid_turns_velocities_into_joint_targets(recording):
    codec = codecs.get("droid")
    actions = codec.training_columns(recording)["action"]
    for step in range(STEPS):
        commands = codec.decode({"actions": actions[step : step + 1]}, at(recording, step))
        np.testing.assert_allclose(
            commands["robot_command.joints"][0], recording["robot_command.joints"][step], atol=1e-5
        )
    fast = np.tile(np.array([2.0, 1, 0, 0, 0, 0, 0, 0.7], np.float32), (3, 1))
    commands = codec.decode({"actions": fast}, {"robot_state.q": np.zeros(7)})
    np.testing.assert_allclose(commands["robot_command.joints"][:, :2], [[0.2, 0.1], [0.4, 0.2], [0.6, 0.3]], atol=1e-6)
    np.testing.assert_array_equal(commands["target_grip"], np.ones((3, 1)))


def test_velocities_keep_their_direction():
    np.testing.assert_allclose(within_one(np.array([[2.0, -4.0], [0.5, 0.1]])), [[0.5, -1.0], [0.5, 0.1]])


def test_other_quaternion_order_means_the_same_to_the_model(recording):
    codec = codecs.get("ee")
    turned = {key: np.array(values) for key, values in recording.items()}
    for key in ("robot_state.ee_pose", "robot_command.pose"):
        turned[key][:, 3:] = np.roll(turned[key][:, 3:], -1, axis=1)
    ros = codec.with_quaternion_order("xyzw")
    wanted, got = codec.training_columns(recording), ros.training_columns(turned)
    np.testing.assert_allclose(got["observation.state"], wanted["observation.state"], atol=1e-6)
    np.testing.assert_allclose(got["action"], wanted["action"], atol=1e-6)
    back = ros.decode({"actions": got["action"]}, at(turned, 0))["robot_command.pose"]
    np.testing.assert_allclose(back, turned["robot_command.pose"], atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"grip": None}, "'grip' is missing"),
        ({"robot_state.ee_pose": np.zeros(6)}, "'robot_state.ee_pose' has shape"),
        ({"robot_state.ee_pose": np.zeros(7)}, "unit quaternion"),
        ({"robot_state.ee_pose": np.full(7, np.nan)}, "NaN"),
        ({"image.wrist": np.zeros((4, 4), np.uint8)}, "'image.wrist' is uint8"),
        ({"image.exterior": None}, "'image.exterior' is missing"),
    ],
)
def test_wrong_observations_are_named(changes, words, recording):
    observation = {key: value for key, value in (at(recording, 0) | changes).items() if value is not None}
    with pytest.raises(ValueError, match=words):
        codecs.get("ee").encode(observation)


def test_the_guides_example_observation_is_taken():
    picture = np.zeros((480, 640, 3), np.uint8)
    observation = {"robot_state.ee_pose": [0.1, 0.2, 0.3, 0, 0, 0, 1], "grip": [0.5]}
    encoded = codecs.get("ee").encode({**observation, "image.wrist": picture, "image.exterior": picture})
    assert encoded["observation/image"].shape == (224, 224, 3)
    assert "prompt" not in encoded


def test_actions_of_another_codec_are_refused(recording):
    with pytest.raises(ValueError, match="another codec"):
        codecs.get("ee").decode({"actions": np.zeros((5, 7))}, at(recording, 0))


@pytest.mark.parametrize("name", codecs.names())
@pytest.mark.parametrize("order", ["wxyz", "xyzw"])
def test_example_fits(name, order):
    codec = codecs.get(name).with_quaternion_order(order)
    assert codec.encode(codec.example())["prompt"] == "do something"


def test_names():
    assert codecs.get("@positronic.vendors.openpi.codecs.ee_joints").name == "ee_joints"
    with pytest.raises(ValueError, match="Did you mean 'ee_joints'"):
        codecs.get("ee_joint")


OWN = """
from openpi.codecs import AbsoluteTarget, Codec
from openpi.codecs.signals import GRIP, JOINTS, TARGET_JOINTS

SIX = Codec(
    "six", (JOINTS, GRIP, "force"), AbsoluteTarget(TARGET_JOINTS), sizes={JOINTS: 6, TARGET_JOINTS: 6, "force": 3},
    image_keys={"image.top": "observation/image"},
)
"""


def test_a_codec_in_a_file_for_another_robot(recording, tmp_path):
    """Six joints, one camera, and a signal that is not ours."""
    (tmp_path / "own.py").write_text(OWN)
    codec = codecs.get(f"{tmp_path}/own.py:six")
    assert codecs.get(f"{tmp_path}/own.py:six") is codec
    six = {"robot_state.q": recording["robot_state.q"][:, :6], "grip": recording["grip"], "force": np.ones((STEPS, 3))}
    targets = {"robot_command.joints": six["robot_state.q"] + 0.1, "target_grip": recording["target_grip"]}
    columns = codec.training_columns({**six, **targets, "image.top": recording["image.wrist"]})
    assert {name: values.shape[1:] for name, values in columns.items()} == {
        "observation.state": (10,),
        "observation.images.top": (224, 224, 3),
        "action": (7,),
    }
    assert codec.features()["action"]["names"][-2:] == ["robot_command.joints.5", "target_grip"]
    commands = codec.decode({"actions": columns["action"]}, six)
    np.testing.assert_allclose(commands["robot_command.joints"], targets["robot_command.joints"], atol=1e-6)
    assert set(codec.encode(codec.example())) == {"observation/state", "observation/image", "prompt"}


def test_what_a_file_lacks_is_told(tmp_path):
    (tmp_path / "own.py").write_text(OWN.replace('"force": 3', ""))
    with pytest.raises(ValueError, match="has no codec 'seven'; it has six"):
        codecs.get(f"{tmp_path}/own.py:seven")
    with pytest.raises(ValueError, match="Nothing is known of signal 'force': give its codec sizes="):
        codecs.get(f"{tmp_path}/own.py:six").features()
    with pytest.raises(FileNotFoundError, match=r"no codec file .*nowhere\.py"):
        codecs.get(f"{tmp_path}/nowhere.py:six")


def test_one_more_codec_in_a_few_lines(recording, monkeypatch):
    monkeypatch.setattr(codecs, "_CODECS", dict(codecs._CODECS))
    mine = codecs.register(
        codecs.Codec("mine", ("robot_state.q",), codecs.AbsoluteTarget("robot_command.joints"), fps=20)
    )
    assert codecs.get("mine").training_columns(recording)["action"].shape == (STEPS, 8)
    with pytest.raises(ValueError, match="already"):
        codecs.register(mine)
