"""Models of under a million parameters with the inputs and outputs of the released ones, for any computer."""

from openpi.models import gemma, pi0_config, siglip


def pi0(*, action_dim: int, action_horizon: int) -> pi0_config.Pi0Config:
    """A pi0 of half a million parameters; give its data `tokenizer_path=data_config.SMALL_TOKENIZER`."""
    transformer = gemma.Config(width=64, depth=2, mlp_dim=128, num_heads=4, num_kv_heads=1, head_dim=16)
    return pi0_config.Pi0Config(
        action_dim=action_dim,
        action_horizon=action_horizon,
        max_token_len=32,
        dtype="float32",
        paligemma_variant=transformer,
        action_expert_variant=transformer,
        vision_variant=siglip.Config(width=64, depth=2, mlp_dim=128, num_heads=4, patch_size=(28, 28)),
        vocab_size=2048,
    )
