import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from flax import nnx, traverse_util

from openpi.models import model as _model
from openpi.models import pi0_config


def data(**changes: Any) -> dict[str, Any]:
    cameras = {name: np.full((2, 8, 8, 3), 255, np.uint8) for name in _model.IMAGE_KEYS}
    masks = {name: np.ones(2, bool) for name in _model.IMAGE_KEYS}
    return {"image": cameras, "image_mask": masks, "state": np.zeros((2, 3), np.float32)} | changes


def test_uint8_becomes_minus_1_to_1_and_the_input_stays() -> None:
    given = data()
    given["image"]["base_0_rgb"][0] = 0
    observation = _model.Observation.from_dict(given)
    assert observation.images["base_0_rgb"].dtype == np.float32
    assert (observation.images["base_0_rgb"][0].max(), observation.images["base_0_rgb"][1].min()) == (-1.0, 1.0)
    assert given["image"]["base_0_rgb"].dtype == np.uint8


def test_both_spellings_and_back() -> None:
    given = data(tokenized_prompt=np.ones((2, 4), np.int32), tokenized_prompt_mask=np.ones((2, 4), bool))
    plural = {**given, "images": given["image"], "image_masks": given["image_mask"]}
    del plural["image"], plural["image_mask"]
    one, two = _model.Observation.from_dict(given), _model.Observation.from_dict(plural)
    jax.tree.map(np.testing.assert_array_equal, one, two)
    assert set(one.to_dict()) >= {"image", "image_mask", "state", "tokenized_prompt"}
    jax.tree.map(np.testing.assert_array_equal, _model.Observation.from_dict(one.to_dict()), one)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tokenized_prompt": np.ones((2, 4), np.int32)}, "given together"),
        ({"image": {"base_0_rgb": np.zeros((8, 8), np.uint8)}}, r"'base_0_rgb'.*\(8, 8\)"),
        ({"image": {"base_0_rgb": np.zeros((2, 8, 8, 3), np.int64)}}, "int64"),
        ({"state": np.array([[0, np.nan, 1]], np.float32)}, r"not finite at \[\[0, 1\]\]"),
    ],
)
def test_bad_observations_are_explained(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _model.Observation.from_dict(data(**changes))


def test_missing_parts_are_named() -> None:
    given = data()
    del given["state"]
    with pytest.raises(ValueError, match="'state'; it has image, image_mask"):
        _model.Observation.from_dict(given)


def test_batches_that_disagree_are_refused() -> None:
    with pytest.raises(Exception, match="state"):
        _model.Observation.from_dict(data(state=np.zeros((3, 3), np.float32)))


def test_preprocessing_names_the_missing_camera() -> None:
    given = data()
    del given["image"]["left_wrist_0_rgb"]
    with pytest.raises(ValueError, match=r"\['left_wrist_0_rgb'\] are missing; .*base_0_rgb"):
        _model.preprocess_observation(None, _model.Observation.from_dict(given))


def test_preprocessing_resizes_and_fills_masks() -> None:
    given = data()
    del given["image_mask"]["base_0_rgb"]
    observation = _model.Observation.from_dict(given)
    observation = _model.preprocess_observation(None, observation, image_resolution=(4, 6))
    assert observation.images["base_0_rgb"].shape == (2, 4, 6, 3)
    np.testing.assert_array_equal(observation.images["base_0_rgb"][0, 0, :, 0], [-1, 1, 1, 1, 1, -1])
    assert observation.image_masks["base_0_rgb"].all()


def test_augmentation_needs_a_key() -> None:
    with pytest.raises(ValueError, match="rng is None"):
        _model.preprocess_observation(None, _model.Observation.from_dict(data()), train=True)


def random_params(config: pi0_config.Pi0Config) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    shapes = nnx.to_pure_dict(nnx.state(nnx.eval_shape(config.create, jax.random.key(0))))
    return jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), shapes)


def test_load_keeps_dtypes_and_drops_what_is_extra(pi0_sizes: pi0_config.Pi0Config) -> None:
    params = jax.tree.map(lambda x: jnp.asarray(x, jnp.bfloat16), random_params(pi0_sizes))
    model = pi0_sizes.load({**params, "value_head": {"kernel": jnp.zeros(3)}})
    assert model.state_proj.kernel.dtype == jnp.bfloat16
    with pytest.raises(ValueError, match=r"\['value_head'\]\['kernel'\] is not expected"):
        pi0_sizes.load({**params, "value_head": {"kernel": jnp.zeros(3)}}, remove_extra_params=False)


def test_load_lists_what_does_not_fit(pi0_sizes: pi0_config.Pi0Config) -> None:
    params = random_params(pi0_sizes)
    params["state_proj"]["kernel"] = np.zeros((4, 4), np.float32)
    del params["action_in_proj"]
    with pytest.raises(ValueError, match="3 places") as error:
        pi0_sizes.load(params)
    assert "['action_in_proj']['bias'] is missing" in str(error.value)
    assert "['state_proj']['kernel'] has shape (4, 4) instead of (3, 12)" in str(error.value)


@pytest.mark.parametrize("value_level", [False, True], ids=["released", "from training"])
def test_restore(pi0_sizes: pi0_config.Pi0Config, tmp_path: pathlib.Path, value_level: bool) -> None:
    params = random_params(pi0_sizes)
    flat = traverse_util.flatten_dict(params)
    stored = (
        traverse_util.unflatten_dict({(*path, "value"): leaf for path, leaf in flat.items()}) if value_level else params
    )
    with ocp.PyTreeCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "params", {"params": stored})
    restored = _model.restore_params(tmp_path / "params", restore_type=np.ndarray)
    jax.tree.map(np.testing.assert_array_equal, restored, params)
    halved = _model.restore_params(str(tmp_path / "params"), dtype=jnp.bfloat16)
    assert {leaf.dtype for leaf in jax.tree.leaves(halved)} == {jnp.dtype(jnp.bfloat16)}
    assert isinstance(jax.tree.leaves(halved)[0], jax.Array)


def test_restore_says_what_is_wrong_with_the_folder(tmp_path: pathlib.Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        _model.restore_params(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="params"):
        _model.restore_params(tmp_path)


def test_fake_batches_have_the_specified_shapes(pi0_sizes: pi0_config.Pi0Config) -> None:
    observation, actions = pi0_sizes.inputs_spec(batch_size=3)
    same = jax.tree.map(
        lambda spec, x: (spec.shape, spec.dtype) == (x.shape, x.dtype), observation, pi0_sizes.fake_obs(3)
    )
    assert all(jax.tree.leaves(same))
    assert pi0_sizes.fake_act(3).shape == actions.shape == (3, 6, 3)
