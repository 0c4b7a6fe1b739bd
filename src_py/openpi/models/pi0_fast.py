"""pi0-FAST (arXiv 2501.09747): action chunks as tokens, one after another."""

import dataclasses
from dataclasses import KW_ONLY, dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from openpi.models import gemma, lora, pi0_config, siglip
from openpi.models import model as _model
from openpi.models.pi0 import make_attn_mask
from openpi.shared import array_typing as at
from openpi.shared import nnx_utils

__all__ = ["Pi0FAST", "Pi0FASTConfig", "left_to_right_align", "make_attn_mask", "put_along_last_axis"]

PALIGEMMA_EOS_TOKEN = 1
_IMAGE_KEYS = ("base_0_rgb", "base_1_rgb", "wrist_0_rgb")


@at.typecheck
def left_to_right_align(
    x: at.Float[at.Array, "b s d"], input_mask: at.Bool[at.Array, "b s"], attn_mask: at.Bool[at.Array, "b s s"]
) -> tuple[at.Float[at.Array, "b s d"], at.Bool[at.Array, "b s"], at.Bool[at.Array, "b s s"]]:
    """Roll every sample so that its last valid token comes last; gaps before it move along."""

    def align(x: at.Array, mask: at.Array, attn_mask: at.Array) -> tuple[at.Array, at.Array, at.Array]:
        shift = -(jnp.max(mask * jnp.arange(mask.shape[0])) + 1)
        return jnp.roll(x, shift, 0), jnp.roll(mask, shift, 0), jnp.roll(jnp.roll(attn_mask, shift, 0), shift, 1)

    return jax.vmap(align)(x, input_mask, attn_mask)


@at.typecheck
def put_along_last_axis(
    arr: at.Shaped[at.Array, "*b n"], indices: at.Int[at.Array, "*b k"], values: at.Shaped[at.Array, "*b k"]
) -> at.Shaped[at.Array, "*b n"]:
    """A copy of `arr` with `values` at `indices` of the last axis, like `np.put_along_axis(..., axis=-1)`."""
    chosen = jax.nn.one_hot(indices, arr.shape[-1], dtype=values.dtype)
    put = jnp.einsum("...k,...kn->...n", values, chosen)
    return jnp.where(jnp.any(chosen, axis=-2), put, arr).astype(arr.dtype)


@dataclass(frozen=True)
class Pi0FASTConfig(_model.BaseModelConfig):
    """Sizes of an autoregressive model; names as in `Pi0Config`.

    Attributes:
        fast_model_tokenizer: class of the tokenizer that the data pipeline uses; `FASTTokenizer` for None.
        fast_model_tokenizer_kwargs: its keyword arguments.
        decode_as_trained: decode at the positions, and with the gaps of missing images left out, that the loss has.
            False decodes as published weights are used, with two oddities: the first token's position is one more
            than the prefix's count of tokens, so that one position is skipped; and a prefix with a gap (an image that
            is missing in the middle) is taken for the last `count` slots, gap included. A large model hardly minds
            the first; one that was trained from scratch on little data does, and none can mind the second.
    """

    action_dim: int = 32
    action_horizon: int = 32
    max_token_len: int = 250
    dtype: str = "bfloat16"
    paligemma_variant: gemma.Variant = "gemma_2b"
    fast_model_tokenizer: Any | None = None
    fast_model_tokenizer_kwargs: dict[str, Any] | None = None
    _: KW_ONLY
    vision_variant: siglip.Variant = "So400m/14"
    vocab_size: int = gemma.PALIGEMMA_VOCAB_SIZE
    image_resolution: tuple[int, int] = _model.IMAGE_RESOLUTION
    decode_as_trained: bool = False

    @property
    def model_type(self) -> _model.ModelType:
        """PI0_FAST."""
        return _model.ModelType.PI0_FAST

    def create(self, rng: at.KeyArrayLike) -> "Pi0FAST":
        """A model with random parameters."""
        return Pi0FAST(self, rngs=nnx.Rngs(rng))

    def inputs_spec(self, *, batch_size: int = 1) -> tuple[_model.Observation, _model.Actions]:
        """Shapes and dtypes of a batch."""
        prompt = (batch_size, self.max_token_len)
        observation = pi0_config.observation_spec(self, batch_size, _IMAGE_KEYS, self.image_resolution)
        with at.disable_typechecking():
            observation = dataclasses.replace(
                observation,
                token_ar_mask=jax.ShapeDtypeStruct(prompt, jnp.int32),
                token_loss_mask=jax.ShapeDtypeStruct(prompt, jnp.bool_),
            )
        return observation, jax.ShapeDtypeStruct((batch_size, self.action_horizon, self.action_dim), jnp.float32)

    def get_freeze_filter(self) -> nnx.filterlib.Filter:
        """Selects the parameters that LoRA training leaves as they are; nothing where there are no adapters."""
        return lora.freeze_filter([bool(gemma.get_config(self.paligemma_variant).lora_configs)])


