"""Transforms and statistics against vectors of the reference: values, dtypes, key order."""

import json
from typing import Any

import numpy as np
import pytest

from openpi import transforms
from openpi.models.model import ModelType
from openpi.policies import aloha_policy, droid_policy, libero_policy
from openpi.shared import normalize

# Both sides compute in float64; the order of operations may differ by a rounding.
EXACT = {"rtol": 1e-12, "atol": 1e-12}


@pytest.fixture(scope="module")
def load(golden):
    return lambda name: dict(np.load(golden(f"transforms/{name}.npz")))


@pytest.fixture(scope="module")
def index(golden) -> dict[str, Any]:
    return json.loads(golden("transforms/INDEX.json").read_text())["entries"]


def check(actual: np.ndarray, expected: np.ndarray, name: str) -> None:
    assert actual.dtype == expected.dtype, name
    np.testing.assert_allclose(actual, expected, err_msg=name, **EXACT)


def stats_of(arrays: dict[str, np.ndarray], key: str) -> transforms.NormStats:
    return transforms.NormStats(**{name: arrays[f"in/{key}_{name}"] for name in ("mean", "std", "q01", "q99")})


@pytest.mark.parametrize(("method", "quantiles"), [("zscore", False), ("quantile", True)])
@pytest.mark.parametrize(
    ("direction", "length"), [("norm", "same"), ("norm", "short"), ("unnorm", "same"), ("unnorm", "long")]
)
def test_normalize(load, method, quantiles, direction, length):
    arrays = load("normalize")
    stats = {key: stats_of(arrays, key) for key in ("state", "actions")}
    transform = {"norm": transforms.Normalize, "unnorm": transforms.Unnormalize}[direction](stats, quantiles)
    result = transform({key: arrays[f"in/x_{length}_{key}"] for key in stats})
    for key in stats:
        name = f"out/{direction}_{method}_{length}_{key}"
        check(result[key], arrays[name], name)


@pytest.mark.parametrize("mask_name", ["6n1_6n1", "short3", "none"])
def test_delta_and_absolute(load, index, mask_name):
    arrays = load("delta_absolute")
    mask = index["delta_absolute"]["extra"]["masks"][mask_name]
    data = {"state": arrays["in/state"], "actions": arrays["in/actions"]}
    for name, transform in (("delta", transforms.DeltaActions), ("absolute", transforms.AbsoluteActions)):
        expected = arrays[f"out/{name}_{mask_name}"]
        np.testing.assert_array_equal(transform(mask)(data)["actions"], expected)
    np.testing.assert_array_equal(data["actions"], arrays["in/actions"])  # the caller's array stays


def test_delta_of_a_batch(load, index):
    arrays = load("delta_batched")
    mask = index["delta_absolute"]["extra"]["masks"]["short3"]
    data = {"state": arrays["in/state"], "actions": arrays["in/actions"]}
    np.testing.assert_array_equal(transforms.DeltaActions(mask)(data)["actions"], arrays["out/delta"])
    np.testing.assert_array_equal(transforms.AbsoluteActions(mask)(data)["actions"], arrays["out/absolute"])


def test_padding(load):
    arrays = load("pad_states_actions")
    data = {key: arrays[f"in/{key}"] for key in ("state", "actions")}
    padded = transforms.PadStatesAndActions(arrays["out/state"].shape[-1])(data)
    too_small = transforms.PadStatesAndActions(10)(data)
    for key in data:
        check(padded[key], arrays[f"out/{key}"], key)
        check(too_small[key], arrays[f"out/{key}_smaller"], key)


@pytest.mark.parametrize("precision", ["f32", "f64"])
def test_running_statistics(load, precision):
    arrays = load(f"running_stats_{precision}")
    running, seen = normalize.RunningStats(), []
    for i in range(sum(name.startswith("in/batch") for name in arrays)):
        batch = arrays[f"in/batch{i}"]
        running.update(batch)
        seen.append(batch.reshape(-1, batch.shape[-1]))
        stats = running.get_statistics()
        tolerance = {"rtol": 1e-5, "atol": 1e-6} if precision == "f32" else EXACT
        np.testing.assert_allclose(stats.mean, arrays[f"out/mean_after{i}"], **tolerance)
        np.testing.assert_allclose(stats.std, arrays[f"out/std_after{i}"], **tolerance)
        bins = np.ptp(np.concatenate(seen), axis=0) / 5000
        for name in ("q01", "q99"):
            error = np.abs(getattr(stats, name) - arrays[f"out/{name}_after{i}"])
            assert (error <= 4 * bins + 1e-9).all(), f"{name} after batch {i}"


def test_norm_stats_file(golden, load):
    values = load("norm_stats_example_values")
    path = golden("transforms/norm_stats_example/norm_stats.json")
    stats = normalize.load(path.parent)
    for name, expected in values.items():
        key, _, field = name.removeprefix("in/").rpartition("_")
        np.testing.assert_array_equal(getattr(stats[key], field), expected)
    assert stats["actions"].q01 is None
    assert normalize.serialize_json(stats) == path.read_text()


def test_small_transforms(index):
    extra = index["json_only"]["extra"]
    for case in extra["repack"]:
        result = transforms.RepackTransform(case["structure"])(case["data"])
        assert result == case["result"]
        assert list(result) == list(case["result"])
    for case in extra["transform_dict"]:
        assert transforms.transform_dict(case["patterns"], case["tree"]) == case["result"]
    for arguments, expected in extra["make_bool_mask"].items():
        numbers = [int(number) for number in arguments.strip("()").split(",") if number.strip()]
        assert list(transforms.make_bool_mask(*numbers)) == expected


