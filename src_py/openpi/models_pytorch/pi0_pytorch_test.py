import dataclasses
import pathlib
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from openpi.models import gemma, pi0_config, siglip  # noqa: E402
from openpi.models_pytorch import pi0_pytorch, weights  # noqa: E402

EXPERT = gemma.Config(width=16, depth=2, mlp_dim=24, num_heads=4, num_kv_heads=2, head_dim=8)
CONFIG = pi0_config.Pi0Config(
    action_dim=3,
    action_horizon=6,
    max_token_len=5,
    dtype="float32",
    paligemma_variant=EXPERT,
    action_expert_variant=dataclasses.replace(EXPERT, width=12),
    vision_variant=siglip.Config(width=8, depth=1, mlp_dim=12, num_heads=2, patch_size=(14, 14)),
    vocab_size=32,
    image_resolution=(28, 28),
)


@pytest.fixture(scope="module", params=[False, True], ids=["pi0", "pi05"])
def model(request: pytest.FixtureRequest) -> pi0_pytorch.PI0Pytorch:
    torch.manual_seed(0)
    model = pi0_pytorch.PI0Pytorch(dataclasses.replace(CONFIG, pi05=request.param))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.25)
    return model


def observation(batch: int = 2, **changes: Any) -> SimpleNamespace:
    generator = torch.Generator().manual_seed(1)
    names = ("base_0_rgb", "left_wrist_0_rgb", "right_wrist_0_rgb")
    fields = {
        "images": {name: torch.rand(batch, 28, 28, 3, generator=generator) for name in names},
        "image_masks": {name: torch.ones(batch, dtype=torch.bool) for name in names},
        "state": torch.rand(batch, 3, generator=generator),
        "tokenized_prompt": torch.arange(5 * batch).reshape(batch, 5),
        "tokenized_prompt_mask": torch.ones(batch, 5, dtype=torch.bool),
    }
    return SimpleNamespace(**fields | changes)


def test_sampling_integrates_the_velocity_of_the_loss(model: pi0_pytorch.PI0Pytorch) -> None:
    x = noise = torch.randn(2, 6, 3)
    inputs, zeros = observation(), torch.zeros(2, 6, 3)
    for step in range(4):
        # Without actions, the noise that leads to x is x / t, and the loss (v - x / t)^2.
        time = torch.full((2,), 1 - step / 4)
        a_is_zero = model.forward(inputs, zeros, noise=x / time[:, None, None], time=time)
        prefix = model.embed_prefix(*model._inputs(inputs, "cpu")[:4])
        suffix = model.embed_suffix(inputs.state, x, time)
        pad = torch.cat([prefix[1], suffix[1]], dim=1)
        mask = pi0_pytorch.make_att_2d_masks(pad, torch.cat([prefix[2], suffix[2]], dim=1))
        outputs, _ = model.paligemma_with_expert(
            [prefix[0], suffix[0]], torch.cumsum(pad, dim=1) - 1, mask, [None, suffix[3]]
        )
        velocity = model._project(outputs[1])
        torch.testing.assert_close(a_is_zero, (velocity - x / time[:, None, None]) ** 2)
        x = x - velocity / 4
    torch.testing.assert_close(model.sample_actions("cpu", inputs, noise=noise, num_steps=4), x, atol=1e-4, rtol=1e-4)


def test_images_may_have_channels_first_or_last(model: pi0_pytorch.PI0Pytorch) -> None:
    noise, inputs = torch.randn(2, 6, 3), observation()
    first = observation(images={name: image.permute(0, 3, 1, 2) for name, image in inputs.images.items()})
    results = [model.sample_actions("cpu", obs, noise=noise, num_steps=1) for obs in (inputs, first)]
    torch.testing.assert_close(*results)


