"""ALOHA, two arms with grippers: the released policies, fine-tuning on pen uncapping, and simulation."""

import dataclasses
import pathlib

import tyro

from openpi import transforms
from openpi.models import model, pi0_config
from openpi.policies import aloha_policy
from openpi.training import data_config, weight_loaders
from openpi.training.configs import small
from openpi.training.data_config import AssetsConfig, DataConfig
from openpi.training.train_config import TrainConfig

# Six joints relative to the state and an absolute gripper, left and right.
DELTA_MASK = transforms.make_bool_mask(6, -1, 6, -1)

# The released policies expect the arms to start here: shoulders back, elbows up (rad).
RESET_POSE = {"reset_pose": [0, -1.5, 1.5, 0, 0, 0]}


def repack(**cameras: str) -> transforms.Group:
    """Maps the data set's keys to those of the ALOHA transforms; camera=key in the data set."""
    structure = {"images": cameras, "state": "observation.state", "actions": "action"}
    return transforms.Group(inputs=[transforms.RepackTransform(structure)])


@dataclasses.dataclass(frozen=True)
class LeRobotAlohaDataConfig(data_config.DataConfigFactory):
    """LeRobot data sets of ALOHA.

    Attributes:
        use_delta_joint_actions: the model learns joint targets relative to the state; grippers stay absolute.
        default_prompt: for data without one.
        adapt_to_pi: convert joint signs and gripper to the space the base models were trained in.
    """

    use_delta_joint_actions: bool = True
    default_prompt: str | None = None
    adapt_to_pi: bool = True
    repack_transforms: tyro.conf.Suppress[transforms.Group] = dataclasses.field(
        default=repack(cam_high="observation.images.top")
    )
    action_sequence_keys: tuple[str, ...] = ("action",)

    def create(self, assets_dirs: pathlib.Path, model_config: model.BaseModelConfig) -> DataConfig:
        robot = transforms.Group(
            inputs=[aloha_policy.AlohaInputs(adapt_to_pi=self.adapt_to_pi)],
            outputs=[aloha_policy.AlohaOutputs(adapt_to_pi=self.adapt_to_pi)],
        )
        if self.use_delta_joint_actions:
            robot = data_config.with_delta_actions(robot, DELTA_MASK)
        return dataclasses.replace(
            self.create_base_config(assets_dirs, model_config),
            repack_transforms=self.repack_transforms,
            data_transforms=robot,
            model_transforms=self.around_model(model_config, self.default_prompt),
            action_sequence_keys=self.action_sequence_keys,
        )


def _released(name: str, *, prompt: str | None = None, pi05: bool = False) -> TrainConfig:
    """A released policy, for inference only."""
    return TrainConfig(
        name=name,
        model=pi0_config.Pi0Config(pi05=pi05),
        data=LeRobotAlohaDataConfig(assets=AssetsConfig(asset_id="trossen"), default_prompt=prompt),
        policy_metadata=RESET_POSE,
    )


def _pen_uncap(name: str, base: str) -> TrainConfig:
    """Fine-tuning of a base model on the published pen uncapping data, with the base model's statistics."""
    pi05 = base == "pi05_base"
    return TrainConfig(
        name=name,
        model=pi0_config.Pi0Config(pi05=pi05),
        data=LeRobotAlohaDataConfig(
            repo_id="physical-intelligence/aloha_pen_uncap_diverse",
            assets=AssetsConfig(assets_dir=f"gs://openpi-assets/checkpoints/{base}/assets", asset_id="trossen"),
            default_prompt="uncap the pen",
            repack_transforms=repack(
                cam_high="observation.images.cam_high",
                cam_left_wrist="observation.images.cam_left_wrist",
                cam_right_wrist="observation.images.cam_right_wrist",
            ),
        ),
        weight_loader=weight_loaders.CheckpointWeightLoader(f"gs://openpi-assets/checkpoints/{base}/params"),
        num_train_steps=20_000,
        batch_size=64 if pi05 else 32,
    )


def _sim_small() -> TrainConfig:
    """A pi0 of under a million parameters on the simulated ALOHA: same path and sizes of input, any computer."""
    return TrainConfig(
        name="pi0_aloha_sim_small",
        model=small.pi0(action_dim=14, action_horizon=50),
        data=LeRobotAlohaDataConfig(
            repo_id="lerobot/aloha_sim_transfer_cube_human",
            default_prompt="Transfer cube",
            use_delta_joint_actions=False,
            tokenizer_path=data_config.SMALL_TOKENIZER,
        ),
        batch_size=8,
        num_train_steps=2_000,
        wandb_enabled=False,
    )


CONFIGS = [
    _released("pi0_aloha"),
    _released("pi05_aloha", pi05=True),
    _released("pi0_aloha_towel", prompt="fold the towel"),
    _released("pi0_aloha_tupperware", prompt="open the tupperware and put the food on the plate"),
    _pen_uncap("pi0_aloha_pen_uncap", "pi0_base"),
    _pen_uncap("pi05_aloha_pen_uncap", "pi05_base"),
    TrainConfig(
        name="pi0_aloha_sim",
        data=LeRobotAlohaDataConfig(
            repo_id="lerobot/aloha_sim_transfer_cube_human",
            default_prompt="Transfer cube",
            use_delta_joint_actions=False,
        ),
        weight_loader=weight_loaders.CheckpointWeightLoader("gs://openpi-assets/checkpoints/pi0_base/params"),
        num_train_steps=20_000,
    ),
    _sim_small(),
]
