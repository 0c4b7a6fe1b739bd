import jax.numpy as jnp
import numpy as np
import pytest

from openpi import transforms
from openpi.models import model as _model
from openpi.policies import aloha_policy, checks, droid_policy, libero_policy, rtc
from openpi.policies.policy import Policy, PolicyRecorder

HORIZON, DIM = 6, 16
CAMERAS = _model.IMAGE_KEYS


class EchoModel(_model.BaseModel):
    """Gives back the previous actions, else the noise, else what it was told: shows what reached it."""

    def __init__(self) -> None:
        super().__init__(DIM, HORIZON, 8)

    def compute_loss(self, rng, observation, actions, *, train=False):
        raise AssertionError("no training here")

    def sample_actions(
        self,
        rng,
        observation,
        *,
        num_steps=10,
        noise=None,
        prev_actions=None,
        delay=None,
        execution_horizon=None,
        guidance_weight=5.0,
    ):
        batch = observation.state.shape[0]
        if prev_actions is not None:
            return jnp.broadcast_to(prev_actions, (batch, HORIZON, DIM))
        if noise is not None:
            return noise * observation.state[:, None, :1]
        return jnp.full((batch, HORIZON, DIM), float(num_steps)) + observation.state[:, None]


class TokenModel(EchoModel):
    """Knows neither noise nor real-time chunking, as pi0-FAST."""

    def sample_actions(self, rng, observation, *, max_decoding_steps=4, temperature=0.0):
        return jnp.full((observation.state.shape[0], max_decoding_steps), temperature)


def observation(**changes) -> dict:
    data = {
        "images": {name: np.zeros((8, 8, 3), np.uint8) for name in CAMERAS},
        "image_masks": dict.fromkeys(CAMERAS, True),
        "state": np.arange(DIM) / DIM,
    }
    return {**data, **changes}


@pytest.fixture(scope="module")
def policy() -> Policy:
    return Policy(EchoModel(), sample_kwargs={"num_steps": 3}, metadata={"robot": "none"})


def test_result_of_one_observation(policy):
    result = policy.infer(observation())
    np.testing.assert_allclose(result["actions"], 3 + np.tile(np.arange(DIM) / DIM, (HORIZON, 1)))
    np.testing.assert_allclose(result["state"], np.arange(DIM) / DIM)
    assert result["policy_timing"]["infer_ms"] > 0
    assert policy.metadata == {"robot": "none"}


def test_a_list_gives_a_list(policy):
    results = policy.infer([observation(state=np.full(DIM, value)) for value in (0.25, 0.5)])
    assert [float(result["actions"][0, 0]) for result in results] == [3.25, 3.5]
    assert policy.infer([]) == []


def test_noise_with_and_without_batch_axis(policy):
    noise = np.random.default_rng(0).normal(size=(HORIZON, DIM)).astype(np.float32)
    ones = observation(state=np.ones(DIM))
    np.testing.assert_array_equal(policy.infer(ones, noise=noise)["actions"], noise)
    np.testing.assert_array_equal(policy.infer(ones, noise=noise[None])["actions"], noise)
    with pytest.raises(ValueError, match=r"noise has shape \(6, 3\); it must be \(1, 6, 16\)"):
        policy.infer(ones, noise=noise[:, :3])
    with pytest.raises(ValueError, match="'noise' holds NaN"):
        policy.infer(ones, noise=noise * np.nan)


def test_observation_is_left_alone():
    def mutate(data: dict) -> dict:
        data["images"].pop("base_0_rgb")
        data["images"]["base_0_rgb"] = np.ones((8, 8, 3), np.uint8)
        data["state"] = np.ones(DIM)
        return data

    data = observation()
    Policy(EchoModel(), transforms=[mutate]).infer(data)
    assert not data["state"][0]
    assert not data["images"]["base_0_rgb"].any()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"state": np.zeros(DIM - 1)}, r"state has shape \(15,\); it must be \[16\]"),
        ({"state": np.zeros((2, DIM))}, r"state has shape \(2, 16\)"),
        ({"state": np.full(DIM, np.nan)}, r"'state' holds NaN or infinity at \[\[0\]"),
        ({"images": {}}, "no images"),
        ({"images": {"base_0_rgb": np.zeros((8, 8), np.uint8)}}, r"'base_0_rgb' has shape \(8, 8\)"),
        ({"images": {"base_0_rgb": np.zeros((8, 8, 3), np.int32)}}, "'base_0_rgb' has dtype int32"),
        ({"images": {"base_0_rgb": np.full((8, 8, 3), 255.0)}}, "255.*floats must lie in -1 to 1"),
        ({"images": {"base_0_rgb": np.full((8, 8, 3), np.inf)}}, "'base_0_rgb' holds NaN or infinity"),
    ],
)
def test_bad_observations(policy, changes, message):
    with pytest.raises(ValueError, match=message):
        policy.infer(observation(**changes))


