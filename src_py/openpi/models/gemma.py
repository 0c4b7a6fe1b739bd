"""Gemma (arXiv 2403.08295) as a mixture of experts that share one attention.

Each expert has its own width and weights and its own part of the sequence: the first one (PaliGemma's) reads images
and language, the second reads the robot's state and actions. In every layer all tokens attend to one another through
heads of a common size, so the experts have the same depth, heads and head dimension. pi0-FAST has one expert only.

Parameter names are those of published checkpoints: the first expert's have no suffix, the second's end in `_1`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from flax import nnx

from openpi.models import lora, stacking
from openpi.shared import array_typing as at

PALIGEMMA_VOCAB_SIZE = 257_152

_ROPE_MAX_WAVELENGTH = 10_000
_RMS_NORM_EPS = 1e-6
# Finite, so that a query that may see nothing gets uniform weights instead of NaN.
_MASKED_LOGIT = -2.3819763e38

# Keys and values of the tokens seen so far, [layers, b, tokens, kv_heads, head_dim] each; keys are already rotated.
KVCache: TypeAlias = tuple[at.Float[at.Array, "_l b _s k h"], at.Float[at.Array, "_l b _s k h"]]
# What one expert works on; None where it has no tokens in this call.
Tokens: TypeAlias = at.Float[at.Array, "b _t _d"] | None
# Condition of adaptive norms: one per sample, or one per token.
Condition: TypeAlias = at.Float[at.Array, "b _c"] | at.Float[at.Array, "b _t _c"] | None


@dataclass(frozen=True)
class Config:
    """Sizes of one expert. `lora_configs` may adapt "attn" and "ffn"."""

    width: int
    depth: int
    mlp_dim: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    lora_configs: Mapping[str, lora.LoRAConfig] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        if self.num_heads % self.num_kv_heads:
            raise ValueError(
                f"gemma.Config: num_heads {self.num_heads} is not a multiple of num_kv_heads {self.num_kv_heads}."
            )
        if self.head_dim % 2:
            raise ValueError(f"gemma.Config: head_dim {self.head_dim} is odd; rotary embedding needs an even one.")
        if unknown := set(self.lora_configs) - {"attn", "ffn"}:
            raise ValueError(f"gemma.Config: lora_configs has {sorted(unknown)}; only 'attn' and 'ffn' can be adapted.")


Variant: TypeAlias = str | Config


def _lora(rank: int) -> dict[str, lora.LoRAConfig]:
    return {part: lora.LoRAConfig(rank=rank, alpha=float(rank)) for part in ("attn", "ffn")}


_GEMMA_300M: dict[str, Any] = {
    "width": 1024,
    "depth": 18,
    "mlp_dim": 4096,
    "num_heads": 8,
    "num_kv_heads": 1,
    "head_dim": 256,
}
_GEMMA_2B: dict[str, Any] = {
    "width": 2048,
    "depth": 18,
    "mlp_dim": 16_384,
    "num_heads": 8,
    "num_kv_heads": 1,
    "head_dim": 256,
}
_VARIANTS = {
    "dummy": Config(width=64, depth=4, mlp_dim=128, num_heads=8, num_kv_heads=1, head_dim=16),
    "gemma_300m": Config(**_GEMMA_300M),
    "gemma_2b": Config(**_GEMMA_2B),
    "gemma_300m_lora": Config(**_GEMMA_300M, lora_configs=_lora(rank=32)),
    "gemma_2b_lora": Config(**_GEMMA_2B, lora_configs=_lora(rank=16)),
}


def get_config(variant: Variant) -> Config:
    """The sizes of a named variant; a Config is returned as it is.

    Raises:
        ValueError: there is no variant of that name.
    """
    if isinstance(variant, Config):
        return variant
    if variant not in _VARIANTS:
        raise ValueError(f"Unknown Gemma variant {variant!r}: give one of {', '.join(_VARIANTS)}, or a gemma.Config.")
    return _VARIANTS[variant]


class RMSNorm(nnx.Module):
    """Root-mean-square norm in float32; with `cond_dim`, scale, shift and gate come from a condition (adaRMS)."""

    def __init__(self, width: int, *, cond_dim: int | None = None, rngs: nnx.Rngs) -> None:
        if cond_dim is None:
            self.scale = nnx.Param(jnp.zeros(width))
        else:
            # Zero at the start: every layer's gate is closed and the expert begins as the identity.
            self.Dense_0 = nnx.Linear(cond_dim, 3 * width, kernel_init=nnx.initializers.zeros, rngs=rngs)
        self.adaptive = cond_dim is not None

    def __call__(
        self, x: at.Float[at.Array, "b t d"], cond: Condition = None
    ) -> tuple[at.Float[at.Array, "b t d"], at.Float[at.Array, "b _ d"] | None]:
        """The normalised tokens in x's dtype, and the gate for the residual branch (None without a condition)."""
        variance = jnp.mean(jnp.square(x.astype(jnp.float32)), axis=-1, keepdims=True)
        normed = x * jax.lax.rsqrt(variance + _RMS_NORM_EPS)
        if not self.adaptive:
            return (normed * (1 + self.scale[...])).astype(x.dtype), None
        if cond is None:
            raise ValueError("This norm is adaptive: it needs a condition, but got none.")
        scale, shift, gate = jnp.split(self._modulation(cond, x.dtype), 3, axis=-1)
        return (normed * (1 + scale) + shift).astype(x.dtype), gate

    def _modulation(self, cond: at.Float[at.Array, "..."], dtype: jnp.dtype) -> at.Float[at.Array, "b _ d3"]:
        dense: Any = self.Dense_0
        modulation = jnp.dot(cond.astype(dtype), dense.kernel[...].astype(dtype)) + dense.bias[...].astype(dtype)
        return modulation if cond.ndim == 3 else modulation[:, None]


