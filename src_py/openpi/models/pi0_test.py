import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from openpi.models import gemma, pi0, pi0_config
from openpi.models import model as _model
from openpi.shared import nnx_utils

BATCH = 2
Sample = Callable[..., jax.Array]


@pytest.fixture(scope="module", params=["pi0", "pi05"])
def model(request: pytest.FixtureRequest, fill: Callable) -> pi0.Pi0:
    config = request.getfixturevalue(f"{request.param}_sizes")
    return fill(lambda: config.create(jax.random.key(0)))


@pytest.fixture(scope="module")
def sample(model: pi0.Pi0) -> Callable[..., jax.Array]:
    """`model.sample_actions(key, ...)`, compiled once for all tests that call it alike."""
    return functools.partial(nnx_utils.module_jit(model.sample_actions), jax.random.key(0))


@pytest.fixture(scope="module")
def observation(pi0_sizes: pi0_config.Pi0Config) -> _model.Observation:
    observation = pi0_sizes.fake_obs(BATCH)
    state = jax.random.normal(jax.random.key(2), observation.state.shape)
    return observation.replace(state=state, tokenized_prompt=jnp.arange(10).reshape(BATCH, 5))


def chunk(model: pi0.Pi0, seed: int) -> jax.Array:
    return jax.random.normal(jax.random.key(seed), (BATCH, model.action_horizon, model.action_dim))


