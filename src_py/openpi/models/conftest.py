"""Models small enough to compile in seconds."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest
from flax import nnx

from openpi.models import gemma, lora, pi0_config, pi0_fast, siglip


def _sizes(**changes: Any) -> gemma.Config:
    sizes = {"width": 16, "depth": 2, "mlp_dim": 24, "num_heads": 4, "num_kv_heads": 2, "head_dim": 8}
    return gemma.Config(**sizes | changes)


@pytest.fixture(scope="session")
def common() -> dict[str, Any]:
    """What the small models have in common: 4 tokens an image, float32."""
    return {
        "action_dim": 3,
        "action_horizon": 6,
        "max_token_len": 5,
        "dtype": "float32",
        "paligemma_variant": _sizes(),
        "vision_variant": siglip.Config(width=8, depth=2, mlp_dim=12, num_heads=2, patch_size=(14, 14)),
        "vocab_size": 32,
        "image_resolution": (28, 28),
    }


@pytest.fixture(scope="session")
def pi0_sizes(common: dict[str, Any]) -> pi0_config.Pi0Config:
    return pi0_config.Pi0Config(**common, action_expert_variant=_sizes(width=12, mlp_dim=20))


@pytest.fixture(scope="session")
def pi05_sizes(common: dict[str, Any]) -> pi0_config.Pi0Config:
    return pi0_config.Pi0Config(**common, action_expert_variant=_sizes(width=12, mlp_dim=20), pi05=True)


@pytest.fixture(scope="session")
def fast_sizes(common: dict[str, Any]) -> pi0_fast.Pi0FASTConfig:
    return pi0_fast.Pi0FASTConfig(**common)


@pytest.fixture(scope="session")
def adapted() -> gemma.Config:
    adapters = {"attn": lora.LoRAConfig(rank=2, alpha=4.0), "ffn": lora.LoRAConfig(rank=2, alpha=4.0)}
    return _sizes(lora_configs=adapters)


@pytest.fixture(scope="session")
def fill() -> Callable[[Callable[[], nnx.Module]], Any]:
    """fill(make) -> the module that make() would give, its parameters random, nothing of it zero, no op compiled."""

    def filled(make: Callable[[], nnx.Module]) -> nnx.Module:
        rng = np.random.default_rng(0)
        graphdef, shapes = nnx.split(nnx.eval_shape(make))
        values = jax.tree.map(lambda x: jax.numpy.asarray(0.25 * rng.normal(size=x.shape).astype(x.dtype)), shapes)
        return nnx.merge(graphdef, values)

    return filled