def test_gradient_checkpointing_changes_no_gradient(model: pi0_pytorch.PI0Pytorch) -> None:
    actions, noise, time = torch.randn(2, 6, 3), torch.randn(2, 6, 3), torch.tensor([0.3, 0.8])
    gradients = []
    for enable in (model.gradient_checkpointing_disable, model.gradient_checkpointing_enable):
        enable()
        model.zero_grad()
        model.train()
        model(observation(), actions, noise=noise, time=time).mean().backward()
        gradients.append(model.action_in_proj.weight.grad.clone())
    assert model.is_gradient_checkpointing_enabled()
    torch.testing.assert_close(*gradients)
    assert gradients[0].abs().max() > 0


def test_missing_camera_and_prompt_are_named(model: pi0_pytorch.PI0Pytorch) -> None:
    images = dict(observation().images)
    del images["right_wrist_0_rgb"]
    with pytest.raises(ValueError, match="right_wrist_0_rgb"):
        model.sample_actions("cpu", observation(images=images))
    with pytest.raises(ValueError, match="TokenizePrompt"):
        model.sample_actions("cpu", observation(tokenized_prompt=None))


def test_bfloat16_keeps_norms_and_patches_wide() -> None:
    model = pi0_pytorch.PI0Pytorch(dataclasses.replace(CONFIG, dtype="bfloat16"))
    wide = {name for name, value in model.named_parameters() if value.dtype == torch.float32}
    assert "paligemma_with_expert.paligemma.model.language_model.layers.0.self_attn.q_proj.weight" not in wide
    assert "paligemma_with_expert.paligemma.model.language_model.norm.weight" in wide
    assert "paligemma_with_expert.gemma_expert.model.layers.1.input_layernorm.weight" in wide
    assert "action_in_proj.weight" in wide
    actions = model.sample_actions("cpu", observation(), num_steps=1)
    assert actions.dtype == torch.float32
    assert actions.isfinite().all()


def test_weights_that_do_not_fit_are_listed(tmp_path: pathlib.Path) -> None:
    from safetensors.torch import save_file

    model = pi0_pytorch.PI0Pytorch(CONFIG)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    state["action_in_proj.bias"] = torch.zeros(5)
    state["extra"] = torch.zeros(1)
    del state["state_proj.bias"]
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="3 places") as error:
        weights.load_safetensors(model, tmp_path / "model.safetensors")
    assert "state_proj.bias is missing" in str(error.value)
    assert "extra is not expected" in str(error.value)
    assert "action_in_proj.bias has shape (5,)" in str(error.value)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        weights.load_safetensors(model, tmp_path / "nowhere")


def test_weights_from_disk(tmp_path: pathlib.Path) -> None:
    from safetensors.torch import save_file

    source = pi0_pytorch.PI0Pytorch(CONFIG)
    heads = "lm_head"
    state = {name: value.clone() for name, value in source.state_dict().items() if heads not in name}
    save_file(state, tmp_path / "model.safetensors")
    model = CONFIG.load_pytorch(SimpleNamespace(model=CONFIG), tmp_path / "model.safetensors")
    for name, value in state.items():
        torch.testing.assert_close(model.state_dict()[name], value)


def test_adapters_are_refused() -> None:
    with pytest.raises(ValueError, match="no LoRA"):
        pi0_pytorch.PI0Pytorch(dataclasses.replace(CONFIG, paligemma_variant="gemma_2b_lora"))


def test_helpers_refuse_what_makes_no_sense() -> None:
    with pytest.raises(ValueError, match="even"):
        pi0_pytorch.create_sinusoidal_pos_embedding(torch.ones(2), 7, 4e-3, 4.0)
    with pytest.raises(ValueError, match="att_masks"):
        pi0_pytorch.make_att_2d_masks(torch.ones(1, 3).bool(), torch.ones(3).bool())
    assert pi0_pytorch.get_safe_dtype(torch.bfloat16, "cpu") == torch.float32
    assert pi0_pytorch.get_safe_dtype(torch.bfloat16, "cuda") == torch.bfloat16
    assert 0 < pi0_pytorch.sample_beta(1.5, 1.0, 4, "cpu").min() < 1


def test_jax_parameters_without_a_place_are_named() -> None:
    with pytest.raises(ValueError, match="lora_a"):
        weights.state_dict_from_jax({"PaliGemma": {"llm": {"layers": {"mlp": {"lora_a": np.zeros(3)}}}}})
