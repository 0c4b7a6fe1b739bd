"""SigLIP in PyTorch; see `openpi.models.siglip`. Module names are those of published checkpoints."""

import torch.nn.functional as F
from torch import Tensor, nn

from openpi.models import siglip

_LAYER_NORM_EPS = 1e-6


class Embeddings(nn.Module):
    """Patches and learned positions, in float32."""

    def __init__(self, config: siglip.Config, num_patches: int) -> None:
        super().__init__()
        self.patch_embedding = nn.Conv2d(3, config.width, config.patch_size, stride=config.patch_size)
        self.position_embedding = nn.Embedding(num_patches, config.width)

    def forward(self, images: Tensor) -> Tensor:
        """[b, 3, h, w] -> [b, patches, width]."""
        patches = self.patch_embedding(images.to(self.patch_embedding.weight.dtype))
        return patches.flatten(2).transpose(1, 2) + self.position_embedding.weight


class SelfAttention(nn.Module):
    """All patches see each other."""

    def __init__(self, config: siglip.Config) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        for name in ("k_proj", "v_proj", "q_proj", "out_proj"):
            setattr(self, name, nn.Linear(config.width, config.width))

    def forward(self, x: Tensor) -> Tensor:
        """[b, n, w] -> [b, n, w]."""
        heads = [
            p(x).unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for p in (self.q_proj, self.k_proj, self.v_proj)
        ]
        return self.out_proj(F.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2))


class MLP(nn.Module):
    """Two dense layers with a GELU between."""

    def __init__(self, config: siglip.Config) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.width, config.mlp_dim)
        self.fc2 = nn.Linear(config.mlp_dim, config.width)

    def forward(self, x: Tensor) -> Tensor:
        """[b, n, w] -> [b, n, w]."""
        return self.fc2(F.gelu(self.fc1(x), approximate="tanh"))


class EncoderLayer(nn.Module):
    """Pre-norm transformer block."""

    def __init__(self, config: siglip.Config) -> None:
        super().__init__()
        self.layer_norm1 = nn.LayerNorm(config.width, eps=_LAYER_NORM_EPS)
        self.self_attn = SelfAttention(config)
        self.layer_norm2 = nn.LayerNorm(config.width, eps=_LAYER_NORM_EPS)
        self.mlp = MLP(config)

    def forward(self, x: Tensor) -> Tensor:
        """[b, n, w] -> [b, n, w]."""
        x = x + self.self_attn(self.layer_norm1(x))
        return x + self.mlp(self.layer_norm2(x))


class VisionModel(nn.Module):
    """Images to tokens of the encoder's width."""

    def __init__(self, config: siglip.Config, image_resolution: tuple[int, int]) -> None:
        super().__init__()
        rows, columns = config.grid(image_resolution)
        self.embeddings = Embeddings(config, rows * columns)
        self.encoder = nn.Module()
        self.encoder.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.depth))
        self.post_layernorm = nn.LayerNorm(config.width, eps=_LAYER_NORM_EPS)

    def forward(self, images: Tensor) -> Tensor:
        """[b, 3, h, w] in [-1, 1] -> [b, patches, width]."""
        x = self.embeddings(images).to(self.post_layernorm.weight.dtype)
        for layer in self.encoder.layers:
            x = layer(x)
        return self.post_layernorm(x)


class VisionTower(nn.Module):
    """The level that checkpoints have above the vision model."""

    def __init__(self, config: siglip.Config, image_resolution: tuple[int, int]) -> None:
        super().__init__()
        self.vision_model = VisionModel(config, image_resolution)

    def forward(self, images: Tensor) -> Tensor:
        """[b, 3, h, w] -> [b, patches, width]."""
        return self.vision_model(images)


class Projector(nn.Module):
    """From the encoder's width to the language model's."""

    def __init__(self, width: int, output_dim: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, output_dim)

    def forward(self, x: Tensor) -> Tensor:
        """[b, n, w] -> [b, n, d]."""
        return self.linear(x)


def is_float32(name: str) -> bool:
    """Whether a parameter stays float32 when the model computes in bfloat16."""
    return "patch_embedding" in name or "position_embedding" in name
