"""Gemma experts that share one attention, in PyTorch; see `openpi.models.gemma`.

Module names are those of published checkpoints. Only what the flow models need is here: no LoRA, no decoding.
"""

from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
import torch.nn.functional as F
import torch.utils.checkpoint
from torch import Tensor, nn

from openpi.models import gemma, siglip
from openpi.models_pytorch import siglip_pytorch

# Keys and values per layer, [b, tokens, kv_heads, head_dim] each.
KVCache: TypeAlias = list[tuple[Tensor, Tensor]]

_ROPE_MAX_WAVELENGTH = 10_000
_RMS_NORM_EPS = 1e-6
_MASKED_LOGIT = -2.3819763e38


class RMSNorm(nn.Module):
    """Root-mean-square norm in float32; with `cond_dim`, scale, shift and gate come from a condition (adaRMS)."""

    def __init__(self, width: int, cond_dim: int | None = None) -> None:
        super().__init__()
        if cond_dim is None:
            self.weight = nn.Parameter(torch.zeros(width))
        else:
            self.dense = nn.Linear(cond_dim, 3 * width)
            nn.init.zeros_(self.dense.weight)
        self.adaptive = cond_dim is not None

    def forward(self, x: Tensor, cond: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """The normalised tokens in x's dtype, and the gate for the residual branch."""
        wide = x.float()
        normed = wide * torch.rsqrt(wide.square().mean(dim=-1, keepdim=True) + _RMS_NORM_EPS)
        if not self.adaptive:
            return (normed * (1 + self.weight.float())).to(x.dtype), None
        if cond is None:
            raise ValueError("This norm is adaptive: it needs a condition, but got none.")
        scale, shift, gate = self.dense(cond.to(self.dense.weight.dtype))[:, None].chunk(3, dim=-1)
        return (normed * (1 + scale) + shift).to(x.dtype), gate.to(x.dtype)


class Projections(nn.Module):
    """One expert's queries, keys, values and output."""

    def __init__(self, config: gemma.Config) -> None:
        super().__init__()
        queries, keys = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
        self.head_dim = config.head_dim
        self.q_proj = nn.Linear(config.width, queries, bias=False)
        self.k_proj = nn.Linear(config.width, keys, bias=False)
        self.v_proj = nn.Linear(config.width, keys, bias=False)
        self.o_proj = nn.Linear(queries, config.width, bias=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[b, t, heads, head_dim] each."""
        q, k, v = (p(x).unflatten(-1, (-1, self.head_dim)) for p in (self.q_proj, self.k_proj, self.v_proj))
        return q, k, v


class FeedForward(nn.Module):
    """Gated feed-forward layer."""

    def __init__(self, config: gemma.Config) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.width, config.mlp_dim, bias=False)
        self.up_proj = nn.Linear(config.width, config.mlp_dim, bias=False)
        self.down_proj = nn.Linear(config.mlp_dim, config.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[b, t, d] -> [b, t, d]."""
        return self.down_proj(F.gelu(self.gate_proj(x), approximate="tanh") * self.up_proj(x))


class Layer(nn.Module):
    """One expert's part of a layer."""

    def __init__(self, config: gemma.Config, cond_dim: int | None) -> None:
        super().__init__()
        self.self_attn = Projections(config)
        self.mlp = FeedForward(config)
        self.input_layernorm = RMSNorm(config.width, cond_dim)
        self.post_attention_layernorm = RMSNorm(config.width, cond_dim)

    def finish(self, x: Tensor, attended: Tensor, gate: Tensor | None, cond: Tensor | None) -> Tensor:
        """Both residual branches, once the attention is known."""
        x = _residual(x, self.self_attn.o_proj(attended.flatten(2)), gate)
        normed, gate = self.post_attention_layernorm(x, cond)
        return _residual(x, self.mlp(normed), gate)


class Expert(nn.Module):
    """One expert's layers, its final norm, and the token table if it owns one."""

    def __init__(self, config: gemma.Config, *, vocab_size: int | None = None, cond_dim: int | None = None) -> None:
        super().__init__()
        if vocab_size is not None:
            self.embed_tokens = nn.Embedding(vocab_size, config.width)
        self.layers = nn.ModuleList(Layer(config, cond_dim) for _ in range(config.depth))
        self.norm = RMSNorm(config.width, cond_dim)

    @property
    def dtype(self) -> torch.dtype:
        """The compute dtype."""
        return self.layers[0].self_attn.q_proj.weight.dtype


class PaliGemma(nn.Module):
    """Vision encoder and first expert, at the level that checkpoints have for them."""

    def __init__(
        self, config: gemma.Config, vision: siglip.Config, vocab_size: int, image_resolution: tuple[int, int]
    ) -> None:
        super().__init__()
        self.model = nn.Module()
        self.model.vision_tower = siglip_pytorch.VisionTower(vision, image_resolution)
        self.model.multi_modal_projector = siglip_pytorch.Projector(vision.width, config.width)
        self.model.language_model = Expert(config, vocab_size=vocab_size)
        self.lm_head = nn.Linear(config.width, vocab_size, bias=False)
        self.lm_head.weight = self.model.language_model.embed_tokens.weight


class ActionExpert(nn.Module):
    """The second expert, at the level that checkpoints have for it.

    `lm_head` is never used; published checkpoints have it.
    """

    def __init__(self, config: gemma.Config, vocab_size: int, cond_dim: int | None) -> None:
        super().__init__()
        self.model = Expert(config, cond_dim=cond_dim)
        self.lm_head = nn.Linear(config.width, vocab_size, bias=False)


class PaliGemmaWithExpert(nn.Module):
    """Both experts and the vision encoder."""

    def __init__(
        self,
        experts: tuple[gemma.Config, gemma.Config],
        vision: siglip.Config,
        *,
        vocab_size: int,
        image_resolution: tuple[int, int],
        adaptive: bool,
        dtype: str,
    ) -> None:
        super().__init__()
        gemma.check_experts(experts)
        cond_dim = experts[1].width if adaptive else None
        self.paligemma = PaliGemma(experts[0], vision, vocab_size, image_resolution)
        self.gemma_expert = ActionExpert(experts[1], vocab_size, cond_dim)
        self.gradient_checkpointing = False
        self.to_bfloat16_for_selected_params(dtype)

    def to_bfloat16_for_selected_params(self, precision: str = "bfloat16") -> None:
        """Make parameters bfloat16 except norms, patches and positions, which stay float32; or all float32.

        Raises:
            ValueError: `precision` is neither "bfloat16" nor "float32".
        """
        if precision not in ("bfloat16", "float32"):
            raise ValueError(f"precision is {precision!r}; it must be 'bfloat16' or 'float32'.")
        for name, parameter in self.named_parameters():
            wide = precision == "float32" or siglip_pytorch.is_float32(name) or _is_norm(name)
            parameter.data = parameter.data.to(torch.float32 if wide else torch.bfloat16)

    def embed_image(self, images: Tensor) -> Tensor:
        """[b, 3, h, w] -> [b, tokens, d]."""
        return self.paligemma.model.multi_modal_projector(self.paligemma.model.vision_tower(images))

    def embed_language_tokens(self, ids: Tensor) -> Tensor:
        """[b, t] -> [b, t, d], times the square root of the width."""
        vectors = self.paligemma.model.language_model.embed_tokens(ids)
        return vectors * torch.tensor(vectors.shape[-1] ** 0.5, dtype=vectors.dtype, device=vectors.device)

    def forward(
        self,
        embedded: Sequence[Tensor | None],
        positions: Tensor,
        mask: Tensor,
        conds: Sequence[Tensor | None] = (None, None),
        kv_cache: KVCache | None = None,
    ) -> tuple[list[Tensor | None], KVCache]:
        """Run the experts' tokens through all layers; arguments as in `openpi.models.gemma.Module`."""
        experts = [self.paligemma.model.language_model, self.gemma_expert.model]
        xs = [None if x is None else x.to(expert.dtype) for x, expert in zip(embedded, experts, strict=True)]
        seen: KVCache = []
        for depth in range(len(experts[0].layers)):
            layers = [expert.layers[depth] for expert in experts]
            cache = None if kv_cache is None else kv_cache[depth]
            xs, keys_values = self._run(_layer, layers, xs, conds, positions, mask, cache)
            seen.append(keys_values)
        outputs = [
            None if x is None else expert.norm(x, cond)[0] for x, expert, cond in zip(xs, experts, conds, strict=True)
        ]
        return outputs, seen

    def _run(self, function: Callable, *args: object) -> tuple:
        if self.gradient_checkpointing and self.training:
            return torch.utils.checkpoint.checkpoint(function, *args, use_reentrant=False)
        return function(*args)


def _layer(
    layers: Sequence[Layer],
    xs: Sequence[Tensor | None],
    conds: Sequence[Tensor | None],
    positions: Tensor,
    mask: Tensor,
    cache: tuple[Tensor, Tensor] | None,
) -> tuple[list[Tensor | None], tuple[Tensor, Tensor]]:
    present = [(i, x) for i, x in enumerate(xs) if x is not None]
    normed = {i: layers[i].input_layernorm(x, conds[i]) for i, x in present}
    projected = [layers[i].self_attn(normed[i][0]) for i, _ in present]
    q, k, v = (torch.cat(parts, dim=1) for parts in zip(*projected, strict=True))
    q, k = (_rotate(part, positions).to(v.dtype) for part in (q, k))
    if cache is not None:
        k, v = (torch.cat(pair, dim=1) for pair in zip(cache, (k, v), strict=True))
    parts = torch.split(_attend(q, k, v, mask), [x.shape[1] for _, x in present], dim=1)
    outputs: list[Tensor | None] = [None] * len(xs)
    for (i, x), attended in zip(present, parts, strict=True):
        outputs[i] = layers[i].finish(x, attended, normed[i][1], conds[i])
    return outputs, (k, v)


def _residual(x: Tensor, y: Tensor, gate: Tensor | None) -> Tensor:
    return x + y if gate is None else x + y * gate


def _rotate(x: Tensor, positions: Tensor) -> Tensor:
    """Rotary embedding on the two halves of the head dimension, in float32."""
    half = x.shape[-1] // 2
    exponents = torch.arange(half, dtype=torch.float32, device=x.device) / half
    angles = positions[..., None, None] / _ROPE_MAX_WAVELENGTH**exponents
    sin, cos = angles.sin(), angles.cos()
    first, second = x.float().chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


def _attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """Grouped-query attention, softmax in float32: [b, t, heads, head_dim]."""
    b, t, n, h = q.shape
    grouped = (q * h**-0.5).reshape(b, t, k.shape[2], n // k.shape[2], h)
    logits = torch.einsum("btkgh,bskh->bkgts", grouped.float(), k.float())
    weights = logits.masked_fill(~mask[:, None, None], _MASKED_LOGIT).softmax(dim=-1).to(v.dtype)
    return torch.einsum("bkgts,bskh->btkgh", weights, v).reshape(b, t, n, h)


def _is_norm(name: str) -> bool:
    return any(f"{norm}." in name for norm in ("input_layernorm", "post_attention_layernorm", "model.norm")) or (
        "language_model.norm." in name
    )
