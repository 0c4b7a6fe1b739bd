"""Models held against the reference's outputs: some on every run, all of them in the long run."""

import pathlib
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx, traverse_util

from openpi.golden import compare
from openpi.golden.folder import PRECISIONS, GoldenFolder

IN_REPOSITORY = pathlib.Path(__file__).parents[1] / "public" / "models"
# The smallest of the reference's deliberate mistakes (RoPE base 10001) must not slip through for pi0.
SMALLEST_MISTAKE = 1.4e-4


def assert_within_bounds(checks: list[compare.Check]) -> None:
    failed = [check for check in checks if not check.passed]
    assert checks
    assert not failed


@pytest.mark.parametrize("name", ["pi0_lora", "pi05", "pi0_fast"])
def test_float32_outputs(name: str) -> None:
    assert_within_bounds(compare.verify(GoldenFolder(IN_REPOSITORY / name), "f32"))


def test_bounds_are_tighter_than_the_smallest_mistake() -> None:
    assert max(compare.SAMPLE_BOUND.values()) < SMALLEST_MISTAKE


@pytest.mark.long
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", ["pi0", "pi05", "pi0_lora", "pi0_fast", "pi0_fast_lora"])
def test_whole_set(golden: Callable[[str], pathlib.Path], name: str, precision: str) -> None:
    assert_within_bounds(compare.verify(GoldenFolder(golden(f"models/{name}")), precision))


def test_the_encoder_of_images_rounds_to_bfloat16_where_the_reference_does(
    golden: Callable[[str], pathlib.Path],
) -> None:
    """Norms are rounded once and queries are scaled, which brings it thrice as near as rounding elsewhere.

    One camera at a time: XLA on CPU multiplies larger batches in another way.
    """
    folder = GoldenFolder(golden("models/pi0"))
    encode = nnx.jit(folder.model("bf16").PaliGemma.img)
    images = folder.observation().images.values()
    tokens = np.concatenate([np.asarray(encode(image), np.float32) for image in images], axis=1)
    wanted, float32 = (folder.outputs(name)["fwd/prefix_tokens"][:, : tokens.shape[1]] for name in ("bf16", "f32"))
    assert np.linalg.norm(tokens - wanted) < 0.5 * np.linalg.norm(wanted - float32)


def check_gradients(folder: GoldenFolder) -> None:
    """The norm and the sum of every parameter's gradient, relative to the largest norm there is."""
    model, facts = folder.model("f32"), folder.meta["grads_f32"]
    graphdef, params = nnx.split(model)
    observation, actions = folder.observation(), jnp.asarray(folder.inputs["actions"])

    def mean_loss(params: nnx.State) -> jax.Array:
        return jnp.mean(nnx.merge(graphdef, params).compute_loss(folder.rng, observation, actions, train=False))

    loss, gradients = jax.jit(jax.value_and_grad(mean_loss))(params)
    flat = traverse_util.flatten_dict(nnx.to_pure_dict(gradients), sep="/")
    assert float(loss) == pytest.approx(facts["mean_loss"], abs=1e-5)
    assert set(flat) == set(facts["grad_l2_norm"])
    for path, norm in facts["grad_l2_norm"].items():
        assert float(jnp.linalg.norm(flat[path])) == pytest.approx(norm, rel=2e-3, abs=1e-5), path


def test_gradients() -> None:
    check_gradients(GoldenFolder(IN_REPOSITORY / "pi05"))


@pytest.mark.long
@pytest.mark.parametrize("name", ["pi0", "pi0_lora", "pi0_fast", "pi0_fast_lora"])
def test_gradients_of_whole_set(golden: Callable[[str], pathlib.Path], name: str) -> None:
    check_gradients(GoldenFolder(golden(f"models/{name}")))


def test_a_changed_output_is_noticed(tmp_path: pathlib.Path) -> None:
    expected = {"sample_10": np.zeros((1, 2, 3), np.float32)}
    source = GoldenFolder(IN_REPOSITORY / "pi05")
    for name in ("meta.json", "params.npz", "inputs.npz"):
        (tmp_path / name).write_bytes((source.path / name).read_bytes())
    np.savez(tmp_path / "outputs_f32.npz", **expected)
    changed = {"sample_10": np.full((1, 2, 3), 2e-5, np.float32)}
    (check,) = compare._compare(GoldenFolder(tmp_path), "f32", changed)
    assert not check.passed
    assert check.error == pytest.approx(2e-5)
