"""Pillow's bilinear resize without Pillow: a triangle filter, widened when shrinking, in 22 bit fixed point."""

import functools

import numpy as np

_FRACTION_BITS = 22  # Pillow's PRECISION_BITS for 8 bit channels


def resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize uint8 [h, w, c] to [height, width, c], horizontally first, rounding to uint8 in between as Pillow does."""
    wide = _along_first_axis(image.transpose(1, 0, 2), width).transpose(1, 0, 2)
    return _along_first_axis(wide, height)


def _along_first_axis(image: np.ndarray, size: int) -> np.ndarray:
    if image.shape[0] == size:
        return image
    # float64 holds these integers exactly (below 2**31), and multiplies matrices much faster than int64
    total = _weights(image.shape[0], size) @ image.reshape(image.shape[0], -1).astype(np.float64)
    rounded = (total.astype(np.int64) + (1 << (_FRACTION_BITS - 1))) >> _FRACTION_BITS
    return np.clip(rounded, 0, 255).astype(np.uint8).reshape(size, *image.shape[1:])


@functools.lru_cache(maxsize=32)
def _weights(old: int, new: int) -> np.ndarray:
    """[new, old] filter weights as whole numbers of 2**-22."""
    scale = old / new
    support = max(scale, 1.0)
    centre = (np.arange(new) + 0.5) * scale
    first = np.maximum((centre - support + 0.5).astype(int), 0)[:, None]
    last = np.minimum((centre + support + 0.5).astype(int), old)[:, None]
    column = np.arange(old)[None]
    triangle = np.maximum(1 - np.abs((column - centre[:, None] + 0.5) / support), 0)
    triangle *= (column >= first) & (column < last)
    triangle /= triangle.sum(axis=1, keepdims=True)
    return np.floor(triangle * (1 << _FRACTION_BITS) + 0.5)
