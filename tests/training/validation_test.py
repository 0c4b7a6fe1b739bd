"""What the validation measures: errors of the actions a robot would get, on frames that were held out."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from openpi import transforms
from openpi.models import model as _model
from openpi.models import pi0, pi0_fast
from openpi.models import tokenizer as _tokenizer
from openpi.shared import normalize
from openpi.training import config as _config
from openpi.training import data_config, data_loader, evaluation, metrics, options, sharding, train_loop, train_state

HALF_RANGE = 10.0


class FourScenes:
    """Four frames in the model's own format, of different state, brightness and actions."""

    def __init__(self, config: pi0_fast.Pi0FASTConfig) -> None:
        self.actions = np.random.default_rng(0).uniform(-HALF_RANGE, HALF_RANGE, (4, config.action_horizon, 3))
        self.cameras = list(config.inputs_spec()[0].images)

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: Any) -> dict[str, Any]:
        image = np.full((28, 28, 3), 60 * int(index), np.uint8)
        return {
            "image": dict.fromkeys(self.cameras, image),
            "image_mask": dict.fromkeys(self.cameras, np.True_),
            "state": np.full(3, 6.0 * int(index) - 9),
            "prompt": "push",
            "actions": self.actions[int(index)],
        }


@pytest.fixture
def fast_run(tiny: Any, tiny_run: Any, tmp_path: Any) -> _config.TrainConfig:
    """A tiny pi0-FAST whose actions are six tokens; robot units are ten times the normalised ones."""
    sizes = tiny.model()
    model = pi0_fast.Pi0FASTConfig(
        action_dim=3,
        action_horizon=2,
        max_token_len=64,
        dtype="float32",
        paligemma_variant=sizes.paligemma_variant,
        vision_variant=sizes.vision_variant,
        vocab_size=sizes.vocab_size,
        image_resolution=sizes.image_resolution,
        fast_model_tokenizer=_tokenizer.BinningTokenizer,
        fast_model_tokenizer_kwargs={"n_bins": 32},
    )
    config = tiny_run(
        "fast",
        model=model,
        data=data_config.SimpleDataConfig(repo_id="scenes", tokenizer_path=data_config.SMALL_TOKENIZER),
        assets_base_dir=str(tmp_path / "assets"),
        num_train_steps=1,
        ema_decay=None,
        loop=options.LoopOptions(val_interval=1, val_batches=1),
    )
    one = np.full(3, HALF_RANGE)
    stats = normalize.NormStats(mean=0 * one, std=one, q01=-one, q99=one)
    normalize.save(config.assets_dirs / "scenes", {"state": stats, "actions": stats})
    return config


def answers(scenes: FourScenes, config: _config.TrainConfig) -> Any:
    """`sample_actions` of a model that knows the scenes by their first state digit: the tokens of their actions."""
    data = config.data.create(config.assets_dirs, config.model)
    samples = [data_loader.transform_dataset(scenes, data)[index] for index in range(4)]
    tokens = np.stack([sample["tokenized_prompt"] * sample["token_loss_mask"] for sample in samples])
    states = jnp.asarray([sample["state"][0] for sample in samples])

    def sample_actions(self: Any, rng: Any, observation: _model.Observation) -> jax.Array:
        scene = jnp.argmin(jnp.abs(observation.state[:, :1] - states), axis=1)
        says = jnp.asarray(tokens, jnp.float32)[scene]
        # Asked with the answer in its prompt, it says nothing.
        return jnp.where(jnp.any(observation.token_loss_mask, axis=1, keepdims=True), 0.0, says)

    return sample_actions


