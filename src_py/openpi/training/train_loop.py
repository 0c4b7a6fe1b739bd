"""`train`: from a config to checkpoints. Every step depends on the config and the step number alone, so that a run
that is killed and resumed gives the same losses as one that is not."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import functools
import logging
import pathlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from PIL import Image

from openpi.training import batching, checkpoints, data_loader, evaluation, metrics, train_state, train_step, utils
from openpi.training import config as _config
from openpi.training import sharding as _sharding

logger = logging.getLogger(__name__)

FIRST_BATCH_FILE = "first_batch.png"
_PREVIEW_SAMPLES = 5


def train(
    config: _config.TrainConfig,
    *,
    dataset: data_loader.Dataset | None = None,
    on_step: Callable[[int, dict[str, Any]], None] | None = None,
) -> utils.TrainState:
    """Run the config to its last step, resuming where `config.resume` finds a checkpoint.

    Args:
        dataset: a dataset of one's own (`__len__`, `__getitem__`) instead of the config's `repo_id`.
        on_step: called after every step with its number and its numbers (arrays on the device).

    Returns:
        The state after the last step.

    Raises:
        ValueError: the batch does not split over devices, processes or accumulation steps; or no statistics.
        FileExistsError: the run's folder exists, and neither overwrite nor resume is set.
    """
    _check_batch_size(config)
    train_rng, init_rng = jax.random.split(jax.random.key(config.seed))
    mesh = _sharding.make_mesh(config.fsdp_devices)
    data_sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(_sharding.DATA_AXIS))
    training, held_out = evaluation.episodes_of(config) if dataset is None else (None, [])
    make_loader = functools.partial(_make_loader, config, data_sharding, episodes=training, dataset=dataset)
    # Made once before anything is written or deleted, so that an error in the data leaves an existing run alone.
    loader = make_loader(start_batch=0)
    manager, resuming = checkpoints.initialize_checkpoint_dir(
        config.checkpoint_dir,
        keep_period=config.keep_period,
        overwrite=config.overwrite,
        resume=config.resume,
        keep_last=config.loop.keep_last,
    )
    state, state_sharding = train_state.init_train_state(config, init_rng, mesh, resume=resuming)
    if resuming:
        placed = jax.tree.map(_placed, state, state_sharding)
        state = checkpoints.restore_state(manager, placed, loader)
        loader = make_loader(start_batch=int(state.step))
    start = int(state.step)
    run = _Run(config, mesh, data_sharding, state_sharding, manager, loader, start, resuming, on_step)
    if held_out:
        run.evaluator = evaluation.Evaluator(
            config, _validation_loader(config, data_sharding, held_out), state_sharding, data_sharding
        )
    try:
        return run.loop(state, train_rng)
    finally:
        run.close()


def _check_batch_size(config: _config.TrainConfig) -> None:
    parts = jax.device_count() * config.loop.grad_accum_steps
    if config.batch_size % parts:
        raise ValueError(
            f"batch_size {config.batch_size} is no multiple of {parts}, the {jax.device_count()} devices times "
            f"{config.loop.grad_accum_steps} accumulation steps."
        )


def _make_loader(
    config: _config.TrainConfig, sharding: jax.sharding.Sharding, *, start_batch: int, **kwargs: Any
) -> data_loader.DataLoader:
    return data_loader.create_data_loader(
        config, sharding=sharding, shuffle=True, on_bad=config.loop.on_bad_data, start_batch=start_batch, **kwargs
    )


def _validation_loader(
    config: _config.TrainConfig, sharding: jax.sharding.Sharding, episodes: list[int]
) -> data_loader.DataLoader:
    # Read in the background of this process: validation is rare, and its own workers would idle the rest of the time.
    return data_loader.create_data_loader(
        dataclasses.replace(config, num_workers=0, batch_size=evaluation.batch_size(config, episodes)),
        sharding=sharding,
        shuffle=True,
        num_batches=config.loop.val_batches,
        episodes=episodes,
        on_bad=config.loop.on_bad_data,
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
        loader: data_loader.DataLoader,
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
        self.watcher = concurrent.futures.ThreadPoolExecutor(1)

    def loop(self, state: utils.TrainState, rng: jax.Array) -> utils.TrainState:
        config = self.config
        if self.start >= config.num_train_steps:
            logger.info("The run has all of its %d steps already.", config.num_train_steps)
            return state
        with batching.closing(iter(self.loader)) as batches:
            return self._steps(state, rng, batches)

    def _steps(self, state: utils.TrainState, rng: jax.Array, batches: Iterator[train_step.Batch]) -> utils.TrainState:
        config = self.config
        batch = next(batches)
        if self.start == 0 and self.is_main:
            self._save_preview(batch)
        for step in range(self.start, config.num_train_steps):
            with _sharding.set_mesh(self.mesh):
                state, info = self.step(rng, state, batch)
            # The step runs on while the next batch is fetched.
            batch, waited_s = _next_batch(batches, info, self.watcher, last=step + 1 == config.num_train_steps)
            self.averages.add(info, waited_s)
            self.on_step(step, info)
            self._report(step, state)
            if _is_due(step, config.save_interval, self.start) or step + 1 == config.num_train_steps:
                checkpoints.save_state(self.manager, state, self.loader, step)
        self.manager.wait_until_finished()
        return state

    def close(self) -> None:
        self.watcher.shutdown()
        if self.line is not None:
            self.line.close()
        for sink in self.sinks:
            sink.close()
        self.manager.close()

    def _report(self, step: int, state: utils.TrainState) -> None:
        if step % self.config.log_interval == 0 or step + 1 == self.config.num_train_steps:
            values = self.averages.take(self.config.batch_size)
            self._log(step, values)
            if self.line is not None:
                self.line.update(step + 1, values)
        elif self.line is not None:
            self.line.tick(step + 1)
        if self.evaluator is not None and _is_due(step, self.config.loop.val_interval, self.start):
            self._log(step, self.evaluator(state))

    def _log(self, step: int, values: dict[str, float]) -> None:
        skipped = getattr(self.loader, "skipped", 0)
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


def _is_due(step: int, interval: int, start: int) -> bool:
    return step % interval == 0 and step > start


def _next_batch(
    batches: Iterator[Any], info: dict[str, Any], watcher: concurrent.futures.Executor, *, last: bool
) -> tuple[Any, float]:
    """The next batch, and for how many seconds the devices waited for it after the step of `info` was done."""
    if last:
        return None, 0.0
    done = watcher.submit(_time_when_ready, info["loss"])
    batch = next(batches)
    arrived = time.monotonic()
    return batch, max(0.0, arrived - done.result()) if info["loss"].is_ready() else 0.0


def _time_when_ready(array: jax.Array) -> float:
    array.block_until_ready()
    return time.monotonic()


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
        try:
            sinks.append(
                metrics.WandbSink(
                    folder,
                    project=config.project_name,
                    name=config.exp_name,
                    config=dataclasses.asdict(config),
                    mode=config.loop.wandb_mode,
                    resume=resuming,
                )
            )
        except ImportError as error:
            logger.warning("%s Numbers go to %s only.", error, folder / metrics.METRICS_FILE)
    return sinks
