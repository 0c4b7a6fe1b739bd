import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from openpi.models import real_time_chunking as rtc

HORIZON, DIM = 4, 2


def test_weights_by_hand() -> None:
    def decaying(c: float) -> float:
        return c * (math.e**c - 1) / (math.e - 1)

    # H = 10, d = 2, s = 4: rows 2 to 5 decay with c = (6 - i) / 5.
    wanted = [1, 1, *(decaying(c) for c in (0.8, 0.6, 0.4, 0.2)), 0, 0, 0, 0]
    np.testing.assert_allclose(rtc.prefix_weights(10, 2, 4), wanted, atol=1e-6)


@pytest.mark.parametrize(("delay", "executed"), [(0, 10), (3, 10), (0, 1), (9, 9), (5, 5), (12, 12)])
def test_weights_never_grow_and_stay_within_0_and_1(delay: int, executed: int) -> None:
    weights = np.asarray(rtc.prefix_weights(10, delay, executed))
    assert (np.diff(weights) <= 1e-6).all()
    assert ((weights >= 0) & (weights <= 1)).all()
    np.testing.assert_array_equal(weights[:delay], 1)
    np.testing.assert_array_equal(weights[max(delay, 10 - executed) :], 0)


def test_weights_of_a_batch() -> None:
    weights = rtc.prefix_weights(10, np.array([0, 2]), np.array([5, 4]))
    np.testing.assert_array_equal(weights[1], rtc.prefix_weights(10, 2, 4))
    np.testing.assert_array_equal(weights[0], rtc.prefix_weights(10, 0, 5))


def linear_velocity(matrix: np.ndarray) -> rtc.Velocity:
    """v = M x over the flattened chunk, whose Jacobian is known."""
    return lambda x, _: (x.reshape(x.shape[0], -1) @ matrix.T).reshape(x.shape)


@pytest.mark.parametrize("t", [1.0, 0.9, 0.5, 0.05])
@pytest.mark.parametrize("mode", ["vjp", "residual"])
def test_guidance_of_a_linear_model_by_hand(mode: str, t: float) -> None:
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(HORIZON * DIM, HORIZON * DIM)).astype(np.float32)
    x, target = rng.normal(size=(2, HORIZON * DIM)).astype(np.float32)
    weights = np.repeat(np.asarray(rtc.prefix_weights(HORIZON, 1, 1)), DIM)

    velocity = matrix @ x
    error = (target - (x - t * velocity)) * weights
    # A1 = (I - t M) x, so that its transposed Jacobian is (I - t M)^T.
    pulled_back = (np.eye(HORIZON * DIM) - t * matrix).T @ error if mode == "vjp" else error
    tau = 1 - t
    r2 = t**2 / (tau**2 + t**2)
    strength = min(5.0, t / (tau * r2)) if tau else 5.0
    wanted = velocity - strength * pulled_back

    previous = rtc.PreviousChunk.of(jnp.asarray(target.reshape(1, HORIZON, DIM)), 1, 1)
    guided = rtc.guide(linear_velocity(matrix), previous, 5.0, mode)
    got = guided(jnp.asarray(x.reshape(1, HORIZON, DIM)), jnp.full(1, t, jnp.float32))
    np.testing.assert_allclose(np.ravel(got), wanted, rtol=2e-4, atol=2e-4)


def test_trained_models_get_frozen_rows_clean_and_at_time_zero() -> None:
    target = jnp.full((1, HORIZON, DIM), 7.0)
    seen = {}

    def velocity(x: jax.Array, time: jax.Array) -> jax.Array:
        seen.update(x=x, time=time)
        return x

    rtc.guide(velocity, rtc.PreviousChunk.of(target, 2, 2), 5.0, "trained")(jnp.zeros_like(target), jnp.full(1, 0.6))
    np.testing.assert_allclose(seen["time"], [[0, 0, 0.6, 0.6]])
    np.testing.assert_array_equal(seen["x"][0, :, 0], [7, 7, 0, 0])


def test_one_previous_chunk_serves_a_batch() -> None:
    previous = rtc.PreviousChunk.of(jnp.full((HORIZON, DIM), 7.0), 2, 2)
    frozen = previous.freeze(jnp.zeros((3, HORIZON, DIM)))
    np.testing.assert_array_equal(frozen[:, :, 0], [[7, 7, 0, 0]] * 3)
    guided = rtc.guide(lambda x, _: x, previous, 5.0, "vjp")(jnp.zeros((3, HORIZON, DIM)), jnp.full(3, 0.5))
    assert guided.shape == (3, HORIZON, DIM)


def test_default_execution_horizon_is_half_the_horizon_or_the_delay() -> None:
    actions = jnp.zeros((10, DIM))
    weights = rtc.PreviousChunk.of(actions, 2, None).weights[:, 0]
    np.testing.assert_array_equal(weights, rtc.prefix_weights(10, 2, 5))
    weights = rtc.PreviousChunk.of(actions, 7, None).weights[:, 0]
    np.testing.assert_array_equal(weights, rtc.prefix_weights(10, 7, 7))


def test_unknown_mode_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match="vjp, residual, trained"):
        rtc.guide(linear_velocity(np.eye(8)), rtc.PreviousChunk.of(jnp.zeros((4, 2)), 0, 2), 5.0, "none")