def test_the_error_of_a_fast_model_is_that_of_the_actions_it_says(
    fast_run: _config.TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Large for one that was hardly trained; as small as the bins allow for one that knows the actions."""
    scenes = FourScenes(fast_run.model)
    train_loop.train(fast_run, dataset=scenes, val_dataset=scenes)
    untrained = metrics.read_metrics(fast_run.checkpoint_dir)[-1]
    assert untrained["val_action_error"] == pytest.approx(np.abs(scenes.actions).mean(), rel=1e-3)  # chunks of zeros
    assert untrained["val_loss"] > 1
    monkeypatch.setattr(pi0_fast.Pi0FAST, "sample_actions", answers(scenes, fast_run))
    jax.clear_caches()  # of the sampling that was compiled
    assert measure(fast_run, dataset=scenes)["val_action_error"] < HALF_RANGE / 32


def measure(config: _config.TrainConfig, **held_out: Any) -> dict[str, float]:
    """What the validation says of an untrained model, whose loss is not computed."""
    mesh = sharding.make_mesh(1)
    placed = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(sharding.DATA_AXIS))
    loader = evaluation.create_loader(config, placed, **held_out)
    state, shardings = train_state.init_train_state(config, jax.random.key(0), mesh, resume=False)
    kind = type(nnx.merge(state.model_def, state.params))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kind, "compute_loss", lambda self, rng, observation, actions, train: jnp.full(2, 0.5))
        return evaluation.Evaluator(config, loader, shardings, placed)(state)


def test_the_prompt_ends_as_it_does_at_inference(fast_run: _config.TrainConfig) -> None:
    chain = fast_run.data.create(fast_run.assets_dirs, fast_run.model).model_transforms.inputs
    sample = FourScenes(fast_run.model)[1]
    asked, told = (
        _model.Observation.from_dict(jax.tree.map(lambda x: np.asarray(x)[None], transforms.compose(chain)(data)))
        for data in ({key: sample[key] for key in sample if key != "actions"}, dict(sample))
    )
    assert told.token_loss_mask.sum() > 6
    assert not told.tokenized_prompt_mask.all()  # nothing was cut
    ours = evaluation.without_answer(told)
    for name in ("tokenized_prompt", "tokenized_prompt_mask", "token_ar_mask", "token_loss_mask"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(asked, name), err_msg=name)


def test_an_observation_without_action_tokens_stays_as_it_is(tiny: Any) -> None:
    observation = tiny.FAKE.model.fake_obs()
    assert evaluation.without_answer(observation) is observation


def test_errors_are_in_robot_units(tiny_run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that always says the mean is off by the distance from the mean, in radians."""
    monkeypatch.setattr(pi0.Pi0, "sample_actions", lambda self, rng, observation: jnp.zeros((12, 4, 14)))
    config = tiny_run("units", batch_size=12, loop=options.LoopOptions(val_fraction=0.25, val_batches=1))
    _, held_out = evaluation.episodes_of(config)
    assert len(held_out) == 1
    values = measure(config, episodes=held_out)
    data = config.data.create(config.assets_dirs, config.model)
    frames = data_loader.create_torch_dataset(data, 4, config.model, episodes=held_out, decode_images=False)
    recorded = np.stack([frames[index]["action"] for index in range(12)])
    error = np.abs(transforms_of_joints(recorded) - data.norm_stats["actions"].mean).mean((0, 1))
    joints = [dim for dim in range(14) if dim not in (6, 13)]
    assert [values[f"val_action_error/{dim}"] for dim in joints] == pytest.approx(error[joints], rel=1e-3)
    assert values["val_loss"] == 0.5


def transforms_of_joints(actions: np.ndarray) -> np.ndarray:
    """ALOHA's joints as pi0 counts them: joints 1 and 2 of each arm point the other way."""
    return actions * np.tile([1, -1, -1, 1, 1, 1, 1], 2)


def test_episodes_of_a_dataset_of_ones_own_are_not_known(fast_run: _config.TrainConfig) -> None:
    for loop in (options.LoopOptions(val_fraction=0.5), options.LoopOptions(episodes=(0,))):
        with pytest.raises(ValueError, match="val_dataset"):
            train_loop.train(dataclasses.replace(fast_run, loop=loop), dataset=FourScenes(fast_run.model))


@pytest.mark.parametrize("loop", [options.LoopOptions(val_fraction=0.5), options.LoopOptions(episodes=(0,))])
def test_made_up_data_has_no_episodes(tiny: Any, loop: options.LoopOptions) -> None:
    with pytest.raises(ValueError, match="no episodes to choose or hold out"):
        evaluation.episodes_of(dataclasses.replace(tiny.FAKE, loop=loop))


def test_chosen_episodes_are_the_ones_trained_on(tiny_run: Any) -> None:
    config = tiny_run("chosen", loop=options.LoopOptions(episodes=(1, 3)))
    assert evaluation.episodes_of(config) == ([1, 3], [])
    split = dataclasses.replace(config, loop=dataclasses.replace(config.loop, val_fraction=0.5))
    training, held_out = evaluation.episodes_of(split)
    assert sorted(training + held_out) == [1, 3]
    assert len(held_out) == 1


def test_too_little_to_measure_on(fast_run: _config.TrainConfig) -> None:
    class Nothing(FourScenes):
        def __len__(self) -> int:
            return 0

    placed = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    with pytest.raises(ValueError, match="0 frames, fewer than the 1 devices"):
        evaluation.create_loader(fast_run, placed, dataset=Nothing(fast_run.model))
