"""Configs small enough to train in seconds on one core: `openpi train tests/training/tiny_config.py:tiny ...`."""

import dataclasses

from openpi.models import gemma, lora, pi0_config, pi0_fast, siglip
from openpi.models import tokenizer as _tokenizer
from openpi.training import config as _config
from openpi.training import data_config, optimizer
from openpi.training.configs import positronic

_EXPERT = {"width": 16, "depth": 2, "mlp_dim": 32, "num_heads": 2, "num_kv_heads": 1, "head_dim": 8}
_ADAPTERS = {part: lora.LoRAConfig(rank=2, alpha=2.0) for part in ("attn", "ffn")}


def model(*, adapters: bool = False, **kwargs: object) -> pi0_config.Pi0Config:
    expert = gemma.Config(**_EXPERT, lora_configs=_ADAPTERS if adapters else {})
    return pi0_config.Pi0Config(
        action_dim=14,
        action_horizon=4,
        max_token_len=8,
        dtype="float32",
        paligemma_variant=expert,
        action_expert_variant=gemma.Config(**_EXPERT),
        vision_variant=siglip.Config(width=16, depth=2, mlp_dim=32, num_heads=2, patch_size=(14, 14)),
        vocab_size=2048,
        image_resolution=(28, 28),
        **kwargs,
    )


def fast_model() -> pi0_fast.Pi0FASTConfig:
    """A pi0-FAST with adapters that says its 4 x 14 actions one by one."""
    sizes = model(adapters=True)
    shared = ("action_dim", "action_horizon", "dtype", "paligemma_variant", "vision_variant", "vocab_size")
    return pi0_fast.Pi0FASTConfig(
        **{name: getattr(sizes, name) for name in (*shared, "image_resolution")},
        max_token_len=160,
        fast_model_tokenizer=_tokenizer.BinningTokenizer,
        fast_model_tokenizer_kwargs={"n_bins": 32},
    )


def aloha(repo_id: str) -> _config.LeRobotAlohaDataConfig:
    return _config.LeRobotAlohaDataConfig(
        repo_id=repo_id,
        assets=_config.AssetsConfig(asset_id="tiny"),
        default_prompt="push",
        use_delta_joint_actions=False,
        tokenizer_path=data_config.SMALL_TOKENIZER,
    )


TINY = _config.register_config(
    _config.TrainConfig(
        name="tiny",
        model=model(),
        data=aloha("local"),
        lr_schedule=optimizer.CosineDecaySchedule(warmup_steps=2, peak_lr=3e-3, decay_steps=2000, decay_lr=3e-4),
        batch_size=4,
        num_workers=0,
        num_train_steps=6,
        log_interval=1,
        save_interval=2,
        keep_period=None,
        wandb_enabled=False,
    ),
    replace=True,
)
FAST_LORA = dataclasses.replace(
    TINY, model=fast_model(), freeze_filter=fast_model().get_freeze_filter(), ema_decay=None
)
RAW = _config.register_config(
    dataclasses.replace(TINY, name="tiny_raw", data=dataclasses.replace(aloha("local"), adapt_to_pi=False)),
    replace=True,
)
FAKE = _config.register_config(
    dataclasses.replace(TINY, name="tiny_fake", data=_config.FakeDataConfig(), num_train_steps=4), replace=True
)
POSITRONIC = _config.register_config(
    dataclasses.replace(
        TINY,
        name="tiny_positronic",
        model=dataclasses.replace(model(pi05=True), max_token_len=48),
        data=positronic.LeRobotCodecDataConfig(
            repo_id="local",
            assets=_config.AssetsConfig(asset_id="positronic"),
            base_config=_config.DataConfig(prompt_from_task=True),
            tokenizer_path=data_config.SMALL_TOKENIZER,
        ),
        num_train_steps=2,
    ),
    replace=True,
)
