"""`train`: from a config to checkpoints. Every step depends on the config and the step number alone, so that a run
that is killed and resumed gives the same losses as one that is not."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from PIL import Image

from openpi.training import checkpoints, data_loader, evaluation, feeding, metrics, train_state, train_step, utils
from openpi.training import config as _config
from openpi.training import sharding as _sharding

logger = logging.getLogger(__name__)

FIRST_BATCH_FILE = "first_batch.png"
_PREVIEW_SAMPLES = 5


def train(
    config: _config.TrainConfig,
    *,
    dataset: data_loader.Dataset | None = None,
    val_dataset: data_loader.Dataset | None = None,
    on_step: Callable[[int, dict[str, Any]], None] | None = None,
) -> utils.TrainState:
    """Run the config to its last step, resuming where `config.resume` finds a checkpoint.

    Args:
        dataset: a dataset of one's own (`__len__`, `__getitem__`) instead of the config's `repo_id`.
        val_dataset: likewise, to measure loss and action error on; instead of `loop.val_fraction`.
        on_step: called after every step with its number and its numbers (arrays on the device).

    Returns:
        The state after the last step.

    Raises:
        ValueError: the batch does not split over devices, processes or accumulation steps; no statistics; episodes
            are chosen from a dataset of one's own.
        ImportError: a package is missing that the config asks for.
        FileExistsError: the run's folder exists, and neither overwrite nor resume is set.
    """
    _check(config, is_own=dataset is not None or val_dataset is not None)
    train_rng, init_rng = jax.random.split(jax.random.key(config.seed))
    mesh = _sharding.make_mesh(config.fsdp_devices)
    data_sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(_sharding.DATA_AXIS))
    training, held_out = evaluation.episodes_of(config)
    make_loader = functools.partial(_make_loader, config, data_sharding, episodes=training, dataset=dataset)
    # Data and weights are at hand before anything is written or deleted: an error there leaves an existing run alone.
    loader = make_loader(start_batch=0)
    val_loader = None
    if held_out or val_dataset is not None:
        val_loader = evaluation.create_loader(config, data_sharding, episodes=held_out, dataset=val_dataset)
    make_state = functools.partial(train_state.init_train_state, config, init_rng, mesh)
    fresh = None if config.resume else make_state(resume=False)
    manager, resuming = checkpoints.initialize_checkpoint_dir(
        config.checkpoint_dir,
        keep_period=config.keep_period,
        overwrite=config.overwrite,
        resume=config.resume,
        keep_last=config.loop.keep_last,
    )
    state, state_sharding = fresh or make_state(resume=resuming)
    if resuming:
        placed = jax.tree.map(_placed, state, state_sharding)
        state = checkpoints.restore_state(manager, placed, loader)
        skipped = checkpoints.skipped_samples(manager)
        loader = make_loader(start_batch=int(state.step), skipped=skipped)
    run = _Run(config, mesh, data_sharding, state_sharding, manager, loader, int(state.step), resuming, on_step)
    if val_loader is not None:
        run.evaluator = evaluation.Evaluator(config, val_loader, state_sharding, data_sharding)
    try:
        return run.loop(state, train_rng)
    finally:
        run.close()


def _check(config: _config.TrainConfig, *, is_own: bool) -> None:
    """What can be known to go wrong before data and weights are read."""
    parts = jax.device_count() * config.loop.grad_accum_steps
    if config.batch_size % parts:
        raise ValueError(
            f"batch_size {config.batch_size} is no multiple of {parts}, the {jax.device_count()} devices times "
            f"{config.loop.grad_accum_steps} accumulation steps."
        )
    if is_own and (config.loop.val_fraction or config.loop.episodes is not None):
        raise ValueError(
            "loop.val_fraction and loop.episodes choose episodes of the config's data set, and a data set of your own "
            "was given. Leave them away, and give what is to be held out as val_dataset."
        )
    if config.loop.tensorboard:
        metrics.require_tensorboard()
    checkpoints.require_free(config.checkpoint_dir, overwrite=config.overwrite, resume=config.resume)


def _make_loader(
    config: _config.TrainConfig, sharding: jax.sharding.Sharding, *, start_batch: int, **kwargs: Any
) -> data_loader.DataLoaderImpl:
    return data_loader.create_data_loader(
        config, sharding=sharding, shuffle=True, on_bad=config.loop.on_bad_data, start_batch=start_batch, **kwargs
    )


def _placed(shape: Any, sharding: jax.sharding.Sharding) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(np.shape(shape), shape.dtype, sharding=sharding)


class _Run:
    """The loop and what it reports to."""

    def __init__(
        self,
        config: _config.TrainConfig,
        mesh: jax.sharding.Mesh,
        data_sharding: jax.sharding.Sharding,
        state_sharding: Any,
        manager: ocp.CheckpointManager,
        loader: data_loader.DataLoaderImpl,
        start: int,
        resuming: bool,
        on_step: Callable[[int, dict[str, Any]], None] | None,
    ) -> None:
        self.config, self.mesh, self.manager, self.loader, self.start = config, mesh, manager, loader, start
        self.evaluator: evaluation.Evaluator | None = None
        self.on_step = on_step or (lambda step, info: None)
        replicated = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
        self.step = jax.jit(
            functools.partial(train_step.train_step, config),
            in_shardings=(replicated, state_sharding, data_sharding),
            out_shardings=(state_sharding, replicated),
            donate_argnums=(1,),
        )
        self.is_main = jax.process_index() == 0
        self.sinks = _make_sinks(config, start, resuming) if self.is_main else []
        self.line = metrics.ProgressLine(config.num_train_steps, start) if self.is_main else None
        self.averages = metrics.Averager()

    def loop(self, state: utils.TrainState, rng: jax.Array) -> utils.TrainState:
        config = self.config
        if self.start >= config.num_train_steps:
            logger.info("The run has all of its %d steps already.", config.num_train_steps)
            return state
        with contextlib.closing(feeding.Feeder(iter(self.loader))) as feeder:
            return self._steps(state, rng, feeder)

    def _steps(
        self, state: utils.TrainState, rng: jax.Array, feeder: feeding.Feeder[train_step.Batch]
    ) -> utils.TrainState:
        config = self.config
        batch = feeder.next()
        if self.start == 0 and self.is_main:
            self._save_preview(batch)
        for step in range(self.start, config.num_train_steps):
            with _sharding.set_mesh(self.mesh):
                state, info = self.step(rng, state, batch)
            waited_s = 0.0
            if not self._is_last(step):  # the step runs on while the next batch is fetched
                batch, waited_s = feeder.next_after(info["loss"])
            self.averages.add(info, waited_s)
            self.on_step(step, info)
            self._report(step, state)
            if self._is_due(step, config.save_interval):
                checkpoints.save_state(self.manager, state, self.loader, step)
        self.manager.wait_until_finished()
        return state

    def _is_last(self, step: int) -> bool:
        return step + 1 == self.config.num_train_steps

    def _is_due(self, step: int, interval: int) -> bool:
        """What happens at an interval happens after the last step, too, and not after the very first."""
        return self._is_last(step) or (step > 0 and step % interval == 0)

    def close(self) -> None:
        if self.line is not None:
            self.line.close()
        for sink in self.sinks:
            sink.close()
        self.manager.close()

    def _report(self, step: int, state: utils.TrainState) -> None:
        if step == 0 or self._is_due(step, self.config.log_interval):
            values = self.averages.take(self.config.batch_size)
            self._log(step, values)
            if self.line is not None:
                self.line.update(step + 1, values)
        elif self.line is not None:
            self.line.tick(step + 1)
        if self.evaluator is not None and self._is_due(step, self.config.loop.val_interval):
            self._log(step, self.evaluator(state))

    def _log(self, step: int, values: dict[str, float]) -> None:
        skipped = self.loader.skipped_before(step + 1)
        if skipped:
            values = values | {"skipped_samples": skipped}
        for sink in self.sinks:
            sink.scalars(step, values)

    def _save_preview(self, batch: train_step.Batch) -> None:
        """The first samples' cameras side by side, as the model gets them before augmentation."""
        images = preview(batch)
        Image.fromarray(np.concatenate(list(images))).save(self.config.checkpoint_dir / FIRST_BATCH_FILE)
        for sink in self.sinks:
            sink.images(0, "first_batch", images)


