"""The PyTorch models held against the reference's PyTorch and JAX outputs, and their state dicts against its keys."""

import json
import pathlib
from collections.abc import Callable

import numpy as np
import pytest
from flax import traverse_util

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from openpi.golden.folder import config_from_spec  # noqa: E402
from openpi.models import pi0_config  # noqa: E402
from openpi.models.model import Observation  # noqa: E402
from openpi.models_pytorch import pi0_pytorch, weights  # noqa: E402

Golden = Callable[[str], pathlib.Path]
BOUNDS = {"pi0": 3e-5, "pi05": 1.5e-5}


def load(path: pathlib.Path) -> dict[str, np.ndarray]:
    with np.load(path) as file:
        return dict(file)


def model_of(folder: pathlib.Path, dtype: str) -> pi0_pytorch.PI0Pytorch:
    spec = json.loads((folder / "meta.json").read_text())["spec"]
    model = pi0_pytorch.PI0Pytorch(config_from_spec(spec, dtype))
    state = load(folder / "torch_state_dict.npz")
    weights.load_state_dict(model, {name: torch.from_numpy(value) for name, value in state.items()})
    return model.eval()


def observation(folder: pathlib.Path) -> tuple[Observation, torch.Tensor]:
    inputs = load(folder / "inputs.npz")
    nested = traverse_util.unflatten_dict({name: torch.from_numpy(value) for name, value in inputs.items()}, sep="/")
    return Observation.from_dict(nested), torch.from_numpy(inputs["noise"])


@pytest.mark.parametrize("name", ["pi0", "pi05"])
def test_outputs(golden: Golden, name: str) -> None:
    folder = golden(f"torch_parity/{name}")
    wanted, model = load(folder / "outputs.npz"), model_of(folder, "float32")
    inputs, noise = observation(folder)
    actions = model.sample_actions("cpu", inputs, noise=noise)
    for other in ("torch_f32_sample_10", "jax_f32_sample_10"):
        np.testing.assert_allclose(actions.numpy(), wanted[other], atol=BOUNDS[name])
    with torch.no_grad():
        prefix, _, _ = model.embed_prefix(*model._inputs(inputs, "cpu")[:4])
    np.testing.assert_allclose(prefix.numpy(), wanted["torch_f32_prefix_tokens"], atol=5e-5)


@pytest.mark.parametrize("name", ["pi0", "pi05"])
def test_bfloat16_outputs(golden: Golden, name: str) -> None:
    folder = golden(f"torch_parity/{name}")
    wanted = load(folder / "outputs.npz")
    inputs, noise = observation(folder)
    actions = model_of(folder, "bfloat16").sample_actions("cpu", inputs, noise=noise).numpy()
    float32 = wanted["jax_f32_sample_10"]
    distance = max(
        np.abs(wanted[other] - float32).max() for other in ("torch_bf16_sample_10", "jax_bf16_params_bf16_sample_10")
    )
    assert np.abs(actions - float32).max() <= 2 * distance


@pytest.mark.parametrize("name", ["pi0", "pi05"])
def test_conversion_from_jax(golden: Golden, name: str) -> None:
    folder = golden(f"torch_parity/{name}")
    params = traverse_util.unflatten_dict(load(folder / "jax_params.npz"), sep="/")
    state, wanted = weights.state_dict_from_jax(params), load(folder / "torch_state_dict.npz")
    assert set(state) == set(wanted)
    for key, value in wanted.items():
        np.testing.assert_array_equal(state[key], value, err_msg=key)


@pytest.mark.parametrize("name", ["pi0", "pi05"])
def test_full_size_state_dict(golden: Golden, name: str) -> None:
    wanted = json.loads(golden(f"torch/state_dict_{name}.json").read_text())["keys"]
    with torch.device("meta"):
        model = pi0_pytorch.PI0Pytorch(pi0_config.Pi0Config(pi05=name == "pi05"))
    found = {
        key: [list(value.shape), str(value.dtype).removeprefix("torch.")] for key, value in model.state_dict().items()
    }
    assert found == wanted
