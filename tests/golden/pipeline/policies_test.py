"""Policies end to end against vectors of the reference: a checkpoint it wrote, raw observations in, actions out."""

import dataclasses
import json
import pathlib
import shutil
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from openpi import transforms
from openpi.models import gemma, pi0_config, pi0_fast, siglip
from openpi.models import model as _model
from openpi.policies import droid_policy, policy_config
from openpi.policies import policy as _policy
from openpi.shared import normalize
from openpi.training import config as _config

FAST_CASES = ("droid_pi0_fast",)
FLOW_CASES = ("aloha_pi0", "aloha_sim_pi0_default_prompt", "droid_pi05", "libero_pi0")
# bfloat16 leaves pi0-FAST's tokens open (near ties), and its rows go on until all have ended: no batch equals one.
# Not pi0-FAST: near ties among bfloat16 logits leave its tokens open, and rows of a batch go on until all have ended.
# One case; the others only where minutes do not count.
flow_only = pytest.mark.parametrize(
    "case",
    [*(pytest.param(name, marks=pytest.mark.long) for name in FLOW_CASES[:-1]), FLOW_CASES[-1]],
    indirect=True,
)
fast_only = pytest.mark.parametrize("case", FAST_CASES, indirect=True)
FLOAT32_BOUND = 3e-5
# Both in model units. An honest bfloat16 computation lies within 0.02 of another (the golden set's table).
BFLOAT16_BOUND = 0.02


@dataclasses.dataclass
class Case:
    folder: pathlib.Path
    meta: dict[str, Any]
    observation: dict[str, Any]
    noise: np.ndarray | None
    outputs: dict[str, np.ndarray]

    @property
    def is_fast(self) -> bool:
        return self.meta["model"]["class"] == "Pi0FASTConfig"


@pytest.fixture(scope="module", params=FLOW_CASES + FAST_CASES)
def case(request, golden) -> Case:
    folder = golden(f"policy/{request.param}")
    meta = json.loads((folder / "meta.json").read_text())
    raw = {name.replace("|", "\0"): array for name, array in np.load(folder / "raw_obs.npz").items()}
    noise = raw.pop("noise")
    observation: dict[str, Any] = {}
    for name, array in raw.items():
        node = observation
        *parents, leaf = name.split("\0")
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = array
    if meta["prompt"] is not None:
        observation["prompt"] = meta["prompt"]
    is_fast = meta["model"]["class"] == "Pi0FASTConfig"
    return Case(folder, meta, observation, None if is_fast else noise, dict(np.load(folder / "outputs.npz")))


@pytest.fixture(scope="module", autouse=True)
def tokenizer_in_data_home(tmp_path_factory, sentencepiece_model):
    home = tmp_path_factory.mktemp("home")
    target = home / "big_vision" / "paligemma_tokenizer.model"
    target.parent.mkdir()
    shutil.copyfile(sentencepiece_model, target)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENPI_DATA_HOME", str(home))
        yield


def model_config(meta: dict[str, Any], dtype: str, fast_folder: pathlib.Path) -> Any:
    model, variants = meta["model"], meta["variants"]
    common = {
        "action_dim": model["action_dim"],
        "action_horizon": model["action_horizon"],
        "max_token_len": model["max_token_len"],
        "dtype": dtype,
        "paligemma_variant": gemma.Config(**variants[model["paligemma_variant"]]),
        "vision_variant": siglip.Config(**{**meta["siglip"], "patch_size": tuple(meta["siglip"]["patch_size"])}),
        "vocab_size": meta["vocab"],
    }
    if model["class"] == "Pi0FASTConfig":
        return pi0_fast.Pi0FASTConfig(**common, fast_model_tokenizer_kwargs={"fast_tokenizer_path": fast_folder})
    expert = gemma.Config(**variants[model["action_expert_variant"]])
    return pi0_config.Pi0Config(**common, action_expert_variant=expert, pi05=model["pi05"], pytorch_compile_mode=None)


def droid_transforms(model: Any) -> transforms.Group:
    return transforms.Group([droid_policy.DroidInputs(model.model_type)], [droid_policy.DroidOutputs()])


def data_config(meta: dict[str, Any]) -> Any:
    options = dict(meta["data_options"])
    assets = _config.AssetsConfig(asset_id=meta["asset_id"])
    if meta["data_factory"] == "SimpleDataConfig":
        return _config.SimpleDataConfig(assets=assets, data_transforms=droid_transforms)
    return getattr(_config, meta["data_factory"])(assets=assets, **options)


def train_config(case: Case, dtype: str, fast_folder: pathlib.Path) -> _config.TrainConfig:
    return _config.TrainConfig(
        name="golden",
        exp_name="golden",
        model=model_config(case.meta, dtype, fast_folder),
        data=data_config(case.meta),
    )