def test_sample_arguments_that_the_model_does_not_take():
    with pytest.raises(ValueError, match=r"takes no \['temperature'\]; its arguments: .*'num_steps'"):
        Policy(EchoModel(), sample_kwargs={"temperature": 1.0})


def test_fast_arguments_reach_the_model():
    policy = Policy(TokenModel(), sample_kwargs={"max_decoding_steps": 7, "temperature": 0.5})
    assert policy.infer(observation())["actions"].tolist() == [0.5] * 7
    with pytest.raises(ValueError, match="starts from no noise"):
        policy.infer(observation(), noise=np.zeros((HORIZON, DIM)))


def test_recorder_keeps_inputs_and_outputs_and_goes_on_counting(policy, tmp_path):
    recorder = PolicyRecorder(policy, tmp_path / "records")
    result = recorder.infer(observation(prompt="fold"))
    recorder.infer(observation())
    record = np.load(tmp_path / "records" / "step_0.npy", allow_pickle=True).item()
    assert record["inputs/prompt"] == "fold"
    assert record["inputs/images/base_0_rgb"].shape == (8, 8, 3)
    np.testing.assert_array_equal(record["outputs/actions"], result["actions"])
    assert len(PolicyRecorder(policy, tmp_path / "records").infer([observation()] * 2)) == 2
    assert sorted(path.name for path in (tmp_path / "records").iterdir()) == [f"step_{i}.npy" for i in range(4)]
    assert recorder.metadata == policy.metadata


def stats(dim: int, seed: int = 0) -> transforms.NormStats:
    rng = np.random.default_rng(seed)
    return transforms.NormStats(
        mean=rng.normal(size=dim), std=rng.uniform(0.5, 2, dim), q01=-rng.uniform(1, 2, dim), q99=rng.uniform(1, 2, dim)
    )


def robot_policy(inputs, outputs, state_dim, action_dim, delta=None, *, quantiles=False, repack=()) -> Policy:
    norm_stats = {"state": stats(state_dim), "actions": stats(action_dim, 1)}
    return Policy(
        EchoModel(),
        transforms=[
            *repack,
            inputs,
            transforms.DeltaActions(delta),
            transforms.Normalize(norm_stats, quantiles),
            transforms.PadStatesAndActions(DIM),
        ],
        output_transforms=[
            transforms.Unnormalize(norm_stats, quantiles),
            transforms.AbsoluteActions(delta),
            outputs,
        ],
    )


def aloha(**kwargs) -> tuple[Policy, dict]:
    mask = transforms.make_bool_mask(6, -1, 6, -1)
    policy = robot_policy(aloha_policy.AlohaInputs(), aloha_policy.AlohaOutputs(), 14, 14, mask, **kwargs)
    return policy, aloha_policy.make_aloha_example()


def droid() -> tuple[Policy, dict]:
    inputs, outputs = droid_policy.DroidInputs(_model.ModelType.PI05), droid_policy.DroidOutputs()
    return robot_policy(inputs, outputs, 8, 8, quantiles=True), droid_policy.make_droid_example()


def libero() -> tuple[Policy, dict]:
    inputs, outputs = libero_policy.LiberoInputs(_model.ModelType.PI0), libero_policy.LiberoOutputs()
    mask = transforms.make_bool_mask(6, -1)
    return robot_policy(inputs, outputs, 8, 7, mask), libero_policy.make_libero_example()


@pytest.mark.parametrize(("robot", "dim"), [(aloha, 14), (droid, 8), (libero, 7)])
def test_previous_actions_reach_the_model_as_training_actions_would(robot, dim):
    """The model gives back what it got: out must come the robot's own actions, whatever its state is now."""
    policy, example = robot()
    previous = np.random.default_rng(0).uniform(-1, 1, size=(HORIZON, dim))
    result = policy.infer({**example, "rtc/prev_actions": previous, "rtc/delay": 2})
    np.testing.assert_allclose(result["actions"], previous, atol=2e-6)
    assert result["rtc/frozen_steps"] == 2


def test_previous_actions_are_relative_to_the_present_state():
    policy, example = aloha()
    previous = np.zeros((HORIZON, 14))
    fns = policy._input_transforms[:2]
    for state in (np.zeros(14), np.full(14, 0.3)):
        _, inside = rtc.apply_inputs(fns, {**example, "state": state}, previous)
        np.testing.assert_allclose(inside[0, 3:6], -state[3:6])


def test_previous_actions_survive_a_repack():
    repack = transforms.RepackTransform({"images": {"cam_high": "top"}, "state": "joints"})
    policy, example = aloha(repack=[repack])
    previous = np.full((HORIZON, 14), 0.25)
    data = {"top": example["images"]["cam_high"], "joints": example["state"], "rtc/prev_actions": previous}
    np.testing.assert_allclose(policy.infer(data)["actions"], previous, atol=2e-6)


