import importlib.util

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from openpi.shared import array_typing as at


@at.typecheck
def mean_over_time(x: at.Float[at.Array, "b t d"]) -> at.Float[at.Array, "b d"]:
    return x.mean(axis=1)


@at.typecheck
@flax.struct.dataclass
class Pair:
    x: at.Float[at.Array, "b"]
    y: at.Float[at.Array, "b"] | None = None


def test_shapes_and_dtypes_are_checked() -> None:
    assert mean_over_time(jnp.ones((2, 3, 4))).shape == (2, 4)
    assert mean_over_time(np.ones((2, 3, 4))).shape == (2, 4)
    for wrong in (jnp.ones((2, 3)), jnp.ones((2, 3, 4), jnp.int32), [[[1.0]]]):
        with pytest.raises(Exception, match="mean_over_time"):
            mean_over_time(wrong)


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="PyTorch is not installed")
def test_torch_tensors_are_arrays() -> None:
    import torch

    assert tuple(mean_over_time(torch.ones(2, 3, 4)).shape) == (2, 4)


def test_results_are_checked() -> None:
    @at.typecheck
    def broken(x: at.Float[at.Array, "b d"]) -> at.Float[at.Array, "b"]:
        return x

    with pytest.raises(Exception, match="return"):
        broken(jnp.ones((2, 3)))


def test_dataclass_fields_are_checked() -> None:
    with pytest.raises(Exception, match="Pair"):
        Pair(jnp.ones(2), jnp.ones(3))
    with pytest.raises(Exception, match="Pair"):
        Pair(jnp.ones(2)).replace(x=jnp.ones((2, 2)))


def test_jax_may_rebuild_dataclasses_with_anything() -> None:
    pair = Pair(jnp.ones(2), jnp.ones(2))
    assert jax.tree.map(lambda _: "leaf", pair).x == "leaf"
    assert jax.jit(lambda pair: jax.tree.map(lambda x: x + 1, pair))(pair).y[0] == 2
    assert jax.eval_shape(lambda pair: pair, pair).x.shape == (2,)
    jax.jit(lambda pair: pair).lower(pair)
    jax.vmap(lambda pair: pair.x)(Pair(jnp.ones(3), jnp.ones(3)))


def test_checks_can_be_switched_off() -> None:
    with at.disable_typechecking():
        assert mean_over_time(jnp.ones((2, 3))).shape == (2,)
        Pair("anything")
    with pytest.raises(Exception, match="mean_over_time"):
        mean_over_time(jnp.ones((2, 3)))


def test_differing_trees_are_described_by_path() -> None:
    expected = {"a": {"b": np.zeros(2), "c": np.zeros(3)}, "d": np.zeros(1, np.int32)}
    at.check_pytree_equality(expected=expected, got=expected, check_shapes=True, check_dtypes=True)
    got = {"a": {"b": np.zeros(3)}, "d": np.zeros(1), "e": np.zeros(1)}
    with pytest.raises(ValueError, match="4 places") as error:
        at.check_pytree_equality(expected=expected, got=got, check_shapes=True, check_dtypes=True)
    message = str(error.value)
    assert "['a']['c'] is missing" in message
    assert "['e'] is not expected" in message
    assert "['a']['b'] has shape (3,) instead of (2,)" in message
    assert "['d'] has dtype float64 instead of int32" in message
    with pytest.raises(ValueError, match="containers"):
        at.check_pytree_equality(expected=[np.zeros(1)], got=(np.zeros(1),))
