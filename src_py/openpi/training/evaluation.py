"""Validation while training: loss and action error on episodes that were held out."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.experimental import multihost_utils

from openpi import transforms as _transforms
from openpi.models import model as _model
from openpi.training import config as _config
from openpi.training import data_loader, train_step, utils
from openpi.training.datasets import LeRobotDataset
from openpi.training.datasets.errors import DatasetError


def split_episodes(episodes: Sequence[int], fraction: float, seed: int) -> tuple[list[int], list[int]]:
    """Training and held-out episodes, drawn by `seed`; at least one is held out if the fraction is above 0.

    Raises:
        ValueError: nothing would be left to train on.
    """
    if not fraction:
        return list(episodes), []
    count = max(1, round(len(episodes) * fraction))
    if count >= len(episodes):
        raise ValueError(f"val_fraction {fraction} holds out {count} of {len(episodes)} episodes: none are left.")
    drawn = set(np.random.default_rng(seed).permutation(len(episodes))[:count].tolist())
    held_out = [episode for place, episode in enumerate(episodes) if place in drawn]
    return [episode for place, episode in enumerate(episodes) if place not in drawn], held_out


def episodes_of(config: _config.TrainConfig) -> tuple[list[int] | None, list[int]]:
    """The episodes to train on (None: all there are) and those held out, as the config asks for it.

    Raises:
        ValueError: episodes are chosen or held out of data without episodes.
    """
    fraction, chosen = config.loop.val_fraction, config.loop.episodes
    if not fraction and chosen is None:
        return None, []
    data_config = config.data.create(config.assets_dirs, config.model)
    if data_config.repo_id in (None, "fake") or data_config.rlds_data_dir is not None:
        reason = "it has no episodes to choose or hold out; leave --loop.episodes and --loop.val-fraction away."
        raise DatasetError(str(data_config.rlds_data_dir or data_config.repo_id), reason)
    if not fraction:
        return list(chosen or ()), []
    return split_episodes([episode.index for episode in _numbers(config, chosen).episodes], fraction, config.seed)


def create_loader(
    config: _config.TrainConfig,
    sharding: jax.sharding.Sharding,
    *,
    episodes: Sequence[int] = (),
    dataset: data_loader.Dataset | None = None,
) -> data_loader.DataLoader:
    """`val_batches` batches of held-out episodes, or of a dataset of one's own: the same ones at every pass.

    A batch has the training's size, or less where there are fewer frames than that.

    Raises:
        DatasetError: there are fewer frames than devices.
    """
    frames = len(_numbers(config, episodes) if dataset is None else dataset)
    size = min(config.batch_size, frames // jax.device_count() * jax.device_count())
    if not size:
        reason = f"what is held out has {frames} frames, fewer than the {jax.device_count()} devices; hold out more."
        raise DatasetError(str(getattr(config.data, "repo_id", dataset)), reason)
    return data_loader.create_data_loader(
        # Read in the background of this process: its own workers would idle between validations.
        dataclasses.replace(config, num_workers=0, batch_size=size),
        sharding=sharding,
        shuffle=True,
        num_batches=config.loop.val_batches,
        dataset=dataset,
        episodes=episodes,
        on_bad=config.loop.on_bad_data,
    )


def _numbers(config: _config.TrainConfig, episodes: Sequence[int] | None) -> LeRobotDataset:
    data_config = config.data.create(config.assets_dirs, config.model)
    return LeRobotDataset(str(data_config.repo_id), episodes=episodes, image_keys=(), on_bad=config.loop.on_bad_data)


class Evaluator:
    """Measures a state on held-out batches: the same ones, with the same noise, every time.

    Args:
        config: the training config.
        loader: yields the held-out batches; its transforms are undone for the error in robot units.
        state_sharding: where the state's arrays lie.
        data_sharding: where the batch lies.
    """

    def __init__(
        self,
        config: _config.TrainConfig,
        loader: data_loader.DataLoader,
        state_sharding: utils.TrainState,
        data_sharding: jax.sharding.Sharding,
    ) -> None:
        data_config = loader.data_config()
        self._batches: Iterable[train_step.Batch] = loader
        self._rng = jax.random.key(config.seed)
        unnormalize = _transforms.Unnormalize(data_config.norm_stats or {}, use_quantiles=data_config.use_quantile_norm)
        to_robot = [unnormalize, *data_config.data_transforms.outputs]
        self._recorded_to_robot = _transforms.compose(to_robot)
        self._sampled_to_robot = _transforms.compose([*data_config.model_transforms.outputs, *to_robot])
        replicated = jax.sharding.NamedSharding(data_sharding.mesh, jax.sharding.PartitionSpec())  # type: ignore[attr-defined]
        params_sharding = state_sharding.params
        self._measure = jax.jit(
            _measure,
            static_argnums=0,
            in_shardings=(params_sharding, replicated, data_sharding),
            out_shardings=(replicated, data_sharding),
        )

    def __call__(self, state: utils.TrainState) -> dict[str, float]:
        """`val_loss`, and the mean absolute action error in robot units, `val_action_error` and by dimension
        `val_action_error/<dim>`, over the whole chunk and all processes' samples. The averaged weights are measured
        where there are some.
        """
        params = state.params if state.ema_params is None else state.ema_params
        losses, errors = [], []
        for number, batch in enumerate(self._batches):
            rng = jax.random.fold_in(self._rng, number)
            loss, sampled = self._measure(state.model_def, params, rng, batch)
            losses.append(float(loss))
            local = self._errors(*jax.tree.map(local_rows, (sampled, batch)))
            errors.append(multihost_utils.process_allgather(local, tiled=True))
        by_dim = np.mean(np.concatenate(errors), axis=(0, 1))
        return {
            "val_loss": float(np.mean(losses)),
            "val_action_error": float(by_dim.mean()),
            **{f"val_action_error/{dim}": float(error) for dim, error in enumerate(by_dim)},
        }

    def _errors(self, sampled: np.ndarray, batch: Any) -> np.ndarray:
        """[B, H, D] absolute differences in robot units, of this process's samples."""
        observation, recorded = batch
        pairs = zip(sampled, recorded, observation.state, strict=True)
        return np.stack([np.abs(self._robot(True, a, state) - self._robot(False, b, state)) for a, b, state in pairs])

    def _robot(self, is_sample: bool, actions: np.ndarray, state: np.ndarray) -> np.ndarray:
        transform = self._sampled_to_robot if is_sample else self._recorded_to_robot
        return np.asarray(transform({"actions": np.array(actions), "state": np.array(state)})["actions"])


