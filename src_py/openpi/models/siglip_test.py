import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from openpi.models import siglip

CONFIG = siglip.Config(width=8, depth=2, mlp_dim=12, num_heads=2, patch_size=(14, 7))


def make(resolution: tuple[int, int], dtype: str = "float32") -> siglip.Module:
    return siglip.Module(CONFIG, 10, image_resolution=resolution, dtype=jnp.dtype(dtype), rngs=nnx.Rngs(0))


def test_one_token_per_whole_patch() -> None:
    module = make((30, 21))
    assert module.pos_embedding.shape == (1, 6, 8)
    assert module(jnp.zeros((3, 30, 21, 3))).shape == (3, 6, 10)


def test_patches_are_in_rows_and_move_with_the_image() -> None:
    module = make((28, 21))
    module.pos_embedding[...] = jnp.zeros((1, 6, 8))
    image = jax.random.normal(jax.random.key(0), (1, 28, 21, 3))
    tokens = module(image).reshape(2, 3, 10)
    moved = module(jnp.roll(image, (14, 7), (1, 2))).reshape(2, 3, 10)
    np.testing.assert_allclose(moved, jnp.roll(tokens, (1, 1), (0, 1)), atol=1e-5)


def test_compute_dtype() -> None:
    assert make((28, 28), "bfloat16")(jnp.zeros((1, 28, 28, 3))).dtype == jnp.bfloat16


def test_variants() -> None:
    assert siglip.get_config("So400m/14") == siglip.Config(1152, 27, 4304, 16, (14, 14))
    assert siglip.get_config("Ti/16").patch_size == (16, 16)
    assert siglip.get_config(CONFIG) is CONFIG


@pytest.mark.parametrize("variant", ["So400m", "Huge/14", "So400m/x"])
def test_unknown_variants_name_the_known_ones(variant: str) -> None:
    with pytest.raises(ValueError, match="So400m/14"):
        siglip.get_config(variant)


def test_impossible_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="multiple of num_heads"):
        siglip.Config(width=9, depth=1, mlp_dim=4, num_heads=2)
    with pytest.raises(ValueError, match="no whole patch"):
        make((13, 21))
