import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from openpi.shared import nnx_utils


class Scale(nnx.Module):
    def __init__(self) -> None:
        self.weight = nnx.Param(jnp.array(2.0))
        self.inner = nnx.Dict(bias=nnx.Param(jnp.array(1.0)))
        self.traces = nnx.static([])

    @nnx_utils.static_argnames("power")
    def apply(self, x: jax.Array, *, power: int = 1, shift: float = 0.0) -> jax.Array:
        self.traces.append(power)
        return jnp.stack([self.weight * x + self.inner.bias + shift] * power)


def test_jitted_method_freezes_the_parameters() -> None:
    module = Scale()
    jitted = nnx_utils.module_jit(module.apply)
    module.weight[...] = jnp.array(100.0)
    assert jitted(jnp.array(3.0)) == 7.0
    assert jitted.__name__ == "apply"


def test_only_marked_arguments_are_compiled_in() -> None:
    module = Scale()
    jitted = nnx_utils.module_jit(module.apply)
    for shift in (0.0, 1.0, 2.0):
        assert jitted(jnp.array(3.0), power=2, shift=shift).shape == (2,)
    assert jitted(jnp.array(3.0), power=3).shape == (3,)
    assert module.traces == [2, 3]


def test_only_methods_of_modules_can_be_jitted() -> None:
    with pytest.raises(ValueError, match="bound method"):
        nnx_utils.module_jit(jnp.sum)


def test_path_regex_matches_whole_paths() -> None:
    matches = nnx_utils.PathRegex(".*lora.*")
    assert matches(("layers", 0, "lora_a"), None)
    assert not nnx_utils.PathRegex("lora")(("layers", "lora_a"), None)
    assert nnx_utils.PathRegex(r"a\.b", sep=".")(("a", "b"), None)


def test_state_map_changes_only_what_is_selected() -> None:
    state = nnx.state(Scale())
    mapped = nnx_utils.state_map(state, nnx_utils.PathRegex("inner/.*"), lambda v: v.replace(v.value * 10))
    assert nnx.to_pure_dict(mapped) == {"weight": 2.0, "inner": {"bias": 10.0}}
