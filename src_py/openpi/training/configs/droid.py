"""DROID, a Franka arm: the released policies, fine-tuning on the whole of DROID (RLDS), and on one's own data."""

import dataclasses
import pathlib
from collections.abc import Sequence

from openpi import transforms
from openpi.models import model, pi0_config, pi0_fast
from openpi.policies import droid_policy
from openpi.training import data_config, optimizer, weight_loaders
from openpi.training.configs import small
from openpi.training.data_config import AssetsConfig, DataConfig, DroidActionSpace, RLDSDataset
from openpi.training.train_config import TrainConfig

# Seven joints relative to the state and an absolute gripper.
DELTA_MASK = transforms.make_bool_mask(7, -1)

DROID_ASSETS = AssetsConfig(asset_id="droid")
DROID_RLDS = RLDSDataset(
    name="droid",
    version="1.0.1",
    weight=1.0,
    filter_dict_path="gs://openpi-assets/droid/droid_sample_ranges_v1_0_1.json",
)
RLDS_DIR = "<path_to_droid_rlds_dataset>"

# Constant after the warm-up.
CONSTANT_LR = optimizer.CosineDecaySchedule(warmup_steps=1_000, peak_lr=5e-5, decay_steps=1_000_000, decay_lr=5e-5)


def droid_transforms(model_config: model.BaseModelConfig) -> transforms.Group:
    """Robot inputs and outputs of DROID for the model."""
    return transforms.Group(
        inputs=[droid_policy.DroidInputs(model_config.model_type)], outputs=[droid_policy.DroidOutputs()]
    )


def repack(source: dict[str, str]) -> transforms.Group:
    """Maps the data set's keys (values) to those of the DROID transforms."""
    return transforms.Group(inputs=[transforms.RepackTransform(source)])


@dataclasses.dataclass(frozen=True)
class RLDSDroidDataConfig(data_config.DataConfigFactory):
    """DROID as RLDS (TensorFlow Datasets), the only way to train on all of it.

    Attributes:
        rlds_data_dir: the folder that holds the data sets.
        action_space: which recorded actions; joint positions are learnt relative to the state.
        datasets: the mixture.
    """

    rlds_data_dir: str | None = None
    action_space: DroidActionSpace | None = None
    datasets: Sequence[RLDSDataset] = (DROID_RLDS,)

    def create(self, assets_dirs: pathlib.Path, model_config: model.BaseModelConfig) -> DataConfig:
        if self.rlds_data_dir is None:
            raise ValueError("rlds_data_dir is not set; give the folder that holds the RLDS data sets.")
        robot = droid_transforms(model_config)
        if self.action_space is DroidActionSpace.JOINT_POSITION:
            robot = data_config.with_delta_actions(robot, DELTA_MASK)
        keys = {
            "observation/exterior_image_1_left": "observation/image",
            "observation/wrist_image_left": "observation/wrist_image",
            "observation/joint_position": "observation/joint_position",
            "observation/gripper_position": "observation/gripper_position",
            "actions": "actions",
            "prompt": "prompt",
        }
        return dataclasses.replace(
            self.create_base_config(assets_dirs, model_config),
            repack_transforms=repack(keys),
            data_transforms=robot,
            model_transforms=self.around_model(model_config),
            rlds_data_dir=self.rlds_data_dir,
            action_space=self.action_space,
            datasets=self.datasets,
        )


@dataclasses.dataclass(frozen=True)
class LeRobotDROIDDataConfig(data_config.DataConfigFactory):
    """One's own DROID recordings as a LeRobot data set: joint velocities and absolute gripper, as recorded."""

    def create(self, assets_dirs: pathlib.Path, model_config: model.BaseModelConfig) -> DataConfig:
        keys = {
            "observation/exterior_image_1_left": "exterior_image_1_left",
            "observation/exterior_image_2_left": "exterior_image_2_left",
            "observation/wrist_image_left": "wrist_image_left",
            "observation/joint_position": "joint_position",
            "observation/gripper_position": "gripper_position",
            "actions": "actions",
            "prompt": "prompt",
        }
        return dataclasses.replace(
            self.create_base_config(assets_dirs, model_config),
            repack_transforms=repack(keys),
            data_transforms=droid_transforms(model_config),
            model_transforms=self.around_model(model_config),
        )


def serving_data(*, prompt_from_task: bool = True) -> data_config.SimpleDataConfig:
    """Data of a config that only serves: DROID's transforms and the checkpoint's statistics."""
    return data_config.SimpleDataConfig(
        assets=DROID_ASSETS,
        data_transforms=droid_transforms,
        base_config=DataConfig(prompt_from_task=prompt_from_task),
    )


def _released(name: str, model_config: model.BaseModelConfig) -> TrainConfig:
    """A released policy, for inference only."""
    return TrainConfig(name=name, model=model_config, data=serving_data())


CONFIGS = [
    _released("pi0_droid", pi0_config.Pi0Config(action_horizon=10)),
    _released("pi0_fast_droid", pi0_fast.Pi0FASTConfig(action_dim=8, action_horizon=10)),
    _released("pi05_droid", pi0_config.Pi0Config(action_horizon=15, pi05=True)),
    TrainConfig(
        name="pi0_droid_small",
        model=small.pi0(action_dim=8, action_horizon=10),
        data=dataclasses.replace(serving_data(), tokenizer_path=data_config.SMALL_TOKENIZER),
    ),
    TrainConfig(
        name="pi0_fast_full_droid_finetune",
        model=pi0_fast.Pi0FASTConfig(action_dim=8, action_horizon=16, max_token_len=180),
        data=RLDSDroidDataConfig(repo_id="droid", rlds_data_dir=RLDS_DIR, action_space=DroidActionSpace.JOINT_POSITION),
        weight_loader=weight_loaders.CheckpointWeightLoader("gs://openpi-assets/checkpoints/pi0_fast_base/params"),
        lr_schedule=CONSTANT_LR,
        num_train_steps=100_000,
        batch_size=256,
        save_interval=5_000,
        keep_period=20_000,
        num_workers=0,  # the RLDS loader brings its own parallelism
    ),
    TrainConfig(
        name="pi05_full_droid_finetune",
        model=pi0_config.Pi0Config(pi05=True, action_dim=32, action_horizon=16),
        data=RLDSDroidDataConfig(
            repo_id="droid",
            rlds_data_dir="/mnt/pi-data/kevin",  # as published; set your own with --data.rlds-data-dir
            action_space=DroidActionSpace.JOINT_POSITION,
            assets=AssetsConfig(assets_dir="gs://openpi-assets/checkpoints/pi05_base/assets/", asset_id="droid"),
        ),
        weight_loader=weight_loaders.CheckpointWeightLoader("gs://openpi-assets/checkpoints/pi05_base/params"),
        lr_schedule=CONSTANT_LR,
        num_train_steps=100_000,
        batch_size=256,
        save_interval=5_000,
        keep_period=10_000,
        num_workers=0,
    ),
    TrainConfig(
        name="pi05_droid_finetune",
        model=pi0_config.Pi0Config(pi05=True, action_dim=32, action_horizon=16),
        data=LeRobotDROIDDataConfig(
            repo_id="your_hf_username/my_droid_dataset",
            assets=AssetsConfig(assets_dir="gs://openpi-assets/checkpoints/pi05_droid/assets", asset_id="droid"),
            base_config=DataConfig(prompt_from_task=True),
        ),
        weight_loader=weight_loaders.CheckpointWeightLoader("gs://openpi-assets/checkpoints/pi05_droid/params"),
        num_train_steps=20_000,
    ),
]
