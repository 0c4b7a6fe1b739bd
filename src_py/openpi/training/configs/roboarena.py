"""RoboArena's baselines on DROID: PaliGemma with different ways to make tokens of actions, for inference only."""

from typing import Any

from openpi import transforms
from openpi.models import model, pi0_config, pi0_fast, tokenizer
from openpi.training import data_config
from openpi.training.configs import droid
from openpi.training.train_config import TrainConfig


def _tokens(name: str, *, max_token_len: int, **kwargs: Any) -> TrainConfig:
    """A model that predicts 15 steps of 8 action values as tokens."""
    return TrainConfig(
        name=name,
        model=pi0_fast.Pi0FASTConfig(action_dim=8, action_horizon=15, max_token_len=max_token_len, **kwargs),
        data=droid.serving_data(),
    )


def _absolute_outputs(model_config: model.BaseModelConfig) -> transforms.Group:
    """The checkpoint predicts joint positions relative to the state, which are made absolute."""
    return droid.droid_transforms(model_config).push(outputs=[transforms.AbsoluteActions(droid.DELTA_MASK)])


CONFIGS = [
    _tokens("paligemma_binning_droid", max_token_len=400, fast_model_tokenizer=tokenizer.BinningTokenizer),
    _tokens("paligemma_fast_droid", max_token_len=250),
    _tokens(
        "paligemma_fast_specialist_droid",
        max_token_len=250,
        fast_model_tokenizer=tokenizer.FASTTokenizer,
        fast_model_tokenizer_kwargs={"fast_tokenizer_path": "KarlP/fast_droid_specialist"},
    ),
    _tokens(
        "paligemma_vq_droid",
        max_token_len=250,
        fast_model_tokenizer=tokenizer.FSQTokenizer,
        fast_model_tokenizer_kwargs={"fsq_tokenizer_path": "gs://openpi-assets/tokenizers/droid_fsq_tokenizer"},
    ),
    TrainConfig(
        name="paligemma_diffusion_droid",
        model=pi0_config.Pi0Config(action_dim=8, action_horizon=10),
        data=droid.serving_data(),
    ),
    TrainConfig(
        name="paligemma_binning_droid_jointpos",
        model=pi0_fast.Pi0FASTConfig(
            action_dim=8, action_horizon=15, max_token_len=600, fast_model_tokenizer=tokenizer.BinningTokenizer
        ),
        data=data_config.SimpleDataConfig(assets=droid.DROID_ASSETS, data_transforms=_absolute_outputs),
    ),
]
