"""Code that users of openpi know from its documents, on models small enough for a test."""

import jax
import numpy as np
import pytest

from openpi import transforms
from openpi.models import gemma, siglip
from openpi.models.model import Observation
from openpi.models.pi0_config import Pi0Config
from openpi.policies.policy import Policy

LANGUAGE = gemma.Config(width=32, depth=1, mlp_dim=64, num_heads=2, num_kv_heads=1, head_dim=16)
VISION = siglip.Config(width=32, depth=1, mlp_dim=64, num_heads=2, patch_size=(56, 56))


@pytest.fixture(scope="module")
def config() -> Pi0Config:
    return Pi0Config(
        action_dim=32,
        action_horizon=50,
        max_token_len=48,
        dtype="float32",
        paligemma_variant=LANGUAGE,
        action_expert_variant=LANGUAGE,
        vision_variant=VISION,
        vocab_size=1000,
    )


@pytest.fixture(scope="module")
def observation() -> dict:
    rng = np.random.default_rng(0)
    cameras = ("base_0_rgb", "left_wrist_0_rgb", "right_wrist_0_rgb")
    return {
        "images": {name: rng.random((224, 224, 3), np.float32) for name in cameras},
        "image_masks": dict.fromkeys(cameras, True),
        "state": rng.random(32, np.float32),
        "tokenized_prompt": rng.integers(0, 1000, (48,), dtype=np.int32),
        "tokenized_prompt_mask": np.ones((48,), dtype=bool),
    }


def test_a_policy_around_a_bare_jax_model(config, observation):
    policy = Policy(model=config.create(jax.random.key(42)), sample_kwargs={"num_steps": 10})
    result = policy.infer(observation)
    assert result["actions"].shape == (50, 32)
    np.testing.assert_array_equal(result["state"], observation["state"])
    assert result["policy_timing"].keys() == {"infer_ms"}
    one_camera = {**observation, "images": {"base_0_rgb": observation["images"]["base_0_rgb"]}}
    with pytest.raises(ValueError, match="left_wrist_0_rgb"):
        policy.infer(one_camera)


def test_a_policy_around_a_bare_pytorch_model(config, observation):
    pytest.importorskip("torch", reason="PyTorch is an extra")
    from openpi.models_pytorch.pi0_pytorch import PI0Pytorch

    policy = Policy(model=PI0Pytorch(config), device="cpu", sample_kwargs={"num_steps": 10}, is_pytorch=True)
    assert policy.infer(observation)["actions"].shape == (50, 32)


def test_looking_into_the_chain_for_debugging(config, observation):
    inputs = transforms.compose([])(observation)
    leaves = transforms.flatten_dict(inputs)
    described = {key: (value.shape, str(value.dtype)) for key, value in leaves.items() if hasattr(value, "shape")}
    assert described["state"] == ((32,), "float32")
    seen = Observation.from_dict(jax.tree.map(lambda x: np.asarray(x)[None], inputs))
    assert {key: value.shape for key, value in seen.images.items()}["base_0_rgb"] == (1, 224, 224, 3)
    assert seen.state.shape == (1, 32)


def test_repack_a_dataset_sample():
    repack = transforms.RepackTransform(
        {"images": {"cam_high": "observation.images.top"}, "state": "observation.state", "actions": "action"}
    )
    sample = {"observation.images.top": 1, "observation.state": 2, "action": 3}
    assert repack(sample) == {"images": {"cam_high": 1}, "state": 2, "actions": 3}


def test_delta_actions_of_a_joint_robot():
    data = {"state": np.array([1.0, 0.5]), "actions": np.array([[1.1, 0.7]])}
    delta = transforms.DeltaActions(transforms.make_bool_mask(2))(data)
    np.testing.assert_allclose(delta["actions"], [[0.1, 0.2]])


def test_group_orders_outputs_the_other_way_round():
    group = transforms.Group(inputs=["A"], outputs=["A^-1"])
    for name in ("B", "C"):
        group = group.push(inputs=[name], outputs=[f"{name}^-1"])
    assert group.inputs == ("A", "B", "C")
    assert group.outputs == ("C^-1", "B^-1", "A^-1")


def test_make_bool_mask():
    assert transforms.make_bool_mask(6, -1) == (True,) * 6 + (False,)
