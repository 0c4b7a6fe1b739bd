"""SigLIP vision transformer (arXiv 2303.15343): an image becomes one token per patch, in the language model's width."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx

from openpi.models import stacking
from openpi.shared import array_typing as at

_LAYER_NORM_EPS = 1e-6


@dataclass(frozen=True)
class Config:
    """Sizes of the encoder. `patch_size` is (height, width) in pixels."""

    width: int
    depth: int
    mlp_dim: int
    num_heads: int
    patch_size: tuple[int, int] = (14, 14)

    def __post_init__(self) -> None:
        if self.width % self.num_heads:
            raise ValueError(f"siglip.Config: width {self.width} is not a multiple of num_heads {self.num_heads}.")

    def grid(self, image_resolution: tuple[int, int]) -> tuple[int, int]:
        """Rows and columns of patches in an image; pixels beyond the last whole patch are not looked at."""
        rows, columns = (size // patch for size, patch in zip(image_resolution, self.patch_size, strict=True))
        if rows < 1 or columns < 1:
            raise ValueError(f"An image of {image_resolution} pixels has no whole patch of {self.patch_size}.")
        return rows, columns


Variant: TypeAlias = str | Config
_Arrays = TypeVar("_Arrays", bound=tuple[Any, ...])

_SIZES = {
    "mu": Config(width=32, depth=1, mlp_dim=128, num_heads=2),
    "Ti": Config(width=192, depth=12, mlp_dim=768, num_heads=3),
    "S": Config(width=384, depth=12, mlp_dim=1536, num_heads=6),
    "B": Config(width=768, depth=12, mlp_dim=3072, num_heads=12),
    "L": Config(width=1024, depth=24, mlp_dim=4096, num_heads=16),
    "So400m": Config(width=1152, depth=27, mlp_dim=4304, num_heads=16),
}


def get_config(variant: Variant) -> Config:
    """The sizes of a variant "NAME/PATCH", like "So400m/14"; a Config is returned as it is.

    Raises:
        ValueError: the name is unknown, or the patch size is no number.
    """
    if isinstance(variant, Config):
        return variant
    name, _, patch = variant.partition("/")
    if name not in _SIZES or not patch.isdigit():
        raise ValueError(
            f"Unknown vision variant {variant!r}: give NAME/PATCH with NAME one of {', '.join(_SIZES)} "
            "and PATCH in pixels, like 'So400m/14', or a siglip.Config."
        )
    return dataclasses.replace(_SIZES[name], patch_size=(int(patch), int(patch)))


class MlpBlock(nnx.Module):
    """Two dense layers with a GELU between."""

    def __init__(self, config: Config, dtype: jnp.dtype, rngs: nnx.Rngs) -> None:
        self.Dense_0 = nnx.Linear(config.width, config.mlp_dim, dtype=dtype, rngs=rngs)
        self.Dense_1 = nnx.Linear(config.mlp_dim, config.width, dtype=dtype, rngs=rngs)

    def __call__(self, x: at.Float[at.Array, "b n w"]) -> at.Float[at.Array, "b n w"]:
        """Apply the block to every token."""
        return self.Dense_1(nnx.gelu(self.Dense_0(x), approximate=True))


class EncoderBlock(nnx.Module):
    """Pre-norm transformer block; all patches see each other."""

    def __init__(self, config: Config, dtype: jnp.dtype, rngs: nnx.Rngs) -> None:
        self.LayerNorm_0 = _layer_norm(config.width, dtype, rngs)
        self.MultiHeadDotProductAttention_0 = nnx.MultiHeadAttention(
            config.num_heads, config.width, decode=False, dtype=dtype, attention_fn=_attend, rngs=rngs
        )
        self.LayerNorm_1 = _layer_norm(config.width, dtype, rngs)
        self.MlpBlock_0 = MlpBlock(config, dtype, rngs)

    def __call__(self, x: at.Float[at.Array, "b n w"]) -> at.Float[at.Array, "b n w"]:
        """Attention, then the MLP, each around a residual."""
        x = x + self.MultiHeadDotProductAttention_0(self.LayerNorm_0(x))
        return x + self.MlpBlock_0(self.LayerNorm_1(x))


class Encoder(nnx.Module):
    """The stack of blocks and the norm after it."""

    def __init__(self, config: Config, dtype: jnp.dtype, rngs: nnx.Rngs) -> None:
        self.encoderblock = stacking.stack_layers(lambda r: EncoderBlock(config, dtype, r), config.depth, rngs)
        self.encoder_norm = _layer_norm(config.width, dtype, rngs)

    def __call__(self, x: at.Float[at.Array, "b n w"]) -> at.Float[at.Array, "b n w"]:
        """Run all blocks."""
        x, _ = stacking.scan_layers(self.encoderblock, lambda block, x, _: (block(x), None), x, remat=True)
        return self.encoder_norm(x)


class Module(nnx.Module):
    """The whole encoder: patches, learned positions, blocks, and a dense head to the language model's width.

    Args:
        config: sizes of the encoder.
        output_dim: width of the tokens that come out.
        image_resolution: (height, width) of the images in pixels; fixes the number of positions.
        dtype: compute dtype of the blocks and the head; patches and positions are always float32.
    """

    def __init__(
        self,
        config: Config,
        output_dim: int,
        *,
        image_resolution: tuple[int, int],
        dtype: jnp.dtype,
        rngs: nnx.Rngs,
    ) -> None:
        rows, columns = config.grid(image_resolution)
        positions = jax.random.normal(rngs.params(), (1, rows * columns, config.width)) / config.width**0.5
        self.embedding = nnx.Conv(
            3,
            config.width,
            config.patch_size,
            strides=config.patch_size,
            padding="VALID",
            dtype=jnp.float32,
            rngs=rngs,
        )
        self.pos_embedding = nnx.Param(positions)
        self.Transformer = Encoder(config, dtype, rngs)
        self.head = nnx.Linear(config.width, output_dim, dtype=dtype, rngs=rngs)
        self.dtype = dtype

    @at.typecheck
    def __call__(self, images: at.Float[at.Array, "b h w 3"]) -> at.Float[at.Array, "b n d"]:
        """Tokens, row by row of patches, of images in [-1, 1]."""
        patches = self.embedding(images.astype(jnp.float32))
        tokens = patches.reshape(patches.shape[0], -1, patches.shape[-1]) + self.pos_embedding[...]
        return self.head(self.Transformer(tokens.astype(self.dtype)))

    def embed(
        self, images: Mapping[str, at.Float[at.Array, "b h w 3"]], masks: Mapping[str, at.Bool[at.Array, "b"]]
    ) -> tuple[at.Float[at.Array, "b s d"], at.Bool[at.Array, "b s"]]:
        """Tokens of all cameras, one after the other, and which of them are there. The cameras run as one batch."""
        per_camera = jnp.split(self(jnp.concatenate(list(images.values()))), len(images))
        mask = jnp.stack([masks[name] for name in images], axis=1)
        return jnp.concatenate(per_camera, axis=1), jnp.repeat(mask, per_camera[0].shape[1], axis=1)


def _layer_norm(width: int, dtype: jnp.dtype, rngs: nnx.Rngs) -> nnx.LayerNorm:
    return nnx.LayerNorm(width, epsilon=_LAYER_NORM_EPS, dtype=dtype, promote_dtype=_as_they_are, rngs=rngs)


def _as_they_are(arrays: _Arrays, /, *, dtype: Any = None, inexact: bool = True) -> _Arrays:
    """Do not round scale and bias to the compute dtype before they are used: the published models round the result."""
    return arrays


def _attend(
    query: at.Float[at.Array, "b n h d"],
    key: at.Float[at.Array, "b n h d"],
    value: at.Float[at.Array, "b n h d"],
    **_: Any,
) -> at.Float[at.Array, "b n h d"]:
    """Weighted values. Queries are scaled, not logits, and all is in the compute dtype, as in published models."""
    query = query / jnp.sqrt(query.shape[-1]).astype(query.dtype)
    weights = jax.nn.softmax(jnp.einsum("bqhd,bkhd->bhqk", query, key), axis=-1)
    return jnp.einsum("bhqk,bkhd->bqhd", weights, value)
