"""Tiny models on made-up data: whether a training loop runs at all, within seconds."""

from typing import Any

from openpi.models import pi0_config
from openpi.training import weight_loaders
from openpi.training.data_config import FakeDataConfig
from openpi.training.train_config import TrainConfig


def _debug(name: str, *, pi05: bool = False, **kwargs: Any) -> TrainConfig:
    return TrainConfig(
        name=name,
        data=FakeDataConfig(),
        model=pi0_config.Pi0Config(pi05=pi05, paligemma_variant="dummy", action_expert_variant="dummy"),
        batch_size=2,
        num_train_steps=10,
        overwrite=True,
        wandb_enabled=False,
        **kwargs,
    )


CONFIGS = [
    _debug("debug", exp_name="debug", save_interval=100),
    _debug(
        "debug_restore",
        exp_name="debug",
        weight_loader=weight_loaders.CheckpointWeightLoader("./checkpoints/debug/debug/9/params"),
    ),
    _debug("debug_pi05", exp_name="debug_pi05", pi05=True),
]
