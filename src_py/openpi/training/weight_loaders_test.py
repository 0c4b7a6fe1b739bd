import dataclasses
import shutil

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from flax import nnx

from openpi.policies import policy_config
from openpi.shared import nested
from openpi.training import config as _config
from openpi.training import fitting, weight_loaders

SMALL = _config.get_config("pi0_aloha_sim_small").model


@pytest.fixture(scope="module")
def small_params():
    """The parameters of the small ALOHA model, random."""
    shapes = nnx.to_pure_dict(nnx.state(nnx.eval_shape(SMALL.create, jax.random.key(0))))
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(leaf.dtype), shapes)


@pytest.fixture(scope="module")
def checkpoint(small_params, tmp_path_factory):
    path = tmp_path_factory.mktemp("checkpoint") / "params"
    with ocp.PyTreeCheckpointer() as checkpointer:
        checkpointer.save(path, {"params": small_params})
    return path


def abstract(params):
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), params)


def with_leaf(params, path, leaf):
    return nested.unflatten_dict({**nested.flatten_dict(params), path: leaf})


def test_no_op(small_params):
    assert weight_loaders.NoOpWeightLoader().load(small_params) is small_params


def test_checkpoint_replaces_every_weight(checkpoint, small_params):
    loaded = weight_loaders.CheckpointWeightLoader(str(checkpoint)).load(abstract(small_params))
    jax.tree.map(np.testing.assert_array_equal, loaded, small_params)


def test_weights_take_the_model_s_dtype(checkpoint, small_params):
    half = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, np.float16), small_params)
    loaded = weight_loaders.CheckpointWeightLoader(str(checkpoint)).load(half)
    assert {leaf.dtype for leaf in jax.tree.leaves(loaded)} == {np.dtype(np.float16)}


def test_lora_weights_may_be_missing(checkpoint, small_params):
    lora = jax.ShapeDtypeStruct((3,), np.float32)
    params = with_leaf(abstract(small_params), "PaliGemma/llm/layers/attn/q_einsum/lora_a", lora)
    loaded = weight_loaders.CheckpointWeightLoader(str(checkpoint)).load(params)
    assert loaded["PaliGemma"]["llm"]["layers"]["attn"]["q_einsum"]["lora_a"] is lora


def test_misfit_lists_paths_and_names_the_config_that_fits(checkpoint, small_params):
    params = with_leaf(abstract(small_params), "state_proj/kernel", jax.ShapeDtypeStruct((7, 64), np.float32))
    params = with_leaf(params, "time_mlp_in/bias", jax.ShapeDtypeStruct((64,), np.float32))
    with pytest.raises(ValueError, match="do not fit") as error:
        weight_loaders.CheckpointWeightLoader(str(checkpoint)).load(params)
    text = str(error.value)
    assert "missing: time_mlp_in/bias (64,)" in text
    assert "other shape: state_proj/kernel (14, 64), the model has (7, 64)" in text
    assert "fit the configs pi0_aloha_sim_small." in text


def test_policy_of_the_wrong_config(checkpoint):
    right = _config.get_config("pi0_aloha_sim_small")
    wrong = dataclasses.replace(right, name="wrong", model=dataclasses.replace(SMALL, action_dim=8, pi05=True))
    with pytest.raises(ValueError, match="does not fit config 'wrong'") as error:
        policy_config.create_trained_policy(wrong, checkpoint.parent)
    text = str(error.value)
    assert "['time_mlp_in']['bias'] is missing" in text
    assert "['state_proj']['kernel'] is not expected" in text
    assert "['action_in_proj']['kernel'] has shape (14, 64) instead of (8, 64)" in text
    assert "fit the configs pi0_aloha_sim_small." in text


@pytest.mark.parametrize("pattern", ["d/*", "ocdbt.process_0/d/*", "manifest.ocdbt", "_METADATA"])
def test_damaged_checkpoint(checkpoint, small_params, tmp_path, pattern):
    damaged = shutil.copytree(checkpoint, tmp_path / "params")
    for file in damaged.glob(pattern):
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(ValueError, match=r"holds no parameters that Orbax can read|damaged or incomplete"):
        weight_loaders.CheckpointWeightLoader(str(damaged)).load(small_params)


def test_no_config_fits():
    assert "No named config" in fitting.describe({"a": np.zeros(3)})


def test_paligemma(tmp_path, small_params):
    image_bias = np.full_like(small_params["PaliGemma"]["img"]["head"]["bias"], 5)
    np.savez(tmp_path / "pt.npz", **{"params/img/head/bias": image_bias, "params/llm/other": np.zeros(2)})
    loaded = weight_loaders.PaliGemmaWeightLoader(npz_path=str(tmp_path / "pt.npz")).load(small_params)
    np.testing.assert_array_equal(loaded["PaliGemma"]["img"]["head"]["bias"], image_bias)
    np.testing.assert_array_equal(loaded["state_proj"]["bias"], small_params["state_proj"]["bias"])
    assert set(nested.flatten_dict(loaded)) == set(nested.flatten_dict(small_params))


def test_file_that_is_not_paligemma(tmp_path, small_params):
    np.savez(tmp_path / "x.npz", a=np.zeros(2))
    with pytest.raises(ValueError, match="no PaliGemma weights file"):
        weight_loaders.PaliGemmaWeightLoader(npz_path=str(tmp_path / "x.npz")).load(small_params)
