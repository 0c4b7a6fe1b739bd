"""PolaRiS: DROID policies in joint positions, co-trained on the PolaRiS simulation data (RLDS)."""

import dataclasses

from openpi.models import model, pi0_config, pi0_fast
from openpi.training import weight_loaders
from openpi.training.configs import droid
from openpi.training.data_config import AssetsConfig, DroidActionSpace, RLDSDataset
from openpi.training.train_config import TrainConfig

MIXTURE = (
    dataclasses.replace(droid.DROID_RLDS, weight=0.9),
    RLDSDataset(
        name="polaris_droid_cotrain_dataset",
        version="1.0.0",
        weight=0.1,
        filter_dict_path="gs://openpi-assets/droid/polaris_droid_cotrain_dataset_sample_ranges_v1_0_0.json",
    ),
)


def _polaris(name: str, model_config: model.BaseModelConfig) -> TrainConfig:
    checkpoint = f"gs://openpi-assets/checkpoints/polaris/{name}"
    return TrainConfig(
        name=name,
        model=model_config,
        data=droid.RLDSDroidDataConfig(
            assets=AssetsConfig(assets_dir=f"{checkpoint}/assets", asset_id="droid"),
            rlds_data_dir=droid.RLDS_DIR,
            action_space=DroidActionSpace.JOINT_POSITION,
            datasets=MIXTURE,
        ),
        weight_loader=weight_loaders.CheckpointWeightLoader(f"{checkpoint}/params"),
        lr_schedule=droid.CONSTANT_LR,
        num_train_steps=1_000,
        batch_size=128,
        keep_period=1_000,
        num_workers=0,
    )


CONFIGS = [
    _polaris("pi05_droid_jointpos_polaris", pi0_config.Pi0Config(pi05=True, action_horizon=15)),
    _polaris(
        "pi0_fast_droid_jointpos_polaris",
        pi0_fast.Pi0FASTConfig(action_dim=8, action_horizon=10, max_token_len=180),
    ),
    _polaris("pi0_droid_jointpos_polaris", pi0_config.Pi0Config(action_horizon=10, max_token_len=100)),
    _polaris("pi0_droid_jointpos_100k_polaris", pi0_config.Pi0Config(action_horizon=10, max_token_len=100)),
]