def preview(batch: train_step.Batch) -> np.ndarray:
    """Up to five samples, each a row of its cameras: uint8 [N, H, cameras * W, 3]."""
    images = [evaluation.local_rows(image)[:_PREVIEW_SAMPLES] for image in batch[0].images.values()]
    rows = np.concatenate(images, axis=2)
    return np.clip((rows + 1) * 127.5, 0, 255).astype(np.uint8)


def _make_sinks(config: _config.TrainConfig, start: int, resuming: bool) -> list[metrics.Sink]:
    folder: pathlib.Path = config.checkpoint_dir
    sinks: list[metrics.Sink] = [metrics.JsonlSink(folder, start)]
    if config.loop.tensorboard:
        sinks.append(metrics.TensorBoardSink(folder, start))
    if config.wandb_enabled:
        sinks += _wandb_sink(config, resuming)
    return sinks


def _wandb_sink(config: _config.TrainConfig, resuming: bool) -> list[metrics.Sink]:
    """The published configs ask for W&B; a machine without it still trains."""
    folder: pathlib.Path = config.checkpoint_dir
    try:
        sink = metrics.WandbSink(
            folder,
            project=config.project_name,
            name=config.exp_name,
            config=dataclasses.asdict(config),
            mode=config.loop.wandb_mode,
            resume=resuming,
        )
    except Exception as error:
        logger.warning("%s Numbers go to %s only.", error, folder / metrics.METRICS_FILE)
        return []
    return [sink]
