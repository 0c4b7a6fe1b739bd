"""A small pi0 learns four episodes by heart: the whole path from video files to actions is right."""

import dataclasses
from typing import Any

import jax
import numpy as np
import pytest
from flax import nnx

from openpi.models import gemma
from openpi.training import data_loader, metrics, optimizer, train_loop


def overfit(tiny_run: Any, tiny: Any, steps: int) -> tuple[list[dict[str, float]], float]:
    """The logged rows, and the root mean square error of sampled against recorded actions, both normalised."""
    expert = gemma.Config(width=64, depth=2, mlp_dim=128, num_heads=4, num_kv_heads=1, head_dim=16)
    model = dataclasses.replace(tiny.model(), paligemma_variant=expert, action_expert_variant=expert)
    config = tiny_run(
        "overfit",
        model=model,
        batch_size=32,
        num_train_steps=steps,
        log_interval=steps // 10,
        save_interval=steps,
        lr_schedule=optimizer.CosineDecaySchedule(warmup_steps=20, peak_lr=3e-3, decay_steps=steps, decay_lr=1e-5),
    )
    state = train_loop.train(config)
    fitted = nnx.merge(state.model_def, state.params)
    fitted.eval()
    observation, actions = next(iter(data_loader.create_data_loader(config)))
    sampled = jax.jit(lambda key, seen: fitted.sample_actions(key, seen))(jax.random.key(0), observation)
    error = float(np.sqrt(np.mean(np.square(np.asarray(sampled) - np.asarray(actions)))))
    return metrics.read_metrics(config.checkpoint_dir), error


def test_loss_falls(tiny_run: Any, tiny: Any) -> None:
    rows, _ = overfit(tiny_run, tiny, steps=100)
    assert rows[-1]["loss"] < 0.5 * rows[1]["loss"]


@pytest.mark.long
@pytest.mark.timeout(1500)
def test_four_episodes_are_learned_by_heart(tiny_run: Any, tiny: Any) -> None:
    rows, error = overfit(tiny_run, tiny, steps=3000)
    print([(row["step"], round(row["loss"], 4), round(row["data_wait_share"], 3)) for row in rows], error)
    assert rows[-1]["loss"] < 0.06
    assert error < 0.1
