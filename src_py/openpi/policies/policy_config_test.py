import dataclasses
import logging

import jax.numpy as jnp
import numpy as np
import pytest

from openpi import transforms
from openpi.policies import aloha_policy, policy_config
from openpi.shared import normalize
from openpi.training import config as _config


@pytest.fixture(scope="module")
def small() -> _config.TrainConfig:
    return _config.get_config("pi0_aloha_sim_small")


@pytest.fixture(scope="module")
def policy(small):
    return policy_config.create_random_policy(small, sample_kwargs={"num_steps": 2})


def test_random_policy_gives_a_chunk_in_robot_units(policy, small):
    result = policy.infer(aloha_policy.make_aloha_example())
    assert result["actions"].shape == (small.model.action_horizon, 14)
    assert np.isfinite(result["actions"]).all()


def test_default_prompt_and_own_prompt_are_both_heard(policy):
    example = aloha_policy.make_aloha_example()
    noise = np.zeros((50, 14), np.float32)
    default = policy.infer({key: value for key, value in example.items() if key != "prompt"}, noise=noise)
    same = policy.infer({**example, "prompt": "Transfer cube"}, noise=noise)
    other = policy.infer({**example, "prompt": "fold the towel"}, noise=noise)
    np.testing.assert_array_equal(default["actions"], same["actions"])
    assert not np.array_equal(default["actions"], other["actions"])


def test_too_long_a_prompt_warns(policy, caplog):
    with caplog.at_level(logging.WARNING):
        policy.infer({**aloha_policy.make_aloha_example(), "prompt": "pick up the red block " * 20})
    assert "is cut to 32" in caplog.text


def test_frozen_steps_come_back_in_robot_units(policy):
    example = aloha_policy.make_aloha_example()
    previous = policy.infer(example)["actions"]
    moved = {**example, "state": example["state"] + 0.05}
    keys = {"rtc/prev_actions": previous, "rtc/delay": 4, "rtc/execution_horizon": 25, "rtc/guidance_weight": 5.0}
    result = policy.infer({**moved, **keys})
    assert result["rtc/frozen_steps"] == 4
    np.testing.assert_allclose(result["actions"][:4], previous[:4], atol=1e-5)
    assert not np.allclose(result["actions"][30:], previous[30:], atol=1e-3)


def test_random_weights_have_the_dtype_of_serving(small):
    model = policy_config._random_model(dataclasses.replace(small.model, dtype="bfloat16"), 0)
    assert model.action_out_proj.kernel[...].dtype == jnp.bfloat16


def test_given_statistics_are_used_and_checked(policy, small):
    stats = {key: transforms.NormStats(mean=np.full(14, 5.0), std=np.ones(14)) for key in ("state", "actions")}
    other = policy_config.create_random_policy(small, seed=1, norm_stats=stats, sample_kwargs={"num_steps": 2})
    example, noise = aloha_policy.make_aloha_example(), np.zeros((50, 14), np.float32)
    joints = [0, 3, 4, 5]  # of those whose sign is the robot's
    difference = other.infer(example, noise=noise)["actions"] - policy.infer(example, noise=noise)["actions"]
    assert difference[:, joints].mean() > 2
    with pytest.raises(ValueError, match="'state' holds NaN"):
        other.infer({**example, "state": np.full(14, np.nan)})


def test_missing_checkpoint(small, tmp_path):
    with pytest.raises(FileNotFoundError):
        policy_config.create_trained_policy(small, tmp_path / "nothing")


def test_a_config_of_another_data_set_takes_the_only_statistics_of_its_checkpoint(small, tmp_path):
    """As a run with `--input-path my_cubes` leaves them; an asset_id of the config's own is insisted on."""
    normalize.save(tmp_path / "assets" / "my_cubes", policy_config._identity_stats())
    assert set(policy_config._checkpoint_stats(tmp_path, small, small.data.repo_id)) == {"state", "actions"}
    named = dataclasses.replace(small.data, assets=_config.AssetsConfig(asset_id="trossen"))
    with pytest.raises(FileNotFoundError, match=r"'trossen' in .*; it has statistics for my_cubes"):
        policy_config._checkpoint_stats(tmp_path, dataclasses.replace(small, data=named), "trossen")
    normalize.save(tmp_path / "assets" / "other", policy_config._identity_stats())
    with pytest.raises(FileNotFoundError, match="it has statistics for my_cubes, other"):
        policy_config._checkpoint_stats(tmp_path, small, small.data.repo_id)
