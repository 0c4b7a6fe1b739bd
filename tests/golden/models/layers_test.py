"""Single layers and functions of the models held against the reference's."""

import pathlib
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from openpi.models import gemma, lora, pi0, pi0_fast
from openpi.models import model as _model
from openpi.shared import image_tools

Golden = Callable[[str], pathlib.Path]


def load(golden: Golden, name: str) -> dict[str, np.ndarray]:
    with np.load(golden(f"transforms/{name}.npz")) as file:
        return dict(file)


def bfloat16(array: np.ndarray) -> jax.Array:
    """bfloat16 arrays are stored as such by bits (numpy calls them void) or as float32."""
    return jnp.asarray(array.view(jnp.bfloat16) if array.dtype.kind == "V" else array).astype(jnp.bfloat16)


@pytest.mark.parametrize(("precision", "atol"), [("f32", 1e-5), ("bf16", 4e-2)])
def test_norms(golden: Golden, precision: str, atol: float) -> None:
    vectors = load(golden, "layers")
    dtype = jnp.float32 if precision == "f32" else jnp.bfloat16
    x, cond = jnp.asarray(vectors["in/x"], dtype), jnp.asarray(vectors["in/cond"])
    plain = gemma.RMSNorm(24, rngs=nnx.Rngs(0))
    plain.scale[...] = jnp.asarray(vectors["in/scale"])
    adaptive = gemma.RMSNorm(24, cond_dim=24, rngs=nnx.Rngs(0))
    adaptive.Dense_0.kernel[...] = jnp.asarray(vectors["in/mod_kernel"])
    adaptive.Dense_0.bias[...] = jnp.asarray(vectors["in/mod_bias"])
    normed, gate = adaptive(x, cond)
    for name, got in {"rmsnorm": plain(x)[0], "adarms": normed, "adarms_gate": gate}.items():
        assert got.dtype == dtype
        wanted = bfloat16(vectors[f"out/{name}_bf16"]) if precision == "bf16" else vectors[f"out/{name}_f32"]
        np.testing.assert_allclose(np.asarray(got, np.float32), np.asarray(wanted, np.float32), atol=atol)


def test_rotary_embedding(golden: Golden) -> None:
    vectors = load(golden, "layers")
    x, positions = jnp.asarray(vectors["in/rope_x"]), jnp.asarray(vectors["in/rope_positions"])
    # Positions go up to 788: an angle that is rounded once more moves the result by 2e-5.
    np.testing.assert_allclose(gemma._rotate(x, positions), vectors["out/rope_f32"], atol=1e-6)
    rounded = gemma._rotate(x.astype(jnp.bfloat16), positions)
    assert rounded.dtype == jnp.float32
    np.testing.assert_allclose(rounded, vectors["out/rope_fast_bf16"], atol=1e-6)


@pytest.mark.parametrize("suffix", ["nolora", "rank4_alpha4", "rank4_alpha10", "rank4_alpha4_rslora"])
@pytest.mark.parametrize(
    ("name", "equation"), [("q", "BTD,NDH->BTNH"), ("kv", "BSD,2KDH->2BSKH"), ("out", "BTNH,NHD->BTD")]
)
def test_adapted_einsums(golden: Golden, name: str, equation: str, suffix: str) -> None:
    vectors = load(golden, "lora")
    configs = {
        "nolora": None,
        "rank4_alpha4": lora.LoRAConfig(rank=4, alpha=4.0),
        "rank4_alpha10": lora.LoRAConfig(rank=4, alpha=10.0),
        "rank4_alpha4_rslora": lora.LoRAConfig(rank=4, alpha=4.0, rslora=True),
    }
    einsum = lora.Einsum(vectors[f"in/{name}_w"].shape, lora_config=configs[suffix], rngs=nnx.Rngs(0))
    for parameter in ("w", "lora_a", "lora_b") if configs[suffix] else ("w",):
        getattr(einsum, parameter)[...] = jnp.asarray(vectors[f"in/{name}_{parameter}"])
    got = einsum(equation, jnp.asarray(vectors[f"in/{name}_x"]))
    np.testing.assert_allclose(got, vectors[f"out/{name}_{suffix}"], atol=2e-5)


