"""LIBERO, the simulated benchmark: full and low-memory fine-tuning of every model."""

import dataclasses
import pathlib

from openpi import transforms
from openpi.models import model, pi0_config, pi0_fast
from openpi.policies import libero_policy
from openpi.training import data_config, optimizer, weight_loaders
from openpi.training.configs import small
from openpi.training.data_config import DataConfig
from openpi.training.train_config import TrainConfig

# Six pose values relative to the state and an absolute gripper.
DELTA_MASK = transforms.make_bool_mask(6, -1)


@dataclasses.dataclass(frozen=True)
class LeRobotLiberoDataConfig(data_config.DataConfigFactory):
    """LIBERO as a LeRobot data set.

    Attributes:
        extra_delta_transform: subtract the state from the actions although LIBERO's are relative already. The pi0
            and pi0-FAST checkpoints were trained so; new ones should not be.
    """

    extra_delta_transform: bool = False

    def create(self, assets_dirs: pathlib.Path, model_config: model.BaseModelConfig) -> DataConfig:
        keys = {
            "observation/image": "image",
            "observation/wrist_image": "wrist_image",
            "observation/state": "state",
            "actions": "actions",
            "prompt": "prompt",
        }
        robot = transforms.Group(
            inputs=[libero_policy.LiberoInputs(model_config.model_type)], outputs=[libero_policy.LiberoOutputs()]
        )
        if self.extra_delta_transform:
            robot = data_config.with_delta_actions(robot, DELTA_MASK)
        return dataclasses.replace(
            self.create_base_config(assets_dirs, model_config),
            repack_transforms=transforms.Group(inputs=[transforms.RepackTransform(keys)]),
            data_transforms=robot,
            model_transforms=self.around_model(model_config),
        )


def _libero(*, extra_delta_transform: bool) -> LeRobotLiberoDataConfig:
    return LeRobotLiberoDataConfig(
        repo_id="physical-intelligence/libero",
        base_config=DataConfig(prompt_from_task=True),
        extra_delta_transform=extra_delta_transform,
    )


def _base_weights(name: str) -> weight_loaders.CheckpointWeightLoader:
    return weight_loaders.CheckpointWeightLoader(f"gs://openpi-assets/checkpoints/{name}/params")


_PI0_LORA = pi0_config.Pi0Config(paligemma_variant="gemma_2b_lora", action_expert_variant="gemma_300m_lora")
_FAST = pi0_fast.Pi0FASTConfig(action_dim=7, action_horizon=10, max_token_len=180)
_FAST_LORA = dataclasses.replace(_FAST, paligemma_variant="gemma_2b_lora")

CONFIGS = [
    TrainConfig(
        name="pi0_libero",
        data=_libero(extra_delta_transform=True),
        weight_loader=_base_weights("pi0_base"),
    ),
    TrainConfig(
        name="pi0_libero_low_mem_finetune",
        model=_PI0_LORA,
        data=_libero(extra_delta_transform=True),
        weight_loader=_base_weights("pi0_base"),
        freeze_filter=_PI0_LORA.get_freeze_filter(),
        ema_decay=None,  # an average would need the memory that LoRA saves
    ),
    TrainConfig(
        name="pi0_fast_libero",
        model=_FAST,
        data=_libero(extra_delta_transform=True),
        weight_loader=_base_weights("pi0_fast_base"),
    ),
    TrainConfig(
        name="pi0_fast_libero_low_mem_finetune",
        model=_FAST_LORA,
        data=_libero(extra_delta_transform=True),
        weight_loader=_base_weights("pi0_fast_base"),
        freeze_filter=_FAST_LORA.get_freeze_filter(),
        ema_decay=None,
    ),
    TrainConfig(
        name="pi0_libero_small",
        model=small.pi0(action_dim=8, action_horizon=10),
        data=dataclasses.replace(_libero(extra_delta_transform=False), tokenizer_path=data_config.SMALL_TOKENIZER),
        batch_size=8,
        num_train_steps=2_000,
        wandb_enabled=False,
    ),
    TrainConfig(
        name="pi05_libero",
        model=pi0_config.Pi0Config(pi05=True, action_horizon=10, discrete_state_input=False),
        data=_libero(extra_delta_transform=False),
        weight_loader=_base_weights("pi05_base"),
        lr_schedule=optimizer.CosineDecaySchedule(
            warmup_steps=10_000, peak_lr=5e-5, decay_steps=1_000_000, decay_lr=5e-5
        ),
        ema_decay=0.999,
        batch_size=256,
        pytorch_weight_path="/path/to/your/pytorch_weight_path",
    ),
]