class Embedder(nnx.Module):
    """Token table, used both ways: ids to vectors, and vectors to logits."""

    def __init__(self, vocab_size: int, width: int, rngs: nnx.Rngs) -> None:
        self.input_embedding = nnx.Param(jax.random.normal(rngs.params(), (vocab_size, width)))

    def encode(self, ids: at.Int[at.Array, "*b"]) -> at.Float[at.Array, "*b d"]:
        """Rows of the table, times the square root of the width."""
        vectors = self.input_embedding[...][ids]
        return vectors * jnp.sqrt(vectors.shape[-1]).astype(vectors.dtype)

    def decode(self, vectors: at.Float[at.Array, "*b d"]) -> at.Float[at.Array, "*b v"]:
        """Logits; in float32 unless the table itself is bfloat16."""
        return jnp.dot(vectors, self.input_embedding[...].T)


class Attention(nnx.Module):
    """Grouped-query attention over the tokens of all experts together.

    Args:
        configs: one per expert; heads must agree.
        float32_queries: leave queries in float32 after the rotary embedding (pi0-FAST) instead of rounding them to
            the compute dtype (pi0, pi0.5). Published weights of either were trained that way.
    """

    def __init__(self, configs: Sequence[Config], *, float32_queries: bool, rngs: nnx.Rngs) -> None:
        self.num_heads, self.num_kv_heads = configs[0].num_heads, configs[0].num_kv_heads
        self.head_dim = configs[0].head_dim
        self.float32_queries = float32_queries
        for expert, config in enumerate(configs):
            for name, (shape, init_fn) in _projections(config).items():
                einsum = lora.Einsum(shape, init_fn=init_fn, lora_config=config.lora_configs.get("attn"), rngs=rngs)
                setattr(self, _name(name, expert), einsum)

    def __call__(
        self,
        xs: Sequence[Tokens],
        positions: at.Int[at.Array, "b t"],
        mask: at.Bool[at.Array, "b t s"],
        cache: tuple[at.Float[at.Array, "b c k h"], at.Float[at.Array, "b c k h"]] | None,
        write_at: at.Int[at.Array, ""] | None,
    ) -> tuple[list[Tokens], tuple[at.Float[at.Array, "b s k h"], at.Float[at.Array, "b s k h"]]]:
        """Each expert's attended tokens, and the keys and values that the queries saw (see `Module.__call__`)."""
        projected = [self._project(x, expert) for expert, x in enumerate(xs) if x is not None]
        q, k, v = (jnp.concatenate(parts, axis=1) for parts in zip(*projected, strict=True))
        dtype = k.dtype
        q, k = _rotate(q, positions), _rotate(k, positions).astype(dtype)
        q = (q if self.float32_queries else q.astype(dtype)) * self.head_dim**-0.5
        if cache is not None:
            k, v = (_extend(old, new, write_at) for old, new in zip(cache, (k, v), strict=True))
        return self._to_experts(_attend(q, k, v, mask), xs), (k, v)

    def _project(self, x: at.Float[at.Array, "b t d"], expert: int) -> tuple[at.Array, at.Array, at.Array]:
        """Queries [b, t, heads, head_dim], keys and values [b, t, kv_heads, head_dim]."""
        if self.num_heads == self.num_kv_heads:
            return tuple(getattr(self, _name("qkv_einsum", expert))("BSD,3KDH->3BSKH", x))
        q = getattr(self, _name("q_einsum", expert))("BTD,NDH->BTNH", x)
        k, v = getattr(self, _name("kv_einsum", expert))("BSD,2KDH->2BSKH", x)
        return q, k, v

    def _to_experts(self, encoded: at.Float[at.Array, "b t n h"], xs: Sequence[Tokens]) -> list[Tokens]:
        """Cut the sequence into the experts' parts and project each back to its width."""
        outputs: list[Tokens] = []
        start = 0
        for expert, x in enumerate(xs):
            if x is None:
                outputs.append(None)
                continue
            end = start + x.shape[1]
            einsum = getattr(self, _name("attn_vec_einsum", expert))
            outputs.append(einsum("BTNH,NHD->BTD", encoded[:, start:end]))
            start = end
        return outputs


