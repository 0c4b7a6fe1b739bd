import dataclasses
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx, traverse_util

from openpi.models import gemma

FIRST = gemma.Config(width=16, depth=2, mlp_dim=24, num_heads=6, num_kv_heads=2, head_dim=8)
SECOND = dataclasses.replace(FIRST, width=12, mlp_dim=20)


@pytest.fixture(scope="module")
def make(fill: Callable) -> Callable[..., gemma.Module]:
    def made(*configs: gemma.Config, **kwargs) -> gemma.Module:
        return fill(
            lambda: gemma.Module(configs, vocab_size=11, dtype=jnp.dtype("float32"), rngs=nnx.Rngs(0), **kwargs)
        )

    return made


def random(seed: int, *shape: int) -> jax.Array:
    return jax.random.normal(jax.random.key(seed), shape)


def prefix_and_suffix(prefix: int, suffix: int) -> tuple[jax.Array, jax.Array]:
    """Positions, and a mask in which the suffix sees everything and the prefix itself."""
    total = prefix + suffix
    rows, columns = jnp.mgrid[:total, :total]
    mask = (columns < prefix) | (rows >= prefix)
    return jnp.arange(total)[None], mask[None]


@pytest.mark.parametrize("kv_heads", [1, 2, 3, 6])
def test_grouped_attention_is_attention_with_repeated_heads(kv_heads: int) -> None:
    q, k, v = random(0, 2, 4, 6, 8), random(1, 2, 5, kv_heads, 8), random(2, 2, 5, kv_heads, 8)
    mask = jax.random.bernoulli(jax.random.key(3), 0.7, (2, 4, 5)).at[..., 0].set(True)
    k_all, v_all = (jnp.repeat(x, 6 // kv_heads, axis=2) for x in (k, v))
    weights = jax.nn.softmax(jnp.where(mask[:, None], jnp.einsum("btnh,bsnh->bnts", q, k_all), -jnp.inf), axis=-1)
    wanted = jnp.einsum("bnts,bsnh->btnh", weights, v_all)
    np.testing.assert_allclose(gemma._attend(q, k, v, mask), wanted, atol=1e-5)


def test_a_query_that_sees_nothing_gets_the_mean() -> None:
    v = random(2, 1, 5, 1, 8)
    got = gemma._attend(random(0, 1, 1, 2, 8), random(1, 1, 5, 1, 8), v, jnp.zeros((1, 1, 5), bool))
    np.testing.assert_allclose(got[0, 0, 0], v[0, :, 0].mean(axis=0), atol=1e-6)


@pytest.mark.parametrize("config", [FIRST, dataclasses.replace(FIRST, num_kv_heads=6)])
def test_sampling_with_the_cache_equals_one_pass(make: Callable, config: gemma.Config) -> None:
    module = make(config, dataclasses.replace(SECOND, num_kv_heads=config.num_kv_heads))
    prefix, suffix = random(0, 1, 5, 16), random(1, 1, 3, 12)
    positions, mask = prefix_and_suffix(5, 3)
    (_, wanted), _ = module([prefix, suffix], positions, mask)
    _, cache = module([prefix, None], positions[:, :5], mask[:, :5, :5])
    (nothing, got), seen = module([None, suffix], positions[:, 5:], mask[:, 5:], kv_cache=cache)
    assert nothing is None
    np.testing.assert_allclose(got, wanted, atol=1e-5)
    assert seen[0].shape == (2, 1, 8, config.num_kv_heads, 8)


def test_writing_into_slots_equals_appending(make: Callable) -> None:
    module = make(FIRST)
    tokens = random(0, 1, 4, 16)
    positions, mask = jnp.arange(4)[None], jnp.tril(jnp.ones((4, 4), bool))[None]
    (wanted,), _ = module([tokens], positions, mask)
    cache = module.empty_cache(1, 6)
    for i in range(4):
        visible = (jnp.arange(6) <= i)[None, None]
        (got,), cache = module(
            [tokens[:, i : i + 1]], positions[:, i : i + 1], visible, kv_cache=cache, write_at=jnp.int32(i)
        )
        np.testing.assert_allclose(got[:, 0], wanted[:, i], atol=1e-5)


def test_unshared_heads_have_one_weight_for_q_k_and_v(make: Callable) -> None:
    state = traverse_util.flatten_dict(nnx.to_pure_dict(nnx.state(make(dataclasses.replace(FIRST, num_kv_heads=6)))))
    assert state["layers", "attn", "qkv_einsum", "w"].shape == (2, 3, 6, 16, 8)
    assert ("layers", "attn", "q_einsum", "w") not in state


def test_conditions_per_token_and_per_sample_agree(make: Callable) -> None:
    module = make(FIRST, SECOND, cond_dims=[None, 7])
    prefix, suffix, cond = random(0, 2, 5, 16), random(1, 2, 3, 12), random(2, 2, 7)
    positions, mask = (jnp.repeat(x, 2, axis=0) for x in prefix_and_suffix(5, 3))
    (_, once), _ = module([prefix, suffix], positions, mask, [None, cond])
    (_, each), _ = module([prefix, suffix], positions, mask, [None, jnp.repeat(cond[:, None], 3, axis=1)])
    np.testing.assert_allclose(each, once, atol=1e-6)
    (_, other), _ = module([prefix, suffix], positions, mask, [None, 2 * cond])
    assert float(jnp.abs(other - once).max()) > 1e-3


def test_adaptive_norm_without_condition_says_so() -> None:
    with pytest.raises(ValueError, match="needs a condition"):
        gemma.RMSNorm(4, cond_dim=3, rngs=nnx.Rngs(0))(jnp.ones((1, 1, 4)))


def test_adaptive_gates_are_closed_at_the_start() -> None:
    normed, gate = gemma.RMSNorm(4, cond_dim=3, rngs=nnx.Rngs(0))(random(0, 2, 3, 4), random(1, 2, 3))
    assert not gate.any()
    np.testing.assert_allclose(jnp.square(normed).mean(axis=-1), 1.0, atol=1e-4)


def test_tied_embedding(make: Callable) -> None:
    two_experts = make(FIRST, SECOND)
    table = two_experts.embedder.input_embedding[...]
    vectors = two_experts.embed(jnp.array([[3, 7]]))
    np.testing.assert_allclose(vectors[0], table[jnp.array([3, 7])] * math.sqrt(16), rtol=1e-6)
    np.testing.assert_allclose(two_experts.embedder.decode(vectors), vectors @ table.T, rtol=1e-5)


@pytest.mark.parametrize("difference", [{"depth": 3}, {"num_kv_heads": 3}, {"head_dim": 4}, {"num_heads": 4}])
def test_experts_that_cannot_attend_together_are_refused(make: Callable, difference: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=f"same {next(iter(difference))}"):
        make(FIRST, dataclasses.replace(SECOND, **difference))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"num_kv_heads": 4}, "multiple of num_kv_heads 4"),
        ({"head_dim": 7}, "odd"),
        ({"lora_configs": {"mlp": None}}, "mlp"),
    ],
)
def test_impossible_sizes_are_refused(wrong: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(FIRST, **wrong)


def test_unknown_variant_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match="gemma_2b_lora"):
        gemma.get_config("gemma_3b")
    assert gemma.get_config(FIRST) is FIRST
