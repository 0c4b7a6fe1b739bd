"""pi0 and pi0.5 in PyTorch; see `openpi.models.pi0` for what they compute."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from openpi.models import gemma, siglip
from openpi.models.model import IMAGE_KEYS
from openpi.models.pi0_config import Pi0Config
from openpi.models_pytorch.gemma_pytorch import KVCache, PaliGemmaWithExpert
from openpi.shared import image_tools

_TIME_MIN_PERIOD = 4e-3
_TIME_MAX_PERIOD = 4.0


def get_safe_dtype(target_dtype: torch.dtype, device_type: str) -> torch.dtype:
    """`target_dtype`, or float32 where the device computes too slowly or not at all in it."""
    slow = {"cpu": (torch.bfloat16,), "mps": (torch.float64,)}
    return torch.float32 if target_dtype in slow.get(device_type, ()) else target_dtype


def create_sinusoidal_pos_embedding(
    time: Tensor, dimension: int, min_period: float, max_period: float, device: torch.device | str = "cpu"
) -> Tensor:
    """Embed times [b] as sines, then cosines, of periods in geometric order: [b, dimension].

    Raises:
        ValueError: `dimension` is odd or `time` is not a vector.
    """
    if dimension % 2:
        raise ValueError(f"dimension is {dimension}; it must be even: half sines, half cosines.")
    if time.ndim != 1:
        raise ValueError(f"time must have shape [batch], not {tuple(time.shape)}.")
    dtype = get_safe_dtype(torch.float64, torch.device(device).type)
    fraction = torch.linspace(0.0, 1.0, dimension // 2, dtype=dtype, device=device)
    angles = time.to(dtype)[:, None] * (2 * math.pi / (min_period * (max_period / min_period) ** fraction))
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


def sample_beta(alpha: float, beta: float, bsize: int, device: torch.device | str) -> Tensor:
    """`bsize` draws of Beta(alpha, beta)."""
    parameters = (torch.tensor(value, dtype=torch.float32, device=device) for value in (alpha, beta))
    return torch.distributions.Beta(*parameters).sample((bsize,))


def make_att_2d_masks(pad_masks: Tensor, att_masks: Tensor) -> Tensor:
    """Which token (row) may see which (column), [b, n, n]; `openpi.models.pi0.make_attn_mask` in torch.

    Raises:
        ValueError: a mask is not [b, n].
    """
    for name, mask in {"pad_masks": pad_masks, "att_masks": att_masks}.items():
        if mask.ndim != 2:
            raise ValueError(f"{name} must have shape [batch, tokens], not {tuple(mask.shape)}.")
    block = torch.cumsum(att_masks.long(), dim=1)
    in_reach = block[:, None, :] <= block[:, :, None]
    return in_reach & pad_masks[:, None, :] & pad_masks[:, :, None]


class Inputs(NamedTuple):
    """An observation as the network wants it."""

    images: list[Tensor]
    image_masks: list[Tensor]
    tokens: Tensor
    token_mask: Tensor
    state: Tensor


class PI0Pytorch(nn.Module):
    """The model; its parameters are those of published `model.safetensors` files."""

    def __init__(self, config: Pi0Config) -> None:
        super().__init__()
        self.config = config
        self.pi05 = config.pi05
        experts = (gemma.get_config(config.paligemma_variant), gemma.get_config(config.action_expert_variant))
        if any(expert.lora_configs for expert in experts):
            raise ValueError("The PyTorch model has no LoRA; use variants without adapters, or the JAX model.")
        self.paligemma_with_expert = PaliGemmaWithExpert(
            experts,
            siglip.get_config(config.vision_variant),
            vocab_size=config.vocab_size,
            image_resolution=config.image_resolution,
            adaptive=config.pi05,
            dtype=config.dtype,
        )
        width = experts[1].width
        self.action_in_proj = nn.Linear(config.action_dim, width)
        self.action_out_proj = nn.Linear(width, config.action_dim)
        if config.pi05:
            self.time_mlp_in = nn.Linear(width, width)
            self.time_mlp_out = nn.Linear(width, width)
        else:
            self.state_proj = nn.Linear(config.action_dim, width)
            self.action_time_mlp_in = nn.Linear(2 * width, width)
            self.action_time_mlp_out = nn.Linear(width, width)
        self._denoise = self.denoise_step
        if config.pytorch_compile_mode is not None and torch.cuda.is_available():
            self._denoise = torch.compile(self.denoise_step, mode=config.pytorch_compile_mode)

    def gradient_checkpointing_enable(self) -> None:
        """Keep only each layer's input for the backward pass (training with less memory)."""
        self.paligemma_with_expert.gradient_checkpointing = True

    def gradient_checkpointing_disable(self) -> None:
        """Keep everything for the backward pass."""
        self.paligemma_with_expert.gradient_checkpointing = False

    def is_gradient_checkpointing_enabled(self) -> bool:
        """Whether `gradient_checkpointing_enable` is in force."""
        return self.paligemma_with_expert.gradient_checkpointing

    def sample_noise(self, shape: Sequence[int], device: torch.device | str) -> Tensor:
        """Standard normal, float32."""
        return torch.randn(tuple(shape), dtype=torch.float32, device=device)

    def sample_time(self, bsize: int, device: torch.device | str) -> Tensor:
        """Training times: Beta(1.5, 1) in (0.001, 1)."""
        return sample_beta(1.5, 1.0, bsize, device) * 0.999 + 0.001

    def embed_prefix(
        self, images: Sequence[Tensor], img_masks: Sequence[Tensor], lang_tokens: Tensor, lang_masks: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens [b, p, d] of images [b, 3, h, w] and prompt, which are there [b, p], and block masks [b, p]."""
        embedded = [self.paligemma_with_expert.embed_image(image) for image in images]
        masks = [mask[:, None].expand(-1, x.shape[1]) for mask, x in zip(img_masks, embedded, strict=True)]
        embedded.append(self.paligemma_with_expert.embed_language_tokens(lang_tokens))
        pad_masks = torch.cat([*masks, lang_masks], dim=1)
        return torch.cat(embedded, dim=1), pad_masks, torch.zeros_like(pad_masks)

    def embed_suffix(
        self, state: Tensor, noisy_actions: Tensor, timestep: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Tokens of state (pi0 only) and actions, masks as in `embed_prefix`, and the norms' condition (pi0.5 only)."""
        actions = self.action_in_proj(noisy_actions)
        time = create_sinusoidal_pos_embedding(
            timestep, actions.shape[-1], _TIME_MIN_PERIOD, _TIME_MAX_PERIOD, timestep.device
        ).to(actions.dtype)
        if self.pi05:
            condition = F.silu(self.time_mlp_out(F.silu(self.time_mlp_in(time))))
            return actions, *_suffix_masks(actions, [1]), condition
        fused = torch.cat([actions, time[:, None].expand_as(actions)], dim=-1)
        fused = self.action_time_mlp_out(F.silu(self.action_time_mlp_in(fused)))
        tokens = torch.cat([self.state_proj(state)[:, None], fused], dim=1)
        return tokens, *_suffix_masks(tokens, [1, 1]), None

    def forward(
        self, observation: Any, actions: Tensor, noise: Tensor | None = None, time: Tensor | None = None
    ) -> Tensor:
        """Squared error of the velocity, [b, action_horizon, action_dim], not averaged."""
        inputs = self._inputs(observation, actions.device)
        noise = self.sample_noise(actions.shape, actions.device) if noise is None else noise
        time = self.sample_time(actions.shape[0], actions.device) if time is None else time
        t = time[:, None, None]
        prefix, prefix_pad, prefix_att = self.embed_prefix(*inputs[:4])
        suffix, suffix_pad, suffix_att, cond = self.embed_suffix(inputs.state, t * noise + (1 - t) * actions, time)
        pad = torch.cat([prefix_pad, suffix_pad], dim=1)
        mask = make_att_2d_masks(pad, torch.cat([prefix_att, suffix_att], dim=1))
        positions = torch.cumsum(pad, dim=1) - 1
        outputs, _ = self.paligemma_with_expert([prefix, suffix], positions, mask, [None, cond])
        return F.mse_loss(self._project(outputs[1]), noise - actions, reduction="none")

    @torch.no_grad()
    def sample_actions(
        self, device: torch.device | str, observation: Any, noise: Tensor | None = None, num_steps: int = 10
    ) -> Tensor:
        """Sample action chunks [b, action_horizon, action_dim]; the prefix is read once."""
        inputs = self._inputs(observation, device)
        shape = (inputs.state.shape[0], self.config.action_horizon, self.config.action_dim)
        x_t = self.sample_noise(shape, device) if noise is None else noise.to(device, torch.float32)
        prefix, pad, att = self.embed_prefix(*inputs[:4])
        positions = torch.cumsum(pad, dim=1) - 1
        _, cache = self.paligemma_with_expert([prefix, None], positions, make_att_2d_masks(pad, att))
        time = torch.ones(shape[0], device=device)
        for _ in range(num_steps):
            x_t = x_t - self._denoise(inputs.state, pad, cache, x_t, time) / num_steps
            time = time - 1.0 / num_steps
        return x_t

    def denoise_step(
        self, state: Tensor, prefix_pad_masks: Tensor, past_key_values: KVCache, x_t: Tensor, timestep: Tensor
    ) -> Tensor:
        """The velocity at x_t and `timestep`, with the prefix from its cache."""
        suffix, pad, att, cond = self.embed_suffix(state, x_t, timestep)
        sees_prefix = prefix_pad_masks[:, None].expand(-1, suffix.shape[1], -1)
        mask = torch.cat([sees_prefix, make_att_2d_masks(pad, att)], dim=2)
        positions = prefix_pad_masks.sum(dim=1, keepdim=True) + torch.cumsum(pad, dim=1) - 1
        outputs, _ = self.paligemma_with_expert([None, suffix], positions, mask, [None, cond], past_key_values)
        return self._project(outputs[1])

    def _project(self, suffix_out: Tensor | None) -> Tensor:
        if suffix_out is None:
            raise ValueError("The action expert gave no output: it had no tokens.")
        return self.action_out_proj(suffix_out[:, -self.config.action_horizon :].to(self.action_out_proj.weight.dtype))

    def _inputs(self, observation: Any, device: torch.device | str) -> Inputs:
        """Tensors on the device, images [b, 3, h, w] of the model's resolution.

        Raises:
            ValueError: a camera or the prompt is missing.
        """
        if missing := [key for key in IMAGE_KEYS if key not in observation.images]:
            raise ValueError(f"The images of {missing} are missing; the observation has {list(observation.images)}.")
        if observation.tokenized_prompt is None:
            raise ValueError("The PyTorch model needs a tokenized prompt; TokenizePrompt makes it.")
        state = _tensor(observation.state, device).float()
        everywhere = torch.ones(state.shape[0], dtype=torch.bool, device=device)
        return Inputs(
            images=[self._image(_tensor(observation.images[key], device)) for key in IMAGE_KEYS],
            image_masks=[_tensor(observation.image_masks.get(key, everywhere), device) for key in IMAGE_KEYS],
            tokens=_tensor(observation.tokenized_prompt, device).long(),
            token_mask=_tensor(observation.tokenized_prompt_mask, device),
            state=state,
        )

    def _image(self, image: Tensor) -> Tensor:
        """[b, h, w, 3] or [b, 3, h, w] -> [b, 3, h, w] of the model's resolution."""
        image = image if image.shape[1] == 3 else image.permute(0, 3, 1, 2)
        if tuple(image.shape[-2:]) != tuple(self.config.image_resolution):
            resized = image_tools.resize_with_pad_torch(image.permute(0, 2, 3, 1), *self.config.image_resolution)
            image = resized.permute(0, 3, 1, 2)
        return image


def _tensor(value: Any, device: torch.device | str) -> Tensor:
    return torch.as_tensor(value).to(device)


def _suffix_masks(tokens: Tensor, starts: list[int]) -> tuple[Tensor, Tensor]:
    pad = torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
    att = torch.zeros_like(pad)
    att[:, : len(starts)] = True
    return pad, att