class TracedVelocity:
    """A model's velocity that counts how often it is traced: once per compilation."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        embed_suffix = pi0.Pi0.embed_suffix

        def counted(*args):
            self.count += 1
            return embed_suffix(*args)

        monkeypatch.setattr(pi0.Pi0, "embed_suffix", counted)


def test_sampling_integrates_the_velocity_of_the_loss(
    model: pi0.Pi0, sample: Sample, observation: _model.Observation
) -> None:
    noise = chunk(model, 3)
    x, time = noise, 1.0
    velocity = nnx.jit(lambda model, x, time: model._joint_velocity(observation, x, time))
    for _ in range(3):
        x, time = x - velocity(model, x, jnp.full(BATCH, time)) / 3, time - 1 / 3
    got = sample(observation, noise=noise, num_steps=3)
    np.testing.assert_allclose(got, x, atol=1e-4)


def test_masked_image_and_padding_do_not_matter(sample: Sample, observation: _model.Observation) -> None:
    masks = {**observation.image_masks, "right_wrist_0_rgb": jnp.zeros(BATCH, bool)}
    prompt_mask = observation.tokenized_prompt_mask.at[:, 3:].set(False)
    masked = observation.replace(image_masks=masks, tokenized_prompt_mask=prompt_mask)
    images = {**masked.images, "right_wrist_0_rgb": -masked.images["right_wrist_0_rgb"]}
    changed = masked.replace(images=images, tokenized_prompt=masked.tokenized_prompt.at[:, 3:].add(1))
    results = [sample(obs) for obs in (observation, masked, changed)]
    np.testing.assert_allclose(results[1], results[2], atol=1e-5)
    assert float(jnp.abs(results[0] - results[1]).max()) > 1e-4


@pytest.mark.parametrize("mode", ["vjp", "residual", "trained"])
def test_frozen_steps_equal_the_previous_chunk_and_nothing_is_compiled_anew(
    model: pi0.Pi0, observation: _model.Observation, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    traced = TracedVelocity(monkeypatch)
    sample = nnx_utils.module_jit(model.sample_actions)
    counts, results = [], []
    for delay in (0, 1, 3):
        previous = chunk(model, 4)
        arguments = {"delay": delay, "execution_horizon": 3, "guidance_weight": 5.0 + delay, "rtc_mode": mode}
        results.append(sample(jax.random.key(0), observation, prev_actions=previous, **arguments))
        np.testing.assert_array_equal(results[-1][:, :delay], previous[:, :delay])
        counts.append(traced.count)
    assert counts == [counts[0]] * 3
    assert counts[0] > 0
    assert float(jnp.abs(results[0][:, 3:] - results[-1][:, 3:]).max()) > 1e-4  # the free steps follow the frozen ones


def test_guidance_pulls_towards_the_previous_chunk(
    model: pi0.Pi0, sample: Sample, observation: _model.Observation
) -> None:
    previous = 0.1 * chunk(model, 4)
    arguments = {"prev_actions": previous, "delay": 0, "execution_horizon": 1, "rtc_mode": "vjp"}
    distance = {
        weight: float(jnp.abs(sample(observation, **arguments, guidance_weight=weight) - previous)[:, 0].mean())
        for weight in (0.0, 5.0)
    }
    assert distance[5.0] < 0.5 * distance[0.0]


def test_without_weight_the_guided_sample_is_the_free_one(
    model: pi0.Pi0, sample: Sample, observation: _model.Observation
) -> None:
    free = sample(observation)
    guided = sample(
        observation, delay=0, execution_horizon=1, prev_actions=chunk(model, 4), guidance_weight=0.0, rtc_mode="vjp"
    )
    np.testing.assert_allclose(guided, free, atol=1e-5)


def test_time_per_action_equals_time_per_chunk(model: pi0.Pi0, observation: _model.Observation) -> None:
    noise = chunk(model, 3)
    once = model.embed_suffix(observation, noise, jnp.array([0.3, 0.8]))
    each = model.embed_suffix(observation, noise, jnp.repeat(jnp.array([[0.3], [0.8]]), model.action_horizon, axis=1))
    np.testing.assert_allclose(each.tokens, once.tokens, atol=1e-6)
    if model.pi05:
        np.testing.assert_allclose(each.adarms_cond[:, 0], once.adarms_cond, atol=1e-6)


def test_simulated_delay_frees_the_given_actions_from_the_loss(
    fill: Callable, pi05_sizes: pi0_config.Pi0Config, observation: _model.Observation
) -> None:
    config = dataclasses.replace(pi05_sizes, max_simulated_delay=4)
    model = fill(lambda: config.create(jax.random.key(0)))
    many = jax.tree.map(lambda x: jnp.repeat(x, 16, axis=0), observation)
    actions = jnp.repeat(chunk(model, 5), 16, axis=0)
    loss = np.asarray(nnx_utils.module_jit(model.compute_loss)(jax.random.key(1), many, actions, train=True))
    given = (loss == 0).sum(axis=1)
    assert set(given) == {0, 1, 2, 3, 4}
    assert all((row[:count] == 0).all() and (row[count:] > 0).all() for row, count in zip(loss, given, strict=True))


def test_simulated_delay_gives_the_first_actions_clean_and_the_others_one_time(
    model: pi0.Pi0, observation: _model.Observation, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = {}

    def velocity(self: pi0.Pi0, observation: _model.Observation, x_t: jax.Array, time: jax.Array) -> jax.Array:
        seen.update(x_t=np.asarray(x_t), time=np.asarray(time))
        return jnp.zeros_like(x_t)

    monkeypatch.setattr(pi0.Pi0, "_joint_velocity", velocity)
    monkeypatch.setattr(pi0.Pi0, "_preprocess", lambda self, rng, observation, *, train: observation)
    monkeypatch.setattr(model, "max_simulated_delay", 4)
    many = jax.tree.map(lambda x: jnp.repeat(x, 16, axis=0), observation)
    actions = np.asarray(jnp.repeat(chunk(model, 5), 16, axis=0))
    loss = model.compute_loss(jax.random.key(1), many, actions, train=True)
    given = seen["time"] == 0
    assert set(given.sum(axis=1)) == {0, 1, 2, 3, 4}
    np.testing.assert_array_equal(given, np.arange(model.action_horizon) < given.sum(axis=1, keepdims=True))
    np.testing.assert_array_equal(seen["x_t"][given], actions[given])
    assert (seen["x_t"][~given] != actions[~given]).all()
    times = [set(row[~mask]) for row, mask in zip(seen["time"], given, strict=True)]
    assert all(len(row) == 1 for row in times)
    assert len(set.union(*times)) > 16
    travel = (seen["x_t"] - actions) / np.where(given, 1, seen["time"])[..., None]  # noise - actions; 0 where given
    weight = model.action_horizon / (~given).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(loss, weight * np.square(travel).mean(axis=-1), rtol=1e-2)


def test_without_training_the_delay_is_not_simulated(fill: Callable, pi0_sizes: pi0_config.Pi0Config) -> None:
    config = dataclasses.replace(pi0_sizes, max_simulated_delay=4)
    model, observation, actions = fill(lambda: config.create(jax.random.key(0))), config.fake_obs(1), config.fake_act(1)
    loss = nnx_utils.module_jit(model.compute_loss)(jax.random.key(1), observation, actions)
    assert (loss > 0).all()


def test_state_of_the_wrong_length_is_named(pi0_sizes: pi0_config.Pi0Config) -> None:
    model = nnx.eval_shape(pi0_sizes.create, jax.random.key(0))
    with pytest.raises(ValueError, match=r"14 values.*built for 3"):
        model._embed_state(jnp.zeros((1, 14)))


def test_odd_embedding_is_refused() -> None:
    with pytest.raises(ValueError, match="even"):
        pi0.posemb_sincos(jnp.zeros(2), 7, 4e-3, 4.0)


def test_config_defaults() -> None:
    assert (pi0_config.Pi0Config().max_token_len, pi0_config.Pi0Config(pi05=True).max_token_len) == (48, 200)
    assert pi0_config.Pi0Config(pi05=True).discrete_state_input
    assert not pi0_config.Pi0Config().discrete_state_input
    assert pi0_config.Pi0Config(pytorch_compile_mode=None).model_type is _model.ModelType.PI0
    with pytest.raises(ValueError, match="max_simulated_delay is 50"):
        pi0_config.Pi0Config(max_simulated_delay=50)


@pytest.mark.parametrize(
    ("config", "parameters"),
    [(pi0_config.Pi0Config(), 3_238_048_528), (pi0_config.Pi0Config(pi05=True), 3_353_433_872)],
)
def test_full_size_without_allocation(config: pi0_config.Pi0Config, parameters: int) -> None:
    shapes = nnx.state(nnx.eval_shape(config.create, jax.random.key(0)))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == parameters
    assert gemma.PALIGEMMA_VOCAB_SIZE == 257_152
