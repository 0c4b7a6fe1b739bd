"""pi0 (arXiv 2410.24164) and pi0.5 (arXiv 2504.16054): action chunks by flow matching.

A network v(x_t, t) learns the velocity from data to noise along x_t = t * noise + (1 - t) * actions: t = 1 is noise,
t = 0 is data (the papers' tau is 1 - t). Sampling integrates it from t = 1 down to 0. Images and prompt are the prefix
of the sequence, read once; state and noisy actions are the suffix, read anew in every step.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from openpi.models import gemma, siglip
from openpi.models import model as _model
from openpi.models import pi0_config as _pi0_config
from openpi.models import real_time_chunking as rtc
from openpi.shared import array_typing as at
from openpi.shared import nnx_utils

# Periods of the sine-cosine embedding of t, in units of t.
_TIME_MIN_PERIOD = 4e-3
_TIME_MAX_PERIOD = 4.0


@at.typecheck
def make_attn_mask(
    input_mask: at.Bool[at.Array, "b n"], mask_ar: at.Bool[at.Array, "*#b n"] | at.Int[at.Array, "*#b n"]
) -> at.Bool[at.Array, "b n n"]:
    """Which token (row) may see which (column).

    Tokens form blocks that see themselves and all earlier blocks; `mask_ar` is 1 where a token opens a new block. So
    all zeros are full attention, all ones causal, and [0 0 1 0 0] a prefix and a block behind it. Where `input_mask`
    is False a token neither sees nor is seen.
    """
    block = jnp.cumsum(jnp.broadcast_to(mask_ar, input_mask.shape), axis=1)
    in_reach = block[:, None, :] <= block[:, :, None]
    return in_reach & input_mask[:, None, :] & input_mask[:, :, None]


@at.typecheck
def posemb_sincos(
    pos: at.Real[at.Array, "*b"], embedding_dim: int, min_period: float, max_period: float
) -> at.Float[at.Array, "*b {embedding_dim}"]:
    """Embed scalars as sines, then cosines, of periods in geometric order from min_period to max_period."""
    if embedding_dim % 2:
        raise ValueError(f"embedding_dim is {embedding_dim}; it must be even: half sines, half cosines.")
    period = min_period * (max_period / min_period) ** jnp.linspace(0.0, 1.0, embedding_dim // 2)
    # As rounded in the published models: angles reach 1571, where 2 pi / period would be off by 1e-4.
    angle = jnp.einsum("...,j->...j", pos, 2 * jnp.pi * (1 / period), precision=jax.lax.Precision.HIGHEST)
    return jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], axis=-1)


class Suffix(NamedTuple):
    """What `Pi0.embed_suffix` makes."""

    tokens: at.Float[at.Array, "b s d"]
    mask: at.Bool[at.Array, "b s"]
    ar_mask: at.Bool[at.Array, " s"]
    adarms_cond: at.Float[at.Array, "b _ d"] | at.Float[at.Array, "b d"] | None


class Prefix(NamedTuple):
    """The prefix as the steps of sampling need it."""

    kv_cache: gemma.KVCache
    mask: at.Bool[at.Array, "b p"]


class Pi0(_model.BaseModel):
    """The model; make it with `Pi0Config.create` or `Pi0Config.load`."""

    def __init__(self, config: _pi0_config.Pi0Config, rngs: nnx.Rngs) -> None:
        super().__init__(config.action_dim, config.action_horizon, config.max_token_len)
        self.pi05 = config.pi05
        self.image_resolution = config.image_resolution
        self.max_simulated_delay = config.max_simulated_delay
        experts = [gemma.get_config(config.paligemma_variant), gemma.get_config(config.action_expert_variant)]
        dtype = jnp.dtype(config.dtype)
        width = experts[1].width
        llm = gemma.Module(
            experts,
            vocab_size=config.vocab_size,
            dtype=dtype,
            cond_dims=[None, width if config.pi05 else None],
            rngs=rngs,
        )
        img = siglip.Module(
            siglip.get_config(config.vision_variant),
            experts[0].width,
            image_resolution=config.image_resolution,
            dtype=dtype,
            rngs=rngs,
        )
        self.PaliGemma: Any = nnx.Dict(llm=llm, img=img)
        self.action_in_proj = nnx.Linear(config.action_dim, width, rngs=rngs)
        if config.pi05:
            self.time_mlp_in = nnx.Linear(width, width, rngs=rngs)
            self.time_mlp_out = nnx.Linear(width, width, rngs=rngs)
        else:
            self.state_proj = nnx.Linear(config.action_dim, width, rngs=rngs)
            self.action_time_mlp_in = nnx.Linear(2 * width, width, rngs=rngs)
            self.action_time_mlp_out = nnx.Linear(width, width, rngs=rngs)
        self.action_out_proj = nnx.Linear(width, config.action_dim, rngs=rngs)

    @at.typecheck
    def embed_prefix(
        self, obs: _model.Observation
    ) -> tuple[at.Float[at.Array, "b p d"], at.Bool[at.Array, "b p"], at.Bool[at.Array, " p"]]:
        """Tokens of the images and the prompt, which of them are there, and their block mask (one block)."""
        prefix, mask = self.PaliGemma.img.embed(obs.images, obs.image_masks)
        if obs.tokenized_prompt is not None and obs.tokenized_prompt_mask is not None:
            prefix = jnp.concatenate([prefix, self.PaliGemma.llm.embed(obs.tokenized_prompt)], axis=1)
            mask = jnp.concatenate([mask, obs.tokenized_prompt_mask], axis=1)
        return prefix, mask, jnp.zeros(prefix.shape[1], bool)

    @at.typecheck
    def embed_suffix(
        self,
        obs: _model.Observation,
        noisy_actions: at.Float[at.Array, "b ah ad"],
        timestep: at.Float[at.Array, "b"] | at.Float[at.Array, "b ah"],
    ) -> Suffix:
        """Tokens of the state (pi0 only) and the noisy actions; with pi0.5 the time is a condition of the norms.

        `timestep` is t of the whole chunk, or of every action.
        """
        actions = self.action_in_proj(noisy_actions)
        time = posemb_sincos(timestep, actions.shape[-1], _TIME_MIN_PERIOD, _TIME_MAX_PERIOD)
        if self.pi05:
            condition = nnx.swish(self.time_mlp_out(nnx.swish(self.time_mlp_in(time))))
            return self._suffix(actions, condition, [True] + [False] * (self.action_horizon - 1))
        time = time if time.ndim == 3 else time[:, None]
        fused = jnp.concatenate([actions, jnp.broadcast_to(time, actions.shape)], axis=-1)
        fused = self.action_time_mlp_out(nnx.swish(self.action_time_mlp_in(fused)))
        tokens = jnp.concatenate([self._embed_state(obs.state), fused], axis=1)
        # The state is a block of its own: it does not see the actions.
        return self._suffix(tokens, None, [True, True] + [False] * (self.action_horizon - 1))

    def _embed_state(self, state: at.Float[at.Array, "b s"]) -> at.Float[at.Array, "b 1 d"]:
        if state.shape[-1] != self.action_dim:
            raise ValueError(
                f"The state has {state.shape[-1]} values, but this model was built for {self.action_dim} (action_dim); "
                "pad it with PadStatesAndActions."
            )
        return self.state_proj(state)[:, None]

    def _suffix(self, tokens: at.Array, condition: at.Array | None, ar_mask: list[bool]) -> Suffix:
        return Suffix(tokens, jnp.ones(tokens.shape[:2], bool), jnp.array(ar_mask), condition)

    @nnx_utils.static_argnames("train")
    @at.typecheck
    def compute_loss(
        self, rng: at.KeyArrayLike, observation: _model.Observation, actions: _model.Actions, *, train: bool = False
    ) -> at.Float[at.Array, "*b ah"]:
        """Squared error of the velocity, averaged over action dimensions.

        t is drawn from Beta(1.5, 1), more often near noise. With `max_simulated_delay` d (and `train`) the first 0 to
        d actions are given clean, do not count, and the rest counts for more by as much (arXiv 2512.05964).
        """
        preprocess_rng, noise_rng, time_rng = jax.random.split(rng, 3)
        observation = self._preprocess(preprocess_rng, observation, train=train)
        noise = jax.random.normal(noise_rng, actions.shape)
        time = jax.random.beta(time_rng, 1.5, 1, actions.shape[:-2]) * 0.999 + 0.001
        if not (train and self.max_simulated_delay):
            return self._flow_error(observation, actions, noise, time)
        delay = jax.random.randint(jax.random.fold_in(time_rng, 1), time.shape, 0, self.max_simulated_delay + 1)
        free = jnp.arange(self.action_horizon) >= delay[:, None]
        error = self._flow_error(observation, actions, noise, jnp.where(free, time[:, None], 0.0))
        return error * free * self.action_horizon / jnp.sum(free, axis=-1, keepdims=True)

    def _flow_error(
        self,
        observation: _model.Observation,
        actions: at.Float[at.Array, "b ah ad"],
        noise: at.Float[at.Array, "b ah ad"],
        time: at.Float[at.Array, "b"] | at.Float[at.Array, "b ah"],
    ) -> at.Float[at.Array, "b ah"]:
        t = time.reshape(*time.shape, *[1] * (3 - time.ndim))
        x_t = t * noise + (1 - t) * actions
        v_t = self._joint_velocity(observation, x_t, time)
        return jnp.mean(jnp.square(v_t - (noise - actions)), axis=-1)

    def _joint_velocity(
        self, observation: _model.Observation, x_t: at.Float[at.Array, "b ah ad"], time: at.Array
    ) -> at.Float[at.Array, "b ah ad"]:
        """v(x_t, t), prefix and suffix in one pass."""
        prefix, prefix_mask, prefix_ar_mask = self.embed_prefix(observation)
        suffix = self.embed_suffix(observation, x_t, time)
        input_mask = jnp.concatenate([prefix_mask, suffix.mask], axis=1)
        attn_mask = make_attn_mask(input_mask, jnp.concatenate([prefix_ar_mask, suffix.ar_mask]))
        positions = jnp.cumsum(input_mask, axis=1) - 1
        conds = [None, suffix.adarms_cond]
        outputs, _ = self.PaliGemma.llm([prefix, suffix.tokens], positions, attn_mask, conds, train=True)
        return self.project_actions(outputs[1])

    @nnx_utils.static_argnames("rtc_mode")
    @at.typecheck
    def sample_actions(  # type: ignore[override]  # the keyword arguments are spelled out
        self,
        rng: at.KeyArrayLike,
        observation: _model.Observation,
        *,
        num_steps: int | at.Int[at.ArrayLike, ""] = 10,
        noise: at.Float[at.Array, "b ah ad"] | None = None,
        prev_actions: at.Float[at.Array, "*#b ah ad"] | None = None,
        delay: at.Int[at.ArrayLike, "*#b"] | None = None,
        execution_horizon: at.Int[at.ArrayLike, "*#b"] | None = None,
        guidance_weight: at.Float[at.ArrayLike, ""] = 5.0,
        rtc_mode: str = "vjp",
    ) -> _model.Actions:
        """Sample one action chunk per observation, in Euler steps from t = 1 to 0.

        With `prev_actions` the chunk continues the one that is being executed (real-time chunking, arXiv 2506.07339);
        the formulas are in `openpi.models.real_time_chunking`.

        Args:
            rng: key of the noise.
            observation: images of any resolution are brought to the model's.
            num_steps: evaluations of the network.
            noise: start from this instead of random noise.
            prev_actions: the previous chunk, normalised like the model's output; row 0 is the step due at the
                observation's time, rows past its end can hold anything.
            delay: d, the steps that will be executed while this call runs. They come back exactly as in prev_actions.
                Default 0.
            execution_horizon: s, the steps executed between two inferences: prev_actions has H - s rows. Default
                half the horizon, but at least d.
            guidance_weight: largest weight of the guidance, beta.
            rtc_mode: "vjp" guides with the vector-Jacobian product of the denoised chunk; "residual" leaves the
                Jacobian out, so that a step costs no backward pass; "trained" gives the frozen actions as they are to
                a model that was trained for it (`Pi0Config.max_simulated_delay`).

        Returns:
            [b, action_horizon, action_dim] in the model's normalised space.
        """
        observation = self._preprocess(None, observation, train=False)
        if noise is None:
            batch_size = observation.state.shape[0]
            noise = jax.random.normal(rng, (batch_size, self.action_horizon, self.action_dim))
        prefix = self.read_prefix(observation)

        def velocity(x_t: at.Array, time: at.Array) -> at.Array:
            return self._suffix_velocity(observation, prefix, x_t, time)

        if prev_actions is None:
            return _integrate(velocity, noise, num_steps)
        previous = rtc.PreviousChunk.of(prev_actions, delay, execution_horizon)
        guided = rtc.guide(velocity, previous, guidance_weight, rtc_mode)
        return previous.freeze(_integrate(guided, noise, num_steps))

    def read_prefix(self, observation: _model.Observation) -> Prefix:
        """Run images and prompt through the first expert."""
        tokens, mask, ar_mask = self.embed_prefix(observation)
        positions = jnp.cumsum(mask, axis=1) - 1
        _, kv_cache = self.PaliGemma.llm([tokens, None], positions, make_attn_mask(mask, ar_mask))
        return Prefix(kv_cache, mask)

    def _suffix_velocity(
        self, observation: _model.Observation, prefix: Prefix, x_t: at.Float[at.Array, "b ah ad"], time: at.Array
    ) -> at.Float[at.Array, "b ah ad"]:
        """v(x_t, t) with the prefix from its cache."""
        suffix = self.embed_suffix(observation, x_t, time)
        length = suffix.mask.shape[1]
        sees_prefix = jnp.repeat(prefix.mask[:, None], length, axis=1)
        attn_mask = jnp.concatenate([sees_prefix, make_attn_mask(suffix.mask, suffix.ar_mask)], axis=-1)
        positions = jnp.sum(prefix.mask, axis=1, keepdims=True) + jnp.cumsum(suffix.mask, axis=1) - 1
        outputs, _ = self.PaliGemma.llm(
            [None, suffix.tokens], positions, attn_mask, [None, suffix.adarms_cond], kv_cache=prefix.kv_cache
        )
        return self.project_actions(outputs[1])

    def project_actions(self, suffix_out: at.Float[at.Array, "b s d"]) -> at.Float[at.Array, "b ah ad"]:
        """The velocity, from the second expert's output."""
        return self.action_out_proj(suffix_out[:, -self.action_horizon :])

    def _preprocess(
        self, rng: at.KeyArrayLike | None, observation: _model.Observation, *, train: bool
    ) -> _model.Observation:
        return _model.preprocess_observation(rng, observation, train=train, image_resolution=self.image_resolution)


def _integrate(
    velocity: Callable[[at.Array, at.Array], at.Array],
    noise: at.Float[at.Array, "b ah ad"],
    num_steps: int | at.Int[at.ArrayLike, ""],
) -> at.Float[at.Array, "b ah ad"]:
    """Euler steps of equal length from t = 1; the last evaluation is at t = 1 / num_steps."""
    dt = -1.0 / num_steps

    def step(_: int, carry: tuple[at.Array, at.Array]) -> tuple[at.Array, at.Array]:
        x_t, time = carry
        v_t = velocity(x_t, jnp.broadcast_to(time, x_t.shape[:1]))
        return x_t + dt * v_t, time + dt

    actions, _ = jax.lax.fori_loop(0, num_steps, step, (noise, jnp.float32(1.0)))
    return actions
