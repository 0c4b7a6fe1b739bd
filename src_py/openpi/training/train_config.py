"""`TrainConfig`: one experiment as data."""

import dataclasses
import pathlib
from typing import Any

import tyro
from flax import nnx

from openpi.models import model as _model
from openpi.models import pi0_config
from openpi.training import data_config, options, weight_loaders
from openpi.training import optimizer as _optimizer


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """A named experiment: model, data, optimisation, and where its files go.

    Attributes:
        name: unique in the registry; also a folder's name.
        project_name: W&B project.
        exp_name: names the run; a folder below the config's.
        model: the model's sizes.
        weight_loader: where the weights start from.
        pytorch_weight_path: folder with model.safetensors to start PyTorch training from.
        pytorch_training_precision: "bfloat16" or "float32".
        ema_decay: decay a step of the moving average of the weights, which is what gets deployed; None for none.
        lr_schedule: the learning rate by step.
        optimizer: what moves the weights.
        freeze_filter: selects the parameters that stay as loaded (an `nnx` filter; not on the command line).
        data: makes the data config.
        assets_base_dir: statistics go to <assets_base_dir>/<name>.
        checkpoint_base_dir: checkpoints go to <checkpoint_base_dir>/<name>/<exp_name>.
        seed: of the weights, the order of the data and the noise.
        batch_size: samples a step, over all devices.
        num_workers: processes that load data.
        num_train_steps: optimizer steps in all.
        log_interval: steps between log lines.
        save_interval: steps between checkpoints.
        keep_period: checkpoints at multiples of it are never deleted; None keeps the newest only.
        overwrite: delete an existing checkpoint folder.
        resume: go on from the newest checkpoint.
        wandb_enabled: log to W&B.
        policy_metadata: told to clients by the policy server.
        fsdp_devices: devices that share one copy of the model.
        loop: what the training loop does beyond that: validation, accumulation, logs.
    """

    name: tyro.conf.Suppress[str]
    project_name: str = "openpi"
    exp_name: str = tyro.MISSING
    model: _model.BaseModelConfig = dataclasses.field(default_factory=pi0_config.Pi0Config)
    weight_loader: weight_loaders.WeightLoader = dataclasses.field(default_factory=weight_loaders.NoOpWeightLoader)
    pytorch_weight_path: str | None = None
    pytorch_training_precision: str = "bfloat16"
    lr_schedule: _optimizer.LRScheduleConfig = dataclasses.field(default_factory=_optimizer.CosineDecaySchedule)
    optimizer: _optimizer.OptimizerConfig = dataclasses.field(default_factory=_optimizer.AdamW)
    ema_decay: float | None = 0.99
    freeze_filter: tyro.conf.Suppress[Any] = dataclasses.field(default_factory=nnx.Nothing)
    data: data_config.DataConfigFactory = dataclasses.field(default_factory=data_config.FakeDataConfig)
    assets_base_dir: str = "./assets"
    checkpoint_base_dir: str = "./checkpoints"
    seed: int = 42
    batch_size: int = 32
    num_workers: int = 2
    num_train_steps: int = 30_000
    log_interval: int = 100
    save_interval: int = 1000
    keep_period: int | None = 5000
    overwrite: bool = False
    resume: bool = False
    wandb_enabled: bool = True
    policy_metadata: dict[str, Any] | None = None
    fsdp_devices: int = 1
    loop: options.LoopOptions = dataclasses.field(default_factory=options.LoopOptions, kw_only=True)

    def __post_init__(self) -> None:
        if self.resume and self.overwrite:
            raise ValueError("resume and overwrite exclude each other; give one of them.")

    @property
    def assets_dirs(self) -> pathlib.Path:
        """Where this config's statistics lie."""
        return (pathlib.Path(self.assets_base_dir) / self.name).resolve()

    @property
    def checkpoint_dir(self) -> pathlib.Path:
        """Where this experiment's checkpoints lie.

        Raises:
            ValueError: exp_name is not set.
        """
        if not self.exp_name or self.exp_name is tyro.MISSING:
            raise ValueError(f"The config '{self.name}' has no exp_name yet; give the run one (--exp-name NAME).")
        return (pathlib.Path(self.checkpoint_base_dir) / self.name / self.exp_name).resolve()

    @property
    def trainable_filter(self) -> nnx.filterlib.Filter:
        """Selects the parameters that the optimizer moves: all that are not frozen."""
        return nnx.All(nnx.Param, nnx.Not(self.freeze_filter))