class Block(nnx.Module):
    """One layer: attention over all experts' tokens, then each expert's feed-forward, both pre-norm."""

    def __init__(
        self, configs: Sequence[Config], cond_dims: Sequence[int | None], *, float32_queries: bool, rngs: nnx.Rngs
    ) -> None:
        self.attn = Attention(configs, float32_queries=float32_queries, rngs=rngs)
        for expert, (config, cond_dim) in enumerate(zip(configs, cond_dims, strict=True)):
            for norm in ("pre_attention_norm", "pre_ffw_norm"):
                setattr(self, _name(norm, expert), RMSNorm(config.width, cond_dim=cond_dim, rngs=rngs))
            mlp = lora.FeedForward(config.width, config.mlp_dim, lora_config=config.lora_configs.get("ffn"), rngs=rngs)
            setattr(self, _name("mlp", expert), mlp)

    def __call__(
        self,
        xs: Sequence[Tokens],
        conds: Sequence[Condition],
        positions: at.Int[at.Array, "b t"],
        mask: at.Bool[at.Array, "b t s"],
        cache: tuple[at.Array, at.Array] | None,
        write_at: at.Int[at.Array, ""] | None,
    ) -> tuple[list[Tokens], tuple[at.Array, at.Array]]:
        """The experts' tokens after this layer, and the layer's keys and values."""
        normed, gates = self._norm("pre_attention_norm", xs, conds)
        attended, seen = self.attn(normed, positions, mask, cache, write_at)
        xs = [_residual(x, y, gate) for x, y, gate in zip(xs, attended, gates, strict=True)]
        normed, gates = self._norm("pre_ffw_norm", xs, conds)
        fed = [None if x is None else getattr(self, _name("mlp", i))(x) for i, x in enumerate(normed)]
        return [_residual(x, y, gate) for x, y, gate in zip(xs, fed, gates, strict=True)], seen

    def _norm(self, name: str, xs: Sequence[Tokens], conds: Sequence[Condition]) -> tuple[list[Tokens], list]:
        return _norm_experts(self, name, xs, conds)