@pytest.mark.parametrize("adapt", [True, False])
@pytest.mark.parametrize("cameras_missing", [True, False])
def test_aloha(load, adapt, cameras_missing):
    arrays = load("aloha")
    prefix = f"out/adapt{int(adapt)}_miss{int(cameras_missing)}"
    names = ["cam_high"] if cameras_missing else ["cam_high", "cam_low", "cam_left_wrist", "cam_right_wrist"]
    data = {
        "state": arrays["in/state"],
        "actions": arrays["in/actions"],
        "images": {name: arrays[f"in/image/{name}"] for name in names},
    }
    inputs = aloha_policy.AlohaInputs(adapt)(data)
    for name, expected in arrays.items():
        if name.startswith(f"{prefix}/") and name.split("/")[2] in ("state", "actions", "image", "image_mask"):
            check(transforms.flatten_dict(inputs)[name.removeprefix(f"{prefix}/")], expected, name)
    if not cameras_missing:
        mask = transforms.make_bool_mask(6, -1, 6, -1)
        check(transforms.DeltaActions(mask)(inputs)["actions"], arrays[f"{prefix}/delta_actions"], "delta")
        outputs = {"state": arrays["out/adapt1_out_state"], "actions": arrays["in/model_actions"]}
        convert = aloha_policy.AlohaOutputs(adapt)
        check(convert(outputs)["actions"], arrays[f"{prefix}/out_actions"], "out_actions")
        absolute = transforms.AbsoluteActions(mask)(outputs)
        check(convert(absolute)["actions"], arrays[f"{prefix}/out_actions_after_absolute"], "after absolute")


def test_aloha_gripper_curves(load):
    arrays = load("aloha")
    opening = arrays["in/gripper"]
    for name in ("gripper_to_angular", "gripper_from_angular"):
        check(getattr(aloha_policy, name)(opening), arrays[f"out/{name}"], name)
    check(aloha_policy.gripper_from_angular_inverse(opening), arrays["out/gripper_from_angular_inv"], "inverse")
    np.testing.assert_array_equal(aloha_policy.JOINT_SIGNS, arrays["out/joint_flip"])


def droid_data(arrays: dict[str, np.ndarray], *, scalar_gripper: bool) -> dict[str, Any]:
    base, gripper = arrays["in/base"], arrays["in/gripper_position"]
    wrist = arrays["in/wrist"]
    data = {
        "observation/exterior_image_1_left": base,
        "observation/wrist_image_left": wrist,
        "observation/joint_position": arrays["in/joint_position"],
        "observation/gripper_position": gripper,
        "prompt": "hello",
    }
    if not scalar_gripper:
        return {**data, "actions": arrays["in/droid_actions"]}
    as_float = (base.astype(np.float32) / 255).transpose(2, 0, 1)
    return {**data, "observation/gripper_position": gripper[0], "observation/exterior_image_1_left": as_float}


@pytest.mark.parametrize("model_type", list(ModelType))
@pytest.mark.parametrize("robot", ["droid", "droid_scalar_gripper_chw_float", "libero"])
def test_droid_and_libero(load, index, robot, model_type):
    arrays = load("droid_libero")
    if robot == "libero":
        data = {
            "observation/image": arrays["in/base"],
            "observation/wrist_image": arrays["in/wrist"],
            "observation/state": arrays["in/libero_state"],
            "actions": arrays["in/libero_actions"],
            "prompt": "hello",
        }
        inputs = libero_policy.LiberoInputs(model_type)(data)
    else:
        inputs = droid_policy.DroidInputs(model_type)(droid_data(arrays, scalar_gripper=robot != "droid"))
    case = f"{robot}/{model_type.value}"
    extra = index["droid_libero"]["extra"][case]
    assert sorted(inputs) == extra["keys"]
    assert list(inputs["image"]) == extra["image_keys_in_order"]
    assert inputs["prompt"] == extra["prompt"]
    for name, expected in arrays.items():
        if name.startswith(f"out/{case}/"):
            actual = transforms.flatten_dict(inputs)[name.removeprefix(f"out/{case}/")]
            # x / 255 * 255 in float32 can fall just below an integer, and which ones do depends on the library.
            tolerance = 1 if "float" in robot and expected.dtype == np.uint8 else 0
            assert actual.dtype == expected.dtype, name
            assert np.abs(actual.astype(float) - expected.astype(float)).max() <= tolerance, name


def test_droid_and_libero_outputs(load):
    arrays = load("droid_libero")
    data = {"actions": arrays["in/model_actions"]}
    check(droid_policy.DroidOutputs()(data)["actions"], arrays["out/droid_outputs"], "droid")
    check(libero_policy.LiberoOutputs()(data)["actions"], arrays["out/libero_outputs"], "libero")


def test_model_input_resize(load):
    arrays = load("resize_with_pad")
    for name, expected in arrays.items():
        if name.startswith("out/") and name.endswith("_pil_u8"):
            image = arrays[f"in/{name.removeprefix('out/').removesuffix('_pil_u8')}_u8"]
            resized = transforms.ResizeImages(*expected.shape[-3:-1])({"image": {"base": image}})["image"]["base"]
            assert resized.dtype == np.uint8
            difference = np.abs(resized.astype(int) - expected.astype(int))
            assert difference.max() <= 1
            assert (difference > 0).mean() <= 0.02, name
