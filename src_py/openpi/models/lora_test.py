import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from openpi.models import lora

CONFIG = lora.LoRAConfig(rank=2, alpha=6.0)


def test_scaling() -> None:
    assert CONFIG.scaling_value == 3.0
    assert CONFIG.replace(rslora=True).scaling_value == pytest.approx(6.0 / 2**0.5)


def test_an_empty_adapter_changes_nothing() -> None:
    x = jnp.arange(12.0).reshape(1, 3, 4) / 10
    adapted = lora.FeedForward(4, 5, lora_config=CONFIG, rngs=nnx.Rngs(0))
    plain = lora.FeedForward(4, 5, rngs=nnx.Rngs(1))
    for name in ("gating_einsum", "linear"):
        getattr(plain, name)[...] = getattr(adapted, name)[...]
        getattr(adapted, f"{name}_lora_b")[...] *= 0
    np.testing.assert_allclose(adapted(x), plain(x), atol=1e-6)


def test_a_label_that_is_taken_is_refused() -> None:
    einsum = lora.Einsum((3, 4, 5), lora_config=CONFIG.replace(label="N"), rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="choose another letter"):
        einsum("BTD,NDH->BTNH", jnp.ones((1, 2, 4)))


@pytest.mark.parametrize(
    ("adapted", "frozen"),
    [
        ((False, False), set()),
        ((True, False), {"PaliGemma/llm/mlp/linear"}),
        ((False, True), {"PaliGemma/llm/mlp_1/linear"}),
        ((True, True), {"PaliGemma/llm/mlp/linear", "PaliGemma/llm/mlp_1/linear"}),
    ],
)
def test_freeze_filter(adapted: tuple[bool, bool], frozen: set[str]) -> None:
    paths = [
        "PaliGemma/img/head/kernel",
        "PaliGemma/llm/mlp/linear",
        "PaliGemma/llm/mlp/linear_lora_a",
        "PaliGemma/llm/mlp_1/linear",
        "PaliGemma/llm/mlp_1/linear_lora_a",
        "state_proj/kernel",
    ]
    selects = nnx.filterlib.to_predicate(lora.freeze_filter(adapted))
    assert {path for path in paths if selects(tuple(path.split("/")), None)} == frozen
