"""What one step does to frozen, averaged and accumulated parameters."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from openpi.training import optimizer as _optimizer
from openpi.training import options, sharding, train_state, train_step


def start(config: Any) -> Any:
    return train_state.init_train_state(config, jax.random.key(0), sharding.make_mesh(1), resume=False)[0]


def batch(config: Any, size: int = 4) -> train_step.Batch:
    return config.model.fake_obs(size), config.model.fake_act(size)


def run(config: Any, state: Any, data: Any, steps: int = 1) -> tuple[Any, Any]:
    step = jax.jit(functools.partial(train_step.train_step, config))
    for _ in range(steps):
        state, info = step(jax.random.key(1), state, data)
    return state, info


def flat(params: Any) -> dict[str, jax.Array]:
    return traverse_util.flatten_dict(params.to_pure_dict(), sep="/")


def test_average_follows_the_parameters(tiny: Any) -> None:
    config = dataclasses.replace(tiny.FAKE, ema_decay=0.75)
    state = start(config)
    after, _ = run(config, state, batch(config))
    for old, new, average in zip(*map(jax.tree.leaves, (state.params, after.params, after.ema_params)), strict=True):
        np.testing.assert_allclose(average, 0.75 * old + 0.25 * new, atol=1e-6)


def test_accumulation_averages_the_parts_gradients(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a loss that draws nothing, four parts give the step of the whole batch."""
    monkeypatch.setattr(
        "openpi.models.pi0.Pi0.compute_loss",
        lambda self, rng, observation, actions, train: jnp.mean(
            jnp.square(self.state_proj(observation.state)[:, None] - actions[..., :1]), axis=-1
        ),
    )
    data = batch(tiny.FAKE, size=8)
    data = (dataclasses.replace(data[0], state=jnp.linspace(-1, 1, 8 * 14).reshape(8, 14)), data[1])
    parts = dataclasses.replace(tiny.FAKE, loop=options.LoopOptions(grad_accum_steps=4))
    whole_state, whole = run(tiny.FAKE, start(tiny.FAKE), data)
    state, info = run(parts, start(tiny.FAKE), data)
    assert float(info["loss"]) == pytest.approx(float(whole["loss"]), rel=1e-5)
    assert float(info["grad_norm"]) == pytest.approx(float(whole["grad_norm"]), rel=1e-5)
    for ours, expected in zip(jax.tree.leaves(state.params), jax.tree.leaves(whole_state.params), strict=True):
        np.testing.assert_allclose(ours, expected, atol=1e-6)


def test_parts_take_samples_from_the_whole_batch() -> None:
    parts = train_step._split((jnp.arange(6.0), jnp.arange(12.0).reshape(6, 2)), 3)
    np.testing.assert_array_equal(parts[0], [[0, 3], [1, 4], [2, 5]])
    assert parts[1].shape == (3, 2, 2)


def test_decay_of_matrices_only_leaves_vectors_alone(tiny: Any) -> None:
    """A step of the optimizer with gradients of zero moves what decays, by rate times decay."""
    params = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2), "scale": jnp.ones(())}
    optimizer = _optimizer.AdamW(weight_decay=0.1)
    for only_matrices in (False, True):
        loop = options.LoopOptions(decay_matrices_only=only_matrices)
        tx = train_state.make_optimizer(dataclasses.replace(tiny.FAKE, optimizer=optimizer, loop=loop))
        updates, _ = tx.update(jax.tree.map(jnp.zeros_like, params), tx.init(params), params)
        step = -0.1 * float(tiny.FAKE.lr_schedule.create()(0))
        np.testing.assert_allclose(updates["kernel"], np.full((2, 2), step), rtol=1e-6)
        for name in ("bias", "scale"):
            np.testing.assert_allclose(updates[name], 0.0 if only_matrices else step, rtol=1e-6)


class Fixed:
    def __init__(self, tree: Any) -> None:
        self.tree = tree

    def load(self, params: Any) -> Any:
        return self.tree


def test_weights_that_do_not_fit_are_named() -> None:
    shape = {"a": {"w": jax.ShapeDtypeStruct((2, 3), jnp.float32)}, "b": jax.ShapeDtypeStruct((1,), jnp.float32)}
    with pytest.raises(ValueError, match=r"a/w is float32\[3, 2\], the model's is float32\[2, 3\]"):
        train_state.load_weights(Fixed({"a": {"w": np.zeros((3, 2), np.float32)}}), shape)
    with pytest.raises(ValueError, match=r"c is float32\[1\], the model's is missing"):
        train_state.load_weights(Fixed({"c": np.zeros(1, np.float32)}), shape)
    loaded = train_state.load_weights(Fixed({"a": {"w": np.ones((2, 3), np.float32)}, "b": shape["b"]}), shape)
    assert set(loaded) == {"a"}


def test_loaded_weights_are_what_training_starts_from(tiny: Any) -> None:
    bias = np.arange(14, dtype=np.float32)
    config = dataclasses.replace(tiny.FAKE, weight_loader=Fixed({"action_out_proj": {"bias": bias}}))
    np.testing.assert_array_equal(flat(start(config).params)["action_out_proj/bias"], bias)
