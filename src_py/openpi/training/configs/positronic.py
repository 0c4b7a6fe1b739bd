"""Positronic's workflow: any arm whose data an `openpi.codecs` codec wrote, pi0.5 with LoRA on one GPU."""

import dataclasses
import pathlib

from openpi import transforms
from openpi.codecs import codec
from openpi.models import model, pi0_config
from openpi.policies import arrays, libero_policy
from openpi.training import data_config, optimizer, weight_loaders
from openpi.training.data_config import AssetsConfig, DataConfig
from openpi.training.train_config import TrainConfig

# The codecs' actions: pose as position 3 and quaternion 4, or 7 joints; then the grip.
ACTION_DIM = 8


@dataclasses.dataclass(frozen=True)
class LeadingActions(transforms.DataTransformFn):
    """Model actions [h, d >= dims] -> the robot's [h, dims]."""

    dims: int

    def __call__(self, data: transforms.DataDict) -> transforms.DataDict:
        return {"actions": arrays.leading(data["actions"], self.dims)}


@dataclasses.dataclass(frozen=True)
class LeRobotCodecDataConfig(data_config.DataConfigFactory):
    """A LeRobot data set written by a codec: two cameras, a state of the codec's length, absolute actions.

    Attributes:
        action_dim: values of an action.
    """

    action_dim: int = ACTION_DIM

    def create(self, assets_dirs: pathlib.Path, model_config: model.BaseModelConfig) -> DataConfig:
        cameras = {codec.GENERIC_IMAGES[signal]: column for signal, column in codec.IMAGE_COLUMNS.items()}
        state = dict.fromkeys(codec.GENERIC_STATE, codec.STATE_COLUMN)
        keys = {**cameras, **state, "actions": codec.ACTION_COLUMN, "prompt": "prompt"}
        return dataclasses.replace(
            self.create_base_config(assets_dirs, model_config),
            repack_transforms=transforms.Group(inputs=[transforms.RepackTransform(keys)]),
            data_transforms=transforms.Group(
                inputs=[libero_policy.LiberoInputs(model_config.model_type)],
                outputs=[LeadingActions(self.action_dim)],
            ),
            model_transforms=self.around_model(model_config),
            action_sequence_keys=(codec.ACTION_COLUMN,),
        )


_PI05_LORA = pi0_config.Pi0Config(pi05=True, paligemma_variant="gemma_2b_lora", action_expert_variant="gemma_300m_lora")

CONFIGS = [
    TrainConfig(
        name="pi05_positronic_lowmem",
        model=_PI05_LORA,
        data=LeRobotCodecDataConfig(
            repo_id="local",  # `openpi train --input-path` names the data set
            assets=AssetsConfig(asset_id="positronic"),
            base_config=DataConfig(prompt_from_task=True),
        ),
        weight_loader=weight_loaders.CheckpointWeightLoader("gs://openpi-assets/checkpoints/pi05_base/params"),
        lr_schedule=optimizer.CosineDecaySchedule(
            warmup_steps=1_000, peak_lr=5e-5, decay_steps=1_000_000, decay_lr=5e-5
        ),
        freeze_filter=_PI05_LORA.get_freeze_filter(),
        ema_decay=None,
    ),
]
