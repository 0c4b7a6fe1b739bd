"""Checkpoints that the reference wrote, read by our code."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from openpi.models import gemma, pi0_config, siglip
from openpi.models import model as _model
from openpi.shared import nested
from openpi.training import checkpoints, optimizer, utils


def test_params_that_training_wrote(golden):
    want = np.load(golden("checkpoint_train/restored_params.npz"))
    params = nested.flatten_dict(
        _model.restore_params(golden("checkpoint_train/ckpt/3/params"), restore_type=np.ndarray)
    )
    assert set(params) == set(want.files)
    for path, array in params.items():
        np.testing.assert_array_equal(array.astype(np.float32), want[path], err_msg=path)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_dtype_of_restored_params(golden, dtype):
    params = _model.restore_params(golden("checkpoint_train/ckpt/3/params"), dtype=dtype)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype(dtype)}


def test_sharding_of_restored_params(golden):
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    params = _model.restore_params(golden("checkpoint_train/ckpt/3/params"), sharding=sharding)
    assert {leaf.sharding for leaf in jax.tree.leaves(params)} == {sharding}


def _config(meta) -> pi0_config.Pi0Config:
    fields = {key: meta["model"][key] for key in ("action_dim", "action_horizon", "max_token_len", "dtype", "pi05")}
    vision = {**meta["siglip"], "patch_size": tuple(meta["siglip"]["patch_size"])}
    return pi0_config.Pi0Config(
        paligemma_variant=gemma.Config(**meta["variants"][meta["model"]["paligemma_variant"]]),
        action_expert_variant=gemma.Config(**meta["variants"][meta["model"]["action_expert_variant"]]),
        vision_variant=siglip.Config(**vision),
        vocab_size=meta["vocab"],
        **fields,
    )


@pytest.fixture
def resumed(golden):
    """The reference's state after three steps, restored by our trainer's means."""
    folder = golden("checkpoint_train")
    meta = json.loads((folder / "meta.json").read_text())
    graph, params = nnx.split(nnx.eval_shape(_config(meta).create, jax.random.key(0)))
    schedule = optimizer.CosineDecaySchedule(warmup_steps=2, peak_lr=1e-3, decay_steps=10, decay_lr=1e-4)
    tx = optimizer.create_optimizer(optimizer.AdamW(), schedule)
    state = utils.TrainState(
        step=jax.ShapeDtypeStruct((), jnp.int32),
        params=params,
        model_def=graph,
        opt_state=jax.eval_shape(tx.init, params),
        tx=tx,
        ema_decay=0.99,
        ema_params=params,
    )
    manager, resuming = checkpoints.initialize_checkpoint_dir(
        folder / "ckpt", keep_period=None, overwrite=False, resume=True
    )
    assert resuming
    yield meta, checkpoints.restore_state(manager, state, data_loader=None)
    manager.close()


def test_reference_s_training_state(golden, resumed):
    meta, state = resumed
    assert int(state.step) == 3
    adam = state.opt_state[1][0]
    assert isinstance(adam, optax.ScaleByAdamState)
    assert int(adam.count) == 3
    assert jax.tree.structure(adam.mu) == jax.tree.structure(state.params)
    want = np.load(golden("checkpoint_train/restored_params.npz"))
    for path, leaf in nested.flatten_dict(nnx.to_pure_dict(state.ema_params)).items():
        np.testing.assert_array_equal(leaf, want[path], err_msg=path)
    norms = meta["checksums_[shape,dtype,sum,l2]"]["params"]
    for path, leaf in nested.flatten_dict(nnx.to_pure_dict(state.params)).items():
        assert float(jnp.linalg.norm(leaf)) == pytest.approx(norms[path][3], rel=1e-5), path
