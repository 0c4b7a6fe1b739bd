"""Low-rank adapters (LoRA, arXiv 2106.09685): y = x W + scaling * (x A) B with trainable A, B of small rank."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from flax import nnx

from openpi.shared import array_typing as at
from openpi.shared import nnx_utils

_init_factor = nnx.initializers.normal(stddev=0.01)


@dataclass(frozen=True)
class LoRAConfig:
    """How a weight is adapted.

    Attributes:
        rank: width of the bottleneck.
        alpha: strength of the adapter; see `scaling_value`.
        init_fn: initialises both factors.
        rslora: rank-stabilised scaling (arXiv 2312.03732).
        axes: the axes of the weight that are factored, input axis first.
        label: letter for the rank in einsum equations; must not occur in the equation it is used in.
    """

    rank: int
    alpha: float = 1.0
    init_fn: nnx.Initializer = _init_factor
    rslora: bool = False
    axes: tuple[int, int] = (-2, -1)
    label: str = "L"

    @property
    def scaling_value(self) -> float:
        """alpha / rank, or alpha / sqrt(rank) with rslora."""
        return self.alpha / self.rank**0.5 if self.rslora else self.alpha / self.rank

    def replace(self, **updates: Any) -> "LoRAConfig":
        """A copy with some fields changed."""
        return dataclasses.replace(self, **updates)


class Einsum(nnx.Module):
    """An einsum of inputs with a weight `w`, and with its adapter `lora_a`, `lora_b` if there is one."""

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        init_fn: nnx.Initializer = nnx.initializers.zeros,
        lora_config: LoRAConfig | None = None,
        rngs: nnx.Rngs,
    ) -> None:
        self.w = nnx.Param(init_fn(rngs.params(), shape, jnp.float32))
        self.lora_config = lora_config
        if lora_config is not None:
            shape_a, shape_b = _factor_shapes(shape, lora_config)
            self.lora_a = nnx.Param(lora_config.init_fn(rngs.params(), shape_a, jnp.float32))
            self.lora_b = nnx.Param(lora_config.init_fn(rngs.params(), shape_b, jnp.float32))

    def __call__(self, eqn: str, x: at.Float[at.Array, "..."]) -> at.Float[at.Array, "..."]:
        """Evaluate `eqn`, like "BTD,NDH->BTNH", with x and the weight in x's dtype."""
        y = jnp.einsum(eqn, x, self.w[...].astype(x.dtype))
        if self.lora_config is None:
            return y
        eqn_a, eqn_b = _factor_equations(eqn, self.lora_config)
        low = jnp.einsum(eqn_a, x, self.lora_a[...].astype(x.dtype))
        return y + jnp.einsum(eqn_b, low, self.lora_b[...].astype(x.dtype)) * self.lora_config.scaling_value


def _factor_shapes(shape: tuple[int, ...], config: LoRAConfig) -> tuple[tuple[int, ...], tuple[int, ...]]:
    shape_a, shape_b = list(shape), list(shape)
    shape_a[config.axes[1]] = config.rank
    shape_b[config.axes[0]] = config.rank
    return tuple(shape_a), tuple(shape_b)


def _factor_equations(eqn: str, config: LoRAConfig) -> tuple[str, str]:
    """Split "x,w->y" into "x,a->low" and "low,b->y".

    Where both factored axes of w are summed over or both occur in x (an output projection over heads: BTNH,NHD->BTD),
    `low` has the rank in place of the output axis alone and keeps no head axis: a and b are each summed over heads.
    Published LoRA weights were trained that way.
    """
    if config.label in eqn:
        raise ValueError(f"The LoRA label {config.label!r} occurs in the equation {eqn!r}; choose another letter.")
    inputs, output = eqn.split("->")
    lhs, rhs = inputs.split(",")
    axis_in, axis_out = (rhs[axis] for axis in config.axes)
    label = config.label
    low = output.replace(axis_out, label)
    return (
        f"{lhs},{rhs.replace(axis_out, label)}->{low}",
        f"{low},{rhs.replace(axis_in, label)}->{output}",
    )


class FeedForward(nnx.Module):
    """Gated feed-forward layer: (gelu(x G0) * (x G1)) W, each weight optionally adapted.

    The adapters here are NOT scaled by alpha and rank: published weights were trained without it.
    """

    def __init__(
        self, features: int, hidden_dim: int, *, lora_config: LoRAConfig | None = None, rngs: nnx.Rngs
    ) -> None:
        init = nnx.initializers.lecun_normal(in_axis=-2, out_axis=-1, batch_axis=(0,))
        self.gating_einsum = nnx.Param(init(rngs.params(), (2, features, hidden_dim), jnp.float32))
        init = nnx.initializers.lecun_normal(in_axis=-2, out_axis=-1)
        self.linear = nnx.Param(init(rngs.params(), (hidden_dim, features), jnp.float32))
        self.adapted = lora_config is not None
        if lora_config is not None:
            for name, shape in {"gating_einsum": (2, features, hidden_dim), "linear": (hidden_dim, features)}.items():
                for factor, factor_shape in zip("ab", _factor_shapes(shape, lora_config), strict=True):
                    value = lora_config.init_fn(rngs.params(), factor_shape, jnp.float32)
                    setattr(self, f"{name}_lora_{factor}", nnx.Param(value))

    def __call__(self, x: at.Float[at.Array, "*b d"]) -> at.Float[at.Array, "*b d"]:
        """Apply the layer in x's dtype."""
        gate = nnx.gelu(self._dot(x, "gating_einsum", 0), approximate=True)
        return self._dot(gate * self._dot(x, "gating_einsum", 1), "linear")

    def _dot(self, x: at.Float[at.Array, "*b i"], name: str, index: int | None = None) -> at.Float[at.Array, "*b o"]:
        def weight(suffix: str = "") -> at.Array:
            value = getattr(self, name + suffix)[...]
            return (value if index is None else value[index]).astype(x.dtype)

        y = jnp.dot(x, weight())
        return y + jnp.dot(jnp.dot(x, weight("_lora_a")), weight("_lora_b")) if self.adapted else y


def freeze_filter(adapted: Sequence[bool]) -> nnx.filterlib.Filter:
    """Selects what stays fixed while adapters are trained: all other language-model weights of the adapted experts.

    Args:
        adapted: per expert of the language model, whether it has adapters.
    """
    in_expert: list[nnx.filterlib.Filter] = [
        nnx_utils.PathRegex(rf".*llm.*_{expert}/.*") for expert in range(1, len(adapted))
    ]
    of_first: nnx.filterlib.Filter = nnx.All(nnx_utils.PathRegex(".*llm.*"), *map(nnx.Not, in_expert))
    frozen = [chosen for chosen, yes in zip([of_first, *in_expert], adapted, strict=True) if yes]
    return nnx.All(nnx.Any(*frozen), nnx.Not(nnx_utils.PathRegex(".*lora.*"))) if frozen else nnx.Nothing