def local_rows(array: Any) -> np.ndarray:
    """This process's rows of a batch."""
    shards = {shard.index[0].start or 0: shard.data for shard in array.addressable_shards}
    return np.concatenate([np.asarray(shards[start]) for start in sorted(shards)])


def _measure(
    model_def: nnx.GraphDef, params: nnx.State, rng: jax.Array, batch: train_step.Batch
) -> tuple[jax.Array, _model.Actions]:
    observation, actions = batch
    model = nnx.merge(model_def, params)
    model.eval()
    loss_rng, sample_rng = jax.random.split(rng)
    loss = jnp.mean(model.compute_loss(loss_rng, observation, actions, train=False))
    return loss, model.sample_actions(sample_rng, without_answer(observation))


def without_answer(observation: _model.Observation) -> _model.Observation:
    """The observation as at inference: pi0-FAST's prompt, which in training goes on with the actions, ends before."""
    if observation.token_ar_mask is None or observation.tokenized_prompt is None:
        return observation
    is_prompt = (observation.token_ar_mask == 0) & observation.tokenized_prompt_mask
    return dataclasses.replace(
        observation,
        tokenized_prompt=jnp.where(is_prompt, observation.tokenized_prompt, 0),
        tokenized_prompt_mask=is_prompt,
        token_ar_mask=jnp.zeros_like(observation.token_ar_mask),
        token_loss_mask=jnp.zeros_like(is_prompt),
    )