class Module(nnx.Module):
    """The transformer: token table, layers, final norms.

    Args:
        configs: one per expert, the one that owns the token table first.
        vocab_size: rows of the token table.
        dtype: compute dtype; parameters are created in float32.
        cond_dims: per expert, the size of the condition of its adaptive norms, or None for plain norms.
        float32_queries: see `Attention`.

    Raises:
        ValueError: the experts differ in depth, heads or head dimension.
    """

    def __init__(
        self,
        configs: Sequence[Config],
        *,
        vocab_size: int,
        dtype: jnp.dtype,
        cond_dims: Sequence[int | None] | None = None,
        float32_queries: bool = False,
        rngs: nnx.Rngs,
    ) -> None:
        check_experts(configs)
        cond_dims = cond_dims or [None] * len(configs)
        self.embedder = Embedder(vocab_size, configs[0].width, rngs)
        self.layers = stacking.stack_layers(
            lambda r: Block(configs, cond_dims, float32_queries=float32_queries, rngs=r), configs[0].depth, rngs
        )
        for expert, (config, cond_dim) in enumerate(zip(configs, cond_dims, strict=True)):
            setattr(self, _name("final_norm", expert), RMSNorm(config.width, cond_dim=cond_dim, rngs=rngs))
        self.dtype = dtype
        self.cache_shape = (configs[0].depth, configs[0].num_kv_heads, configs[0].head_dim)

    def empty_cache(self, batch_size: int, slots: int) -> KVCache:
        """A cache of zeros, to be filled with `write_at`."""
        depth, kv_heads, head_dim = self.cache_shape
        zeros = jnp.zeros((depth, batch_size, slots, kv_heads, head_dim), self.dtype)
        return zeros, zeros

    def embed(self, ids: at.Int[at.Array, "b t"]) -> at.Float[at.Array, "b t d"]:
        """Token vectors of the first expert, in the compute dtype."""
        return self.embedder.encode(ids).astype(self.dtype)

    @at.typecheck
    def __call__(
        self,
        embedded: Sequence[Tokens],
        positions: at.Int[at.Array, "b t"],
        mask: at.Bool[at.Array, "b t s"],
        conds: Sequence[Condition] | None = None,
        *,
        kv_cache: KVCache | None = None,
        write_at: at.Int[at.Array, ""] | None = None,
        train: bool = False,
    ) -> tuple[list[Tokens], KVCache]:
        """Run the experts' tokens through all layers.

        Args:
            embedded: per expert its tokens, or None. Together, in this order, they are the sequence of t tokens.
            positions: of each token, for the rotary embedding.
            mask: True where a query (row) may see a key (column). Columns are the cache's tokens, then the new ones;
                with `write_at` they are the cache's slots.
            conds: per expert the condition of its adaptive norms.
            kv_cache: keys and values of earlier tokens.
            write_at: slot of the cache where the new keys and values go. Without it they are put behind the cache's.
            train: whether parameters are to have gradients; layers are then computed again in the backward pass.

        Returns:
            Per expert its tokens after the final norm, and all keys and values that were seen.
        """
        conds = conds or [None] * len(embedded)
        xs = [None if x is None else x.astype(self.dtype) for x in embedded]

        def layer(block: Block, xs: list[Tokens], cache: tuple[at.Array, at.Array] | None) -> tuple:
            return block(xs, conds, positions, mask, cache, write_at)

        xs, seen = stacking.scan_layers(self.layers, layer, xs, kv_cache, remat=train)
        outputs, _ = _norm_experts(self, "final_norm", xs, conds)
        return outputs, seen


def _name(name: str, expert: int) -> str:
    return name if expert == 0 else f"{name}_{expert}"


