"""A small pi0 and a small pi0-FAST learn episodes by heart: the way from video files to actions is right."""

import dataclasses
import pathlib
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import pytest

from openpi import transforms
from openpi.models import gemma, pi0_fast
from openpi.models import model as _model
from openpi.models.fast_processor import FastActionProcessor
from openpi.training import config as _config
from openpi.training import data_loader, evaluation, metrics, optimizer, options, sharding, train_loop, train_state
from openpi.training.datasets import LeRobotDataset

FRAMES = 48  # of the four episodes: all of them in every batch
EXPERT = gemma.Config(width=64, depth=2, mlp_dim=128, num_heads=4, num_kv_heads=1, head_dim=16)


@pytest.fixture
def optimised() -> Iterator[None]:
    """Compile well: thousands of steps follow."""
    before = jax.config.values["jax_disable_most_optimizations"]
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


def toy(
    tiny_run: Any,
    model: _model.BaseModelConfig,
    *,
    steps: int,
    batch_size: int,
    episodes: tuple[int, ...] | None = None,
) -> _config.TrainConfig:
    """A rate that falls to nothing."""
    return tiny_run(
        "overfit",
        model=model,
        batch_size=batch_size,
        num_train_steps=steps,
        log_interval=steps // 10,
        save_interval=steps,
        loop=options.LoopOptions(keep_in_memory=True, episodes=episodes),
        lr_schedule=optimizer.CosineDecaySchedule(warmup_steps=20, peak_lr=3e-3, decay_steps=steps, decay_lr=1e-5),
    )


def pi0_model(tiny: Any) -> _model.BaseModelConfig:
    """Wider than the other tests'."""
    return dataclasses.replace(tiny.model(), paligemma_variant=EXPERT, action_expert_variant=EXPERT)


def fast_model(tiny: Any, tokenizer: pathlib.Path) -> pi0_fast.Pi0FASTConfig:
    """Sizes of `pi0_model`; a sample is at most 115 tokens long."""
    sizes = pi0_model(tiny)
    shared = ("action_dim", "action_horizon", "dtype", "vision_variant", "vocab_size", "image_resolution")
    return pi0_fast.Pi0FASTConfig(
        **{name: getattr(sizes, name) for name in shared},
        max_token_len=160,
        paligemma_variant=EXPERT,
        fast_model_tokenizer_kwargs={"fast_tokenizer_path": str(tokenizer)},
        decode_as_trained=True,
    )


@pytest.fixture
def fast_tokenizer(tiny_run: Any, tiny: Any, tmp_path: pathlib.Path) -> pathlib.Path:
    """A FAST tokenizer made for the episodes' chunks."""
    config = tiny_run("chunks", model=tiny.model(pi05=True))  # normalises by quantiles, as pi0-FAST does
    data = config.data.create(config.assets_dirs, config.model)
    data = dataclasses.replace(data, model_transforms=transforms.Group())
    recorded = data_loader.create_torch_dataset(data, config.model.action_horizon, config.model)
    chunks = [sample["actions"] for sample in data_loader.transform_dataset(recorded, data)]
    FastActionProcessor.fit(chunks, vocab_size=256).save(tmp_path / "fast")
    return tmp_path / "fast"


class Judge:
    """Measures a state on what it learns, with fixed draws of noise and time: loss, action error in robot units."""

    def __init__(self, config: _config.TrainConfig, *, draws: int) -> None:
        mesh = sharding.make_mesh(1)
        placed = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(sharding.DATA_AXIS))
        self.untrained, shardings = train_state.init_train_state(config, jax.random.key(1), mesh, resume=False)
        loader = data_loader.create_data_loader(
            config, sharding=placed, num_batches=draws, episodes=evaluation.episodes_of(config)[0]
        )
        self.measure = evaluation.Evaluator(config, loader, shardings, placed)

    def __call__(self, state: Any) -> tuple[float, float]:
        values = self.measure(state)
        return values["val_loss"], values["val_action_error"]


def error_of_the_mean(config: _config.TrainConfig) -> float:
    """The action error, in the same units, of always predicting the demonstrations' mean action."""
    actions = LeRobotDataset(config.data.repo_id, image_keys=()).column("action")
    return float(np.abs(actions - actions.mean(0)).mean())


def test_loss_falls(tiny_run: Any, tiny: Any) -> None:
    config = toy(tiny_run, pi0_model(tiny), steps=60, batch_size=8)
    train_loop.train(config)
    rows = metrics.read_metrics(config.checkpoint_dir)
    assert rows[-1]["loss"] < 0.5 * rows[1]["loss"]


@pytest.mark.long
@pytest.mark.timeout(3000)
@pytest.mark.usefixtures("optimised")
def test_four_episodes_are_learned_by_heart(tiny_run: Any, tiny: Any) -> None:
    config = toy(tiny_run, pi0_model(tiny), steps=4000, batch_size=FRAMES)
    judge = Judge(config, draws=32)
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


@pytest.mark.long
@pytest.mark.usefixtures("optimised")
def test_an_episode_is_learned_by_heart_as_tokens(tiny_run: Any, tiny: Any, fast_tokenizer: pathlib.Path) -> None:
    """Greedy decoding says the demonstrated actions, as far as FAST's rounding lets them be said.

    Published decoding does not: it takes the missing wrist cameras for the first tokens of the prefix.
    """
    config = toy(tiny_run, fast_model(tiny, fast_tokenizer), steps=400, batch_size=12, episodes=(0,))
    judge = Judge(config, draws=1)
    loss_before, error_before = judge(judge.untrained)
    state = train_loop.train(config)
    loss, error = judge(state)
    mean = error_of_the_mean(config)
    as_published = dataclasses.replace(config, model=dataclasses.replace(config.model, decode_as_trained=False))
    judge = Judge(as_published, draws=1)
    _, published = judge(state.replace(model_def=judge.untrained.model_def))
    print(f"\nloss {loss_before:.3f} -> {loss:.4f}; action error {error_before:.4f} -> {error:.5f}, mean {mean:.4f}")
    print(f"decoded as published: {published:.4f}")
    assert loss < 0.01
    assert error < 0.1 * mean < published
    assert mean < error_before
