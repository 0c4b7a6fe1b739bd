"""Real-time chunking: a new action chunk that continues the one being executed.

Black et al., "Real-Time Execution of Action Chunking Flow Policies" (arXiv 2506.07339), treat it as inpainting. While
the network computes, d more steps of the previous chunk Y are executed; the new chunk has to agree with them, and
should stay near the rest of Y. In the paper's time tau = 1 - t, running from 0 (noise) to 1, every step replaces the
velocity v by

    v + min(beta, (1 - tau) / (tau r^2)) * J^T [(Y - A1) * W],    r^2 = (1 - tau)^2 / (tau^2 + (1 - tau)^2),

where A1 = A_tau + (1 - tau) v(A_tau) is the chunk that the network expects to end at and J its Jacobian with respect
to A_tau. With horizon H and s steps executed between inferences the weights W of row i are

    1                                 i < d         (will have been executed when the new chunk arrives)
    c (e^c - 1) / (e - 1)             d <= i < H - s,    c = (H - s - i) / (H - s - d + 1)
    0                                 H - s <= i    (Y has no such rows).

Here t points the other way: x_t is A_tau, v points to the noise, A1 = x_t - t v, and the correction is subtracted.
"""

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from openpi.shared import array_typing as at

Velocity: TypeAlias = Callable[[at.Float[at.Array, "b h d"], at.Float[at.Array, "..."]], at.Float[at.Array, "b h d"]]

MODES = ("vjp", "residual", "trained")


@at.typecheck
def prefix_weights(
    horizon: int, delay: at.Int[at.ArrayLike, "*b"], execution_horizon: at.Int[at.ArrayLike, "*b"]
) -> at.Float[at.Array, "*b {horizon}"]:
    """The weights W of a chunk's rows, from d = delay and s = execution_horizon."""
    row = jnp.arange(horizon)
    d, end = jnp.asarray(delay)[..., None], horizon - jnp.asarray(execution_horizon)[..., None]
    c = (end - row) / jnp.maximum(end - d + 1, 1)
    decaying = jnp.where(row < end, c * jnp.expm1(c) / jnp.expm1(1.0), 0.0)
    return jnp.where(row < d, 1.0, decaying)


class PreviousChunk(NamedTuple):
    """The chunk to continue, which of its rows are frozen, and how much each counts."""

    actions: at.Float[at.Array, "*b h d"]
    frozen: at.Bool[at.Array, "*b h 1"]
    weights: at.Float[at.Array, "*b h 1"]

    @classmethod
    def of(
        cls,
        actions: at.Float[at.Array, "*b h d"],
        delay: at.Int[at.ArrayLike, "*b"] | None,
        execution_horizon: at.Int[at.ArrayLike, "*b"] | None,
    ) -> "PreviousChunk":
        """From the arguments of `sample_actions`, with its defaults."""
        horizon = actions.shape[-2]
        delay = jnp.asarray(0 if delay is None else delay)
        shortest = jnp.maximum(delay, horizon // 2)
        executed = shortest if execution_horizon is None else jnp.broadcast_to(execution_horizon, delay.shape)
        weights = prefix_weights(horizon, delay, executed)
        return cls(actions, (jnp.arange(horizon) < delay[..., None])[..., None], weights[..., None])

    def freeze(self, actions: at.Float[at.Array, "b h d"]) -> at.Float[at.Array, "b h d"]:
        """`actions` with the frozen rows of this chunk."""
        return jnp.where(self.frozen, self.actions, actions)


def guide(velocity: Velocity, previous: PreviousChunk, guidance_weight: at.ArrayLike, mode: str) -> Velocity:
    """The velocity that leads to a continuation of `previous`; arguments as in `Pi0.sample_actions`.

    Raises:
        ValueError: `mode` is unknown.
    """
    if mode == "trained":
        return _given_prefix(velocity, previous)
    if mode not in MODES:
        raise ValueError(f"rtc_mode is {mode!r}; it must be one of {', '.join(MODES)}.")

    def guided(x_t: at.Float[at.Array, "b h d"], time: at.Float[at.Array, "b"]) -> at.Float[at.Array, "b h d"]:
        t = time[:, None, None]

        def denoised(x_t: at.Array) -> tuple[at.Array, at.Array]:
            v_t = velocity(x_t, time)
            return x_t - t * v_t, v_t

        if mode == "vjp":
            chunk, pull_back, v_t = jax.vjp(denoised, x_t, has_aux=True)
            (correction,) = pull_back((previous.actions - chunk) * previous.weights)
        else:
            chunk, v_t = denoised(x_t)
            correction = (previous.actions - chunk) * previous.weights
        return v_t - jnp.minimum(guidance_weight, _unclipped_weight(t)) * correction

    return guided


def _unclipped_weight(t: at.Float[at.Array, "..."]) -> at.Float[at.Array, "..."]:
    """(1 - tau) / (tau r^2) as a function of t = 1 - tau; huge, but finite, at both ends."""
    tau = 1.0 - t
    return (tau**2 + t**2) / jnp.maximum(t * tau, 1e-9)


def _given_prefix(velocity: Velocity, previous: PreviousChunk) -> Velocity:
    """For models trained with simulated delay (arXiv 2512.05964): frozen rows enter clean, at t = 0."""

    def conditioned(x_t: at.Float[at.Array, "b h d"], time: at.Float[at.Array, "b"]) -> at.Float[at.Array, "b h d"]:
        frozen = jnp.broadcast_to(previous.frozen[..., 0], x_t.shape[:2])
        return velocity(previous.freeze(x_t), jnp.where(frozen, 0.0, time[:, None]))

    return conditioned