class Decoding(NamedTuple):
    """State of the decoding loop."""

    step: at.Int[at.Array, ""]
    stopped: at.Bool[at.Array, ""]
    rng: at.KeyArrayLike
    logits: at.Float[at.Array, "b v"]
    tokens: at.Float[at.Array, "b n"]
    kv_cache: gemma.KVCache


class Pi0FAST(_model.BaseModel):
    """The model; make it with `Pi0FASTConfig.create` or `.load`."""

    def __init__(self, config: Pi0FASTConfig, rngs: nnx.Rngs) -> None:
        super().__init__(config.action_dim, config.action_horizon, config.max_token_len)
        self.image_resolution = config.image_resolution
        self.decode_as_trained = config.decode_as_trained
        expert = gemma.get_config(config.paligemma_variant)
        dtype = jnp.dtype(config.dtype)
        llm = gemma.Module([expert], vocab_size=config.vocab_size, dtype=dtype, float32_queries=True, rngs=rngs)
        img = siglip.Module(
            siglip.get_config(config.vision_variant),
            expert.width,
            image_resolution=config.image_resolution,
            dtype=dtype,
            rngs=rngs,
        )
        self.PaliGemma: Any = nnx.Dict(llm=llm, img=img)

    @at.typecheck
    def embed_inputs(
        self, obs: _model.Observation
    ) -> tuple[at.Float[at.Array, "b s d"], at.Bool[at.Array, "b s"], at.Int[at.Array, "b s"]]:
        """Tokens of the images and the prompt (with the action tokens, in training), their masks and block masks."""
        for name in ("tokenized_prompt", "tokenized_prompt_mask", "token_ar_mask"):
            if getattr(obs, name) is None:
                raise ValueError(f"pi0-FAST needs {name} in its observation; TokenizeFASTInputs makes it.")
        images, image_mask = self.PaliGemma.img.embed(obs.images, obs.image_masks)
        prompt: Any = (self.PaliGemma.llm.embed(obs.tokenized_prompt), obs.tokenized_prompt_mask, obs.token_ar_mask)
        parts = zip((images, image_mask, jnp.zeros(image_mask.shape, jnp.int32)), prompt, strict=True)
        tokens, mask, ar_mask = (jnp.concatenate(pair, axis=1) for pair in parts)
        return tokens, mask, ar_mask

    @nnx_utils.static_argnames("train")
    @at.typecheck
    def compute_loss(
        self, rng: at.KeyArrayLike, observation: _model.Observation, actions: _model.Actions, *, train: bool = False
    ) -> at.Float[at.Array, "b"]:
        """Cross-entropy of the next token, averaged over each sample's tokens in `token_loss_mask`.

        The actions are in the prompt as tokens; `actions` itself is not used.
        """
        observation = self._preprocess(rng, observation, train=train)
        if observation.token_loss_mask is None or observation.tokenized_prompt is None:
            raise ValueError("pi0-FAST needs token_loss_mask for its loss; TokenizeFASTInputs makes it.")
        counts = observation.token_loss_mask[:, 1:]
        logits = self.PaliGemma.llm.embedder.decode(self.prelogits(observation))
        log_probabilities = jax.nn.log_softmax(logits, axis=-1)
        next_tokens = observation.tokenized_prompt[:, 1:, None]
        nll = -jnp.take_along_axis(log_probabilities, next_tokens, axis=-1)[..., 0]
        return jnp.sum(nll * counts, axis=-1) / jnp.maximum(jnp.sum(counts, axis=-1), 1)

    def prelogits(self, observation: _model.Observation) -> at.Float[at.Array, "b l-1 d"]:
        """What predicts the prompt's tokens from the second on. Positions count padding and missing images, too."""
        tokens, mask, ar_mask = self.embed_inputs(observation)
        attn_mask = make_attn_mask(mask, ar_mask)[:, :-1, :-1]
        positions = jnp.broadcast_to(jnp.arange(tokens.shape[1] - 1), (tokens.shape[0], tokens.shape[1] - 1))
        (outputs,), _ = self.PaliGemma.llm([tokens[:, :-1]], positions, attn_mask, train=True)
        return outputs[:, 1 - observation.tokenized_prompt.shape[1] :]  # type: ignore[union-attr]

    @nnx_utils.static_argnames("max_decoding_steps")
    @at.typecheck
    def sample_actions(  # type: ignore[override]  # the keyword arguments are spelled out
        self,
        rng: at.KeyArrayLike,
        observation: _model.Observation,
        *,
        max_decoding_steps: int = 256,
        temperature: float | at.Float[at.ArrayLike, ""] = 0.0,
    ) -> at.Float[at.Array, "b {max_decoding_steps}"]:
        """Sample action tokens; `ExtractFASTActions` turns them into actions.

        Decoding ends after `max_decoding_steps`, or with the step in which ALL samples emit the end token; tokens
        after that are 0.

        Args:
            rng: key of the sampling.
            observation: its prompt is the prefix only.
            max_decoding_steps: length of the result; compiled in.
            temperature: 0 takes the likeliest token.

        Returns:
            Token ids as float32, like the actions of other models.
        """
        start, prefix_mask = self.read_prefix(rng, observation, max_decoding_steps)

        def step(state: Decoding) -> Decoding:
            return self.advance(state, prefix_mask, choose(state, temperature))

        end = jax.lax.while_loop(lambda state: ~state.stopped & (state.step < max_decoding_steps), step, start)
        return end.tokens

    def read_prefix(
        self, rng: at.KeyArrayLike, observation: _model.Observation, max_decoding_steps: int
    ) -> tuple[Decoding, at.Bool[at.Array, "b p"]]:
        """The state before the first token, with room for all of them in the cache, and the right-aligned mask."""
        observation = self._preprocess(None, observation, train=False)
        tokens, mask, ar_mask = self.embed_inputs(observation)
        tokens, mask, attn_mask = left_to_right_align(tokens, mask, make_attn_mask(mask, ar_mask))
        batch_size, prefix_len = mask.shape
        # The empty slots are masked, but not without effect: a missing image's tokens see nothing, so that their
        # attention is uniform over all slots, and published decoding does look at them (see `_append`).
        slots = jnp.broadcast_to(jnp.arange(prefix_len), mask.shape)
        (outputs,), kv_cache = self.PaliGemma.llm(
            [tokens],
            slots if self.decode_as_trained else jnp.cumsum(mask, axis=-1) - 1,
            jnp.pad(attn_mask, [(0, 0), (0, 0), (0, max_decoding_steps)]),
            kv_cache=self.PaliGemma.llm.empty_cache(batch_size, prefix_len + max_decoding_steps),
            write_at=jnp.int32(0),
        )
        state = Decoding(
            step=jnp.int32(0),
            stopped=jnp.bool_(False),
            rng=rng,
            logits=self.PaliGemma.llm.embedder.decode(outputs[:, -1]),
            tokens=jnp.zeros((batch_size, max_decoding_steps)),
            kv_cache=kv_cache,
        )
        return state, mask

    def advance(self, state: Decoding, prefix_mask: at.Bool[at.Array, "b p"], token: at.Int[at.Array, "b"]) -> Decoding:
        """Write a token down and run it through the model, which gives the logits of the next one."""
        outputs, kv_cache = self._append(token, state, prefix_mask)
        return Decoding(
            step=state.step + 1,
            stopped=jnp.all(token == PALIGEMMA_EOS_TOKEN),
            rng=jax.random.split(state.rng)[0],
            logits=self.PaliGemma.llm.embedder.decode(outputs[:, 0]),
            tokens=state.tokens.at[:, state.step].set(token.astype(jnp.float32)),
            kv_cache=kv_cache,
        )

    def _append(
        self, token: at.Int[at.Array, "b"], state: Decoding, prefix_mask: at.Bool[at.Array, "b p"]
    ) -> tuple[at.Float[at.Array, "b 1 d"], gemma.KVCache]:
        """The model's output for one more token, and the cache with it; `decode_as_trained` tells the two ways."""
        prefix_len, count = prefix_mask.shape[1], jnp.sum(prefix_mask, axis=-1)[:, None]
        slots = jnp.arange(state.kv_cache[0].shape[2])
        here = prefix_len + state.step
        if self.decode_as_trained:  # counted in slots: rotary embeddings tell distances only
            position = jnp.broadcast_to(here, count.shape)
            seen = jnp.pad(prefix_mask, [(0, 0), (0, slots.size - prefix_len)], constant_values=True)
        else:
            position, seen = count + state.step + 1, slots >= prefix_len - count
        (outputs,), kv_cache = self.PaliGemma.llm(
            [self.PaliGemma.llm.embed(token[:, None])],
            position,
            (seen & (slots <= here))[:, None],
            kv_cache=state.kv_cache,
            write_at=here,
        )
        return outputs, kv_cache

    def _preprocess(
        self, rng: at.KeyArrayLike | None, observation: _model.Observation, *, train: bool
    ) -> _model.Observation:
        return _model.preprocess_observation(
            rng,
            observation,
            train=train,
            image_keys=list(observation.images),
            image_resolution=self.image_resolution,
        )


def choose(state: Decoding, temperature: float | at.Array) -> at.Int[at.Array, "b"]:
    """The likeliest token, or one drawn by the logits if the temperature is above 0."""
    draw_rng = jax.random.split(state.rng)[1]
    return jax.lax.cond(
        jnp.asarray(temperature) > 0.0,
        lambda: jax.random.categorical(draw_rng, state.logits / temperature, axis=-1).astype(jnp.int32),
        lambda: jnp.argmax(state.logits, axis=-1).astype(jnp.int32),
    )
