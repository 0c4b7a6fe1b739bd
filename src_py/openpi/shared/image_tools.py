"""Aspect-preserving resize for images that are already on the device (the client's resize works with Pillow)."""

import functools
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from openpi.shared import array_typing as at

if TYPE_CHECKING:
    import torch


@functools.partial(jax.jit, static_argnames=("height", "width", "method"))
@at.typecheck
def resize_with_pad(
    images: at.UInt8[at.Array, "*b h w c"] | at.Float[at.Array, "*b h w c"],
    height: int,
    width: int,
    method: jax.image.ResizeMethod = jax.image.ResizeMethod.LINEAR,
) -> at.UInt8[at.Array, "*b {height} {width} c"] | at.Float[at.Array, "*b {height} {width} c"]:
    """Scale images to fit into height by width without distortion and pad the rest with black, centred.

    Black is 0 for uint8 and -1 for float images, which are clipped to [-1, 1]. Shrinking is antialiased.
    """
    *batch, current_height, current_width, channels = images.shape
    new_height, new_width = _fitted_size((current_height, current_width), (height, width))
    resized = jax.image.resize(images, (*batch, new_height, new_width, channels), method=method)
    if images.dtype == jnp.uint8:
        resized, black = jnp.round(resized).clip(0, 255).astype(jnp.uint8), 0
    else:
        resized, black = resized.clip(-1.0, 1.0), -1
    padding = [(0, 0)] * len(batch) + [_split(height - new_height), _split(width - new_width), (0, 0)]
    return jnp.pad(resized, padding, constant_values=black)


def resize_with_pad_torch(images: "torch.Tensor", height: int, width: int, mode: str = "bilinear") -> "torch.Tensor":
    """`resize_with_pad` for torch tensors, [b, h, w, c] or [b, c, h, w] (one image without b works, too).

    Unlike the JAX function it does not antialias: PyTorch checkpoints were trained with this one.
    """
    import torch.nn.functional as F

    channels_last = images.shape[-1] <= 4
    batched = images.ndim == 4
    nchw = images if batched else images[None]
    nchw = nchw.permute(0, 3, 1, 2) if channels_last else nchw
    new_size = _fitted_size((nchw.shape[-2], nchw.shape[-1]), (height, width))
    options = {"align_corners": False} if mode == "bilinear" else {}
    resized = F.interpolate(nchw.float(), size=new_size, mode=mode, **options)
    if images.dtype.is_floating_point:
        resized, black = resized.clamp(-1.0, 1.0), -1.0
    else:
        resized, black = resized.round().clamp(0, 255).to(images.dtype), 0.0
    top_bottom, left_right = _split(height - new_size[0]), _split(width - new_size[1])
    padded = F.pad(resized, (*left_right, *top_bottom), value=black)
    padded = padded.permute(0, 2, 3, 1) if channels_last else padded
    return padded if batched else padded[0]


def _fitted_size(size: tuple[int, int], target: tuple[int, int]) -> tuple[int, int]:
    """The largest (height, width) of the same aspect ratio that fits into the target; cut to whole pixels."""
    ratio = max(size[0] / target[0], size[1] / target[1])
    return int(size[0] / ratio), int(size[1] / ratio)


def _split(total: int) -> tuple[int, int]:
    """Padding before and after; the odd one goes after."""
    return total // 2, total - total // 2
