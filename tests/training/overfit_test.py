"""A small pi0 learns four episodes by heart: the whole path from video files to actions is right."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import pytest

from openpi.models import gemma
from openpi.training import config as _config
from openpi.training import data_loader, evaluation, metrics, optimizer, options, sharding, train_loop, train_state
from openpi.training.datasets import LeRobotDataset

FRAMES = 48  # of the four episodes: all of them in every batch


@pytest.fixture
def optimised() -> Iterator[None]:
    """Compile well: thousands of steps follow."""
    before = jax.config.values["jax_disable_most_optimizations"]
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


def toy(tiny_run: Any, tiny: Any, *, steps: int, batch_size: int) -> _config.TrainConfig:
    """A wider model than the other tests', and a rate that falls to nothing."""
    expert = gemma.Config(width=64, depth=2, mlp_dim=128, num_heads=4, num_kv_heads=1, head_dim=16)
    return tiny_run(
        "overfit",
        model=dataclasses.replace(tiny.model(), paligemma_variant=expert, action_expert_variant=expert),
        batch_size=batch_size,
        num_train_steps=steps,
        log_interval=steps // 10,
        save_interval=steps,
        loop=options.LoopOptions(keep_in_memory=True),
        lr_schedule=optimizer.CosineDecaySchedule(warmup_steps=20, peak_lr=3e-3, decay_steps=steps, decay_lr=1e-5),
    )


class Judge:
    """Measures a state on all frames with 32 fixed draws of noise and flow time: loss, action error in robot units."""

    def __init__(self, config: _config.TrainConfig) -> None:
        mesh = sharding.make_mesh(1)
        placed = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(sharding.DATA_AXIS))
        self.untrained, shardings = train_state.init_train_state(config, jax.random.key(1), mesh, resume=False)
        loader = data_loader.create_data_loader(config, sharding=placed, num_batches=32)
        self.measure = evaluation.Evaluator(config, loader, shardings, placed)

    def __call__(self, state: Any) -> tuple[float, float]:
        values = self.measure(state)
        return values["val_loss"], values["val_action_error"]


def error_of_the_mean(config: _config.TrainConfig) -> float:
    """The action error, in the same units, of always predicting the demonstrations' mean action."""
    actions = LeRobotDataset(config.data.repo_id, image_keys=()).column("action")
    return float(np.abs(actions - actions.mean(0)).mean())


def test_loss_falls(tiny_run: Any, tiny: Any) -> None:
    config = toy(tiny_run, tiny, steps=60, batch_size=8)
    train_loop.train(config)
    rows = metrics.read_metrics(config.checkpoint_dir)
    assert rows[-1]["loss"] < 0.5 * rows[1]["loss"]


@pytest.mark.long
@pytest.mark.timeout(3000)
@pytest.mark.usefixtures("optimised")
def test_four_episodes_are_learned_by_heart(tiny_run: Any, tiny: Any) -> None:
    config = toy(tiny_run, tiny, steps=4000, batch_size=FRAMES)
    judge = Judge(config)
    loss_before, error_before = judge(judge.untrained)
    loss, error = judge(train_loop.train(config))
    mean = error_of_the_mean(config)
    rows = [row for row in metrics.read_metrics(config.checkpoint_dir) if "loss" in row]
    waits = [row["data_wait_share"] for row in rows]
    print(f"\nloss {loss_before:.3f} -> {loss:.4f}; action error {error_before:.4f} -> {error:.5f}, mean {mean:.4f}")
    print(f"waited for data: {np.mean(waits[1:]):.2%} of the time; {rows[-1]['samples_per_s']:.0f} samples/s")
    assert loss < 0.01
    assert error < 0.03 * mean
    assert mean < error_before
