"""Configuration of pi0 and pi0.5."""

from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
from flax import nnx

from openpi.models import gemma, lora, siglip
from openpi.models import model as _model
from openpi.shared import array_typing as at

if TYPE_CHECKING:
    from openpi.models.pi0 import Pi0


@dataclass(frozen=True)
class Pi0Config(_model.BaseModelConfig):
    """Sizes and kind of a flow-matching model.

    Attributes:
        action_dim, action_horizon, max_token_len: see `BaseModelConfig`; max_token_len is 48 for pi0 and 200 for
            pi0.5, whose prompt has the state in it.
        dtype: compute dtype, "bfloat16" or "float32".
        paligemma_variant, action_expert_variant: sizes of the two experts, by name or as a `gemma.Config`.
        pi05: pi0.5: time enters by adaptive norms, the state through the prompt.
        discrete_state_input: whether the prompt has the state in it; by default as pi05.
        pytorch_compile_mode: mode of `torch.compile` for the PyTorch model, or None for none.
        vision_variant: sizes of the image encoder, by name or as a `siglip.Config`.
        vocab_size: rows of the token table.
        image_resolution: (height, width) to which images are brought.
        max_simulated_delay: train with the first 0 to this many actions given, for `rtc_mode="trained"`.
    """

    action_dim: int = 32
    action_horizon: int = 50
    max_token_len: int = None  # type: ignore[assignment]
    dtype: str = "bfloat16"
    paligemma_variant: gemma.Variant = "gemma_2b"
    action_expert_variant: gemma.Variant = "gemma_300m"
    pi05: bool = False
    discrete_state_input: bool = None  # type: ignore[assignment]
    pytorch_compile_mode: str | None = "max-autotune"
    _: KW_ONLY
    vision_variant: siglip.Variant = "So400m/14"
    vocab_size: int = gemma.PALIGEMMA_VOCAB_SIZE
    image_resolution: tuple[int, int] = _model.IMAGE_RESOLUTION
    max_simulated_delay: int = 0

    def __post_init__(self) -> None:
        if self.max_token_len is None:
            object.__setattr__(self, "max_token_len", 200 if self.pi05 else 48)
        if self.discrete_state_input is None:
            object.__setattr__(self, "discrete_state_input", self.pi05)
        if not 0 <= self.max_simulated_delay < self.action_horizon:
            raise ValueError(
                f"max_simulated_delay is {self.max_simulated_delay}; it must be at least 0 and less than "
                f"action_horizon, {self.action_horizon}."
            )

    @property
    def model_type(self) -> _model.ModelType:
        """PI0 or PI05."""
        return _model.ModelType.PI05 if self.pi05 else _model.ModelType.PI0

    def create(self, rng: at.KeyArrayLike) -> "Pi0":
        """A model with random parameters."""
        from openpi.models.pi0 import Pi0

        return Pi0(self, rngs=nnx.Rngs(rng))

    def inputs_spec(self, *, batch_size: int = 1) -> tuple[_model.Observation, _model.Actions]:
        """Shapes and dtypes of a batch."""
        observation = observation_spec(self, batch_size, _model.IMAGE_KEYS, self.image_resolution)
        actions = jax.ShapeDtypeStruct((batch_size, self.action_horizon, self.action_dim), jnp.float32)
        return observation, actions

    def get_freeze_filter(self) -> nnx.filterlib.Filter:
        """Selects the parameters that LoRA training leaves as they are; nothing where no expert has adapters."""
        experts = (self.paligemma_variant, self.action_expert_variant)
        return lora.freeze_filter([bool(gemma.get_config(variant).lora_configs) for variant in experts])


def observation_spec(
    config: _model.BaseModelConfig, batch_size: int, image_keys: tuple[str, ...], image_resolution: tuple[int, int]
) -> _model.Observation:
    """Shapes and dtypes of an observation with a prompt."""
    spec = jax.ShapeDtypeStruct
    with at.disable_typechecking():
        return _model.Observation(
            images={key: spec((batch_size, *image_resolution, 3), jnp.float32) for key in image_keys},
            image_masks={key: spec((batch_size,), jnp.bool_) for key in image_keys},
            state=spec((batch_size, config.action_dim), jnp.float32),
            tokenized_prompt=spec((batch_size, config.max_token_len), jnp.int32),
            tokenized_prompt_mask=spec((batch_size, config.max_token_len), jnp.bool_),
        )