def test_several_observations_with_previous_actions():
    policy, example = libero()
    chunks = [np.full((HORIZON, 7), value) for value in (0.1, 0.2)]
    results = policy.infer([{**example, "rtc/prev_actions": chunk, "rtc/delay": 1} for chunk in chunks])
    for result, chunk in zip(results, chunks, strict=True):
        np.testing.assert_allclose(result["actions"], chunk, atol=2e-6)


def test_a_model_without_real_time_chunking_ignores_the_keys():
    result = Policy(TokenModel()).infer(observation(**{"rtc/prev_actions": np.zeros((6, 7)), "rtc/delay": 3}))
    assert rtc.FROZEN_STEPS not in result


def test_empty_previous_actions_ask_for_nothing(policy):
    assert rtc.FROZEN_STEPS not in policy.infer(observation(**{"rtc/prev_actions": np.zeros((0, DIM))}))


@pytest.mark.parametrize(
    ("keys", "delay", "executed"),
    [
        ({}, 0, None),
        ({"rtc/delay": 2, "rtc/execution_horizon": 3}, 2, 3),
        ({"rtc/delay": 9}, 6, None),  # no more can be frozen than there are
        ({"rtc/prev_valid": 4}, 0, 2),  # rows past the previous chunk's end get no weight
        ({"rtc/prev_valid": 4, "rtc/execution_horizon": 3, "rtc/delay": 1}, 1, 3),
        ({"rtc/prev_valid": 2, "rtc/delay": 5}, 2, 4),
        ({"rtc/delay": 4, "rtc/execution_horizon": 5}, 4, 2),  # delay <= horizon - executed
    ],
)
def test_delay_and_execution_horizon_are_kept_consistent(keys, delay, executed):
    request = rtc.parse({"rtc/prev_actions": np.zeros((6, 2)), **keys}, 6)
    assert (request.delay, request.execution_horizon) == (delay, executed)


def test_short_previous_chunks_are_filled_with_their_last_row():
    request = rtc.parse({"rtc/prev_actions": np.array([[1.0], [2.0]])}, 4)
    assert request.prev_actions.ravel().tolist() == [1, 2, 2, 2]
    assert request.execution_horizon == 2
    kwargs = rtc.parse({"rtc/prev_actions": np.ones((9, 1)), "rtc/guidance_weight": 2}, 4).sample_kwargs(
        np.ones((4, 1))
    )
    assert kwargs["guidance_weight"] == 2
    assert "execution_horizon" not in kwargs


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"rtc/prev_actions": np.zeros(5)}, "must be .horizon, action values."),
        ({"rtc/prev_actions": np.full((3, 2), np.nan)}, "holds NaN"),
        ({"rtc/prev_actions": np.zeros((3, 2)), "rtc/delay": -1}, "'rtc/delay' is -1"),
        ({"rtc/prev_action": np.zeros((3, 2))}, r"Unknown real-time chunking keys \['rtc/prev_action'\]"),
    ],
)
def test_bad_real_time_chunking_keys(keys, message):
    with pytest.raises(ValueError, match=message):
        rtc.parse(keys, 6)


def test_state_is_held_against_its_statistics():
    check = checks.CheckState({"state": stats(8)})
    assert check({"state": np.zeros(8)})["state"].shape == (8,)
    for length in (7, 9):
        with pytest.raises(ValueError, match=f"state has {length} values; the model was trained with 8"):
            check({"state": np.zeros(length)})
    with pytest.raises(ValueError, match=r"'state' holds NaN or infinity at \[\[3\]\]"):
        check({"state": np.array([0, 0, 0, np.nan, 0, 0, 0, 0])})
    with pytest.raises(ValueError, match="'state' is missing"):
        check({})


def test_padding_in_the_statistics_does_not_count():
    padded = transforms.NormStats(mean=np.zeros(32), std=np.r_[np.ones(14), np.zeros(18)])
    checks.CheckState({"state": padded})({"state": np.zeros(14)})
    with pytest.raises(ValueError, match="trained with 14"):
        checks.CheckState({"state": padded})({"state": np.zeros(13)})
    checks.CheckState(None)({"state": np.zeros(5)})


def test_pytorch_models_behind_the_same_class():
    torch = pytest.importorskip("torch", reason="PyTorch is an extra")

    class TorchModel(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.config = EchoModel()  # has the sizes

        def sample_actions(self, device, observation, noise=None, num_steps=10):
            assert not self.training
            assert observation.images["base_0_rgb"].dtype == observation.state.dtype == torch.float32
            return noise + num_steps + observation.state[:, None]

    policy = Policy(TorchModel(), is_pytorch=True, device="cpu", sample_kwargs={"num_steps": 3})
    ones = observation(state=np.ones(DIM))
    result = policy.infer({**ones, "rtc/prev_actions": np.zeros((HORIZON, DIM))}, noise=np.ones((HORIZON, DIM)))
    np.testing.assert_array_equal(result["actions"], np.full((HORIZON, DIM), 5.0))
    assert result["policy_timing"]["infer_ms"] > 0
    assert rtc.FROZEN_STEPS not in result