def make_policy(case: Case, dtype: str, fast_folder: pathlib.Path) -> _policy.Policy:
    config = train_config(case, dtype, fast_folder)
    kwargs = case.meta["sample_kwargs"] or None
    return policy_config.create_trained_policy(config, case.folder / "checkpoint", sample_kwargs=kwargs)


@pytest.fixture(scope="module")
def policies() -> dict[str, _policy.Policy]:
    return {}


@pytest.fixture
def policy(case, policies, fast_folder, tokenizer_in_data_home) -> _policy.Policy:
    """The case's policy, compiled once however the tests are ordered."""
    if case.folder.name not in policies:
        policies[case.folder.name] = make_policy(case, "float32", fast_folder)
    return policies[case.folder.name]


def test_model_inputs(case, policy):
    inputs = policy._input_transform(case.observation)
    flat = transforms.flatten_dict(inputs)
    expected = {
        name.removeprefix("model_inputs|").replace("|", "/"): array
        for name, array in case.outputs.items()
        if name.startswith("model_inputs|")
    }
    assert list(flat) == list(expected)
    for name, array in expected.items():
        actual = np.asarray(flat[name])
        assert actual.dtype == array.dtype, name
        if name.startswith("image/"):
            difference = np.abs(actual.astype(int) - array.astype(int))
            assert difference.max() <= 1, name
            assert (difference > 0).mean() <= 0.02, name
        else:
            np.testing.assert_allclose(actual, array, rtol=1e-12, atol=1e-12, err_msg=name)


def check_actions(case: Case, result: dict[str, Any], name: str, bound: float) -> None:
    expected = case.outputs[name]
    assert sorted(result) == sorted(case.meta["result_keys"])
    assert result["policy_timing"]["infer_ms"] > 0
    assert result["actions"].dtype == expected.dtype
    assert result["actions"].shape == expected.shape
    error = (np.abs(result["actions"] - expected) / action_units(case)).max()
    print(f"{case.folder.name} {name}: {error:.2e} of {bound:.0e}")
    assert error <= bound


def test_actions_in_float32(case, policy):
    check_actions(case, policy.infer(case.observation, noise=case.noise), "actions_f32", FLOAT32_BOUND)


@flow_only
def test_actions_in_bfloat16(case, fast_folder):
    policy = make_policy(case, "bfloat16", fast_folder)
    check_actions(case, policy.infer(case.observation, noise=case.noise), "actions_bf16", BFLOAT16_BOUND)


@flow_only
def test_actions_of_parameters_that_were_not_rounded(case, policy, fast_folder):
    params = _model.restore_params(case.folder / "checkpoint" / "params", dtype=jnp.float32)
    exact = _policy.Policy(
        train_config(case, "float32", fast_folder).model.load(params),
        transforms=policy._input_transforms,
        output_transforms=[policy._output_transform],
        sample_kwargs=case.meta["sample_kwargs"],
    )
    check_actions(case, exact.infer(case.observation, noise=case.noise), "actions_f32_params_f32", FLOAT32_BOUND)


@fast_only
def test_fast_tokens(case, policy):
    inputs = policy._input_transform(case.observation)
    tokens, _ = policy._sample(_policy._stacked([_policy._arrays(inputs)]), {})
    np.testing.assert_array_equal(tokens, case.outputs["tokens_f32"])


def action_units(case: Case) -> np.ndarray:
    """Robot units per model unit of each action dimension, so that the model's bounds apply."""
    folder = case.folder / "checkpoint" / "assets" / case.meta["asset_id"]
    stats = normalize.load(folder)["actions"]
    if case.meta["model"].get("pi05") or case.is_fast:
        return np.maximum((stats.q99 - stats.q01) / 2, 1e-3)
    return np.maximum(stats.std, 1e-3)


@fast_only
def test_decoding_steps_are_an_argument_of_the_policy(case, fast_folder):
    config = train_config(case, "float32", fast_folder)
    short = policy_config.create_trained_policy(
        config, case.folder / "checkpoint", sample_kwargs={"max_decoding_steps": 7, "temperature": 0.0}
    )
    inputs = short._input_transform(case.observation)
    tokens, _ = short._sample(_policy._stacked([_policy._arrays(inputs)]), {})
    np.testing.assert_array_equal(tokens, case.outputs["tokens_f32"][:, :7])


@flow_only
def test_batched_inference_equals_single(case, policy):
    other = {**case.observation, "prompt": "open the drawer"}
    noise = np.stack([case.noise, 0.5 * case.noise])
    batched = policy.infer([case.observation, other], noise=noise)
    for i, observation in enumerate((case.observation, other)):
        single = policy.infer(observation, noise=noise[i])
        assert single.keys() == batched[i].keys()
        error = np.abs(batched[i]["actions"] - single["actions"]) / action_units(case)
        assert error.max() <= FLOAT32_BOUND