@pytest.mark.parametrize("alpha", [3, 9])
def test_adapted_feed_forward(golden: Golden, alpha: int) -> None:
    vectors = load(golden, "lora")
    layer = lora.FeedForward(10, 14, lora_config=lora.LoRAConfig(rank=3, alpha=alpha), rngs=nnx.Rngs(0))
    for name, value in vectors.items():
        if name.startswith("in/ffn_p/"):
            getattr(layer, name.removeprefix("in/ffn_p/"))[...] = jnp.asarray(value)
    got = layer(jnp.asarray(vectors["in/ffn_x"]))
    np.testing.assert_allclose(got, vectors[f"out/ffn_rank3_alpha{alpha}"], atol=2e-5)


@pytest.mark.parametrize("name", ["causal", "prefix", "blocks", "all", "2d"])
def test_attention_masks(golden: Golden, name: str) -> None:
    vectors = load(golden, "masks")
    ar_mask = jnp.asarray(vectors[f"in/ar_{name}"])
    got = pi0.make_attn_mask(jnp.asarray(vectors["in/input_mask"]), ar_mask)
    np.testing.assert_array_equal(got, vectors[f"out/mask_{name}"])


def test_right_alignment(golden: Golden) -> None:
    vectors = load(golden, "masks")
    aligned = pi0_fast.left_to_right_align(
        *(jnp.asarray(vectors[name]) for name in ("in/align_x", "in/input_mask", "out/mask_2d"))
    )
    for name, got in zip(("x", "input_mask", "attn_mask"), aligned, strict=True):
        np.testing.assert_array_equal(got, vectors[f"out/align_{name}"])


@pytest.mark.parametrize("dim", [8, 64, 1024])
def test_time_embedding(golden: Golden, dim: int) -> None:
    vectors = load(golden, "posemb_sincos")
    got = pi0.posemb_sincos(jnp.asarray(vectors["in/t"]), dim, min_period=4e-3, max_period=4.0)
    # Angles go up to 1571 rad: a rounding elsewhere in their formula moves the result by 1e-4.
    np.testing.assert_allclose(got, vectors[f"out/posemb_{dim}"], atol=1e-6)


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_preprocessing(golden: Golden, mode: str) -> None:
    vectors = load(golden, "preprocess_observation")
    cameras = {name: vectors[f"in/image/{name}"] for name in _model.IMAGE_KEYS}
    data = {"image": cameras, "image_mask": {"base_0_rgb": vectors["in/image_mask/base_0_rgb"]}}
    observation = _model.Observation.from_dict({**data, "state": vectors["in/state"]})
    observation = _model.preprocess_observation(jax.random.key(2001), observation, train=mode == "train")
    assert list(observation.images) == list(_model.IMAGE_KEYS)
    for name in _model.IMAGE_KEYS:
        got = observation.images[name][:, ::7, ::7]
        np.testing.assert_allclose(got, vectors[f"out/{mode}/{name}_every7"], atol=2e-5)
        if mode == "eval":
            np.testing.assert_array_equal(observation.image_masks[name], vectors[f"out/eval/mask/{name}"])


@pytest.mark.parametrize("index", range(6))
@pytest.mark.parametrize("kind", ["u8", "f32"])
def test_resize(golden: Golden, index: int, kind: str) -> None:
    vectors = load(golden, "resize_with_pad")
    image = vectors[f"in/{index}_u8"]
    wanted = vectors[f"out/{index}_jax_{kind}"]
    if kind == "f32":
        image = image.astype(np.float32) / 255 * 2 - 1
    got = image_tools.resize_with_pad(jnp.asarray(image), *wanted.shape[:2])
    # One grey level where a float32 sum falls on the other side of one half.
    np.testing.assert_allclose(np.asarray(got, np.float32), wanted, atol=1 if kind == "u8" else 1e-5)
    assert np.mean(np.asarray(got, np.float32) != wanted) < (0.001 if kind == "u8" else 1)


@pytest.mark.parametrize("index", range(6))
def test_resize_torch(golden: Golden, index: int) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    vectors = load(golden, "resize_with_pad")
    wanted = vectors[f"out/{index}_torch_f32"]
    image = torch.from_numpy(vectors[f"in/{index}_u8"].astype(np.float32) / 255 * 2 - 1)
    got = image_tools.resize_with_pad_torch(image, *wanted.shape[:2])
    np.testing.assert_allclose(got.numpy(), wanted, atol=1e-5)