def _projections(config: Config) -> dict[str, tuple[tuple[int, ...], nnx.Initializer]]:
    """Name -> (shape, initialiser) of an expert's attention weights; q, k and v are one where no head is shared."""
    n, k, d, h = config.num_heads, config.num_kv_heads, config.width, config.head_dim
    per_head = nnx.initializers.lecun_normal(in_axis=-2, out_axis=-1, batch_axis=(0,))
    per_kind_and_head = nnx.initializers.lecun_normal(in_axis=-2, out_axis=-1, batch_axis=(0, 1))
    out = {"attn_vec_einsum": ((n, h, d), nnx.initializers.lecun_normal(in_axis=(-3, -2), out_axis=-1))}
    if k == n:
        return out | {"qkv_einsum": ((3, n, d, h), per_kind_and_head)}
    return out | {"q_einsum": ((n, d, h), per_head), "kv_einsum": ((2, k, d, h), per_kind_and_head)}


def _norm_experts(
    owner: nnx.Module, name: str, xs: Sequence[Tokens], conds: Sequence[Condition]
) -> tuple[list[Tokens], list[at.Array | None]]:
    """Apply each expert's norm of that name; returns tokens and gates."""
    pairs = [
        (None, None) if x is None else getattr(owner, _name(name, expert))(x, cond)
        for expert, (x, cond) in enumerate(zip(xs, conds, strict=True))
    ]
    return [x for x, _ in pairs], [gate for _, gate in pairs]


def _residual(x: Tokens, y: Tokens, gate: at.Array | None) -> Tokens:
    if x is None or y is None:
        return None
    return x + y if gate is None else x + y * gate


def _rotate(x: at.Float[at.Array, "b t n h"], positions: at.Int[at.Array, "b t"]) -> at.Float[at.Array, "b t n h"]:
    """Rotary embedding (arXiv 2104.09864) on the two halves of the head dimension; the result is float32."""
    half = x.shape[-1] // 2
    wavelengths = _ROPE_MAX_WAVELENGTH ** (jnp.arange(half, dtype=jnp.float32) / half)
    # Behind the barrier they are divided by, as in the published models; else XLA multiplies by rounded reciprocals,
    # which moves the angles of late positions by 1e-5.
    divisors = jax.lax.optimization_barrier(jnp.broadcast_to(wavelengths, (*positions.shape, 1, half)))
    angles = positions[..., None, None] / divisors
    sin, cos = jnp.sin(angles), jnp.cos(angles)
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)


def _extend(
    old: at.Float[at.Array, "b c k h"], new: at.Float[at.Array, "b t k h"], write_at: at.Int[at.Array, ""] | None
) -> at.Float[at.Array, "b s k h"]:
    if write_at is None:
        return jnp.concatenate([old, new], axis=1)
    return jax.lax.dynamic_update_slice_in_dim(old, new, write_at, axis=1)


def _attend(
    q: at.Float[at.Array, "b t n h"],
    k: at.Float[at.Array, "b s k h"],
    v: at.Float[at.Array, "b s k h"],
    mask: at.Bool[at.Array, "b t s"],
) -> at.Float[at.Array, "b t n h"]:
    """Weighted values; query heads are grouped in order, n = kv_head * group + member. Softmax in float32."""
    b, t, n, h = q.shape
    grouped = q.reshape(b, t, k.shape[2], n // k.shape[2], h)
    logits = jnp.einsum("BTKGH,BSKH->BKGTS", grouped, k, preferred_element_type=jnp.float32)
    probabilities = jax.nn.softmax(jnp.where(mask[:, None, None], logits, _MASKED_LOGIT), axis=-1).astype(v.dtype)
    return jnp.einsum("BKGTS,BSKH->BTKGH", probabilities, v).reshape(b, t, n, h)


def check_experts(configs: Sequence[Config]) -> None:
    """Raise a ValueError unless the experts can attend together."""
    for attribute in ("depth", "num_heads", "num_kv_heads", "head_dim"):
        values = [getattr(config, attribute) for config in configs]
        if len(set(values)) > 1:
            raise ValueError(f"All experts need the same {attribute}, since they attend together; these have {values}.")
