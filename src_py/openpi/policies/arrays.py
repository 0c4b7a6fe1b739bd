"""Reads images and vectors out of robots' observations, with errors that name what is wrong."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np


def camera_image(images: Mapping[str, Any], name: str) -> np.ndarray:
    """The image `name` as uint8 [h, w, 3].

    Accepts uint8 in 0..255 and floats in 0..1 (truncated, not rounded, to uint8: training data were), channels
    first or last.

    Raises:
        ValueError: the image is missing, has another dtype, rank, number of channels or range.
    """
    if name not in images:
        raise ValueError(f"Camera image '{name}' is missing; there are {sorted(images)}.")
    image = np.asarray(images[name])
    if image.ndim != 3 or 3 not in (image.shape[0], image.shape[-1]):
        raise ValueError(
            f"Image '{name}' has shape {image.shape}; it must be [3, height, width] or [height, width, 3]."
        )
    if np.issubdtype(image.dtype, np.floating):
        image = _float_to_uint8(name, image)
    if image.dtype != np.uint8:
        raise ValueError(f"Image '{name}' has dtype {image.dtype}; it must be uint8 (0 to 255) or float (0 to 1).")
    return image.transpose(1, 2, 0) if image.shape[0] == 3 else image


def vector(data: Mapping[str, Any], name: str, length: int | None = None) -> np.ndarray:
    """`data[name]` as an array whose last axis has `length` entries (None: any number).

    Raises:
        ValueError: it is missing or of another length.
    """
    if name not in data:
        raise ValueError(f"'{name}' is missing; the observation has {sorted(data)}.")
    array = np.asarray(data[name])
    if array.ndim == 0 or length not in (None, array.shape[-1]):
        raise ValueError(f"'{name}' has shape {array.shape}; its last axis must have {length or 'some'} values.")
    return array


def pass_through(data: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """Those of `names` that `data` has."""
    return {name: data[name] for name in names if name in data}


def leading(actions: Any, count: int) -> np.ndarray:
    """The first `count` of the model's action dimensions.

    Raises:
        ValueError: the model gives fewer.
    """
    actions = np.asarray(actions)
    if actions.shape[-1] < count:
        raise ValueError(f"The model gives {actions.shape[-1]} action dimensions; this robot needs {count}.")
    return actions[..., :count]


def _float_to_uint8(name: str, image: np.ndarray) -> np.ndarray:
    low, high = image.min(initial=0.0), image.max(initial=0.0)
    if not (low >= 0.0 and high <= 1.0):
        raise ValueError(
            f"Image '{name}' is {image.dtype} with values from {low:g} to {high:g}; floats must lie in 0 to 1 "
            "(give images of 0 to 255 as uint8)."
        )
    return (255 * image).astype(np.uint8)
