"""Policies end to end against vectors of the reference: a checkpoint it wrote, raw observations in, actions out."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from policy_cases import FLOAT32_BOUND, Case, action_units, load_case, make_policy, train_config

from openpi import transforms
from openpi.models import model as _model
from openpi.policies import policy as _policy
from openpi.policies import policy_config

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
# Both in model units. An honest bfloat16 computation lies within 0.02 of another (the golden set's table).
BFLOAT16_BOUND = 0.02

pytestmark = pytest.mark.usefixtures("tokenizer_in_data_home")


@pytest.fixture(scope="module", params=FLOW_CASES + FAST_CASES)
def case(request, golden) -> Case:
    return load_case(golden(f"policy/{request.param}"))


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
