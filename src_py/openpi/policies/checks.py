"""What a policy makes sure of before the model runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from openpi import transforms

# Room for rounding at the ends of the image range -1..1.
_RANGE_SLACK = 1e-3


@dataclasses.dataclass(frozen=True)
class CheckState(transforms.DataTransformFn):
    """Holds the robot's state against the statistics it is about to be normalised with.

    Statistics may be longer than the state only where the rest is padding (no spread), as in released checkpoints.

    Raises:
        ValueError: the state is missing, not finite, or of another length than in training.
    """

    norm_stats: Mapping[str, transforms.NormStats] | None

    def __call__(self, data: transforms.DataDict) -> transforms.DataDict:
        if "state" not in data:
            raise ValueError(f"'state' is missing; the sample has {sorted(data)}.")
        state = np.asarray(data["state"])
        check_finite("state", state)
        if self.norm_stats and "state" in self.norm_stats:
            expected = _used_length(self.norm_stats["state"])
            longest = self.norm_stats["state"].mean.shape[-1]
            if not expected <= state.shape[-1] <= longest:
                raise ValueError(
                    f"The state has {state.shape[-1]} values; the model was trained with {expected} "
                    "(its normalisation statistics say so)."
                )
        return data


def check_model_inputs(inputs: Mapping[str, Any], action_dim: int | None) -> None:
    """Check one sample on its way into the model.

    `action_dim`: length the state must have; None where the model takes any.

    Raises:
        ValueError: the state is no finite vector of that length; an image is no uint8 or float (-1 to 1)
            [h, w, 3]; there are no images.
    """
    state = np.asarray(inputs.get("state", np.nan))
    if state.ndim != 1 or action_dim not in (None, len(state)):
        raise ValueError(f"The model's state has shape {state.shape}; it must be [{action_dim or 'values'}].")
    check_finite("state", state)
    images = inputs.get("image", inputs.get("images"))
    if not images:
        raise ValueError(f"The model inputs hold no images; they have {sorted(inputs)}.")
    for name, image in images.items():
        _check_image(name, np.asarray(image))


def check_finite(name: str, array: np.ndarray) -> None:
    """Raises ValueError that names the places where `array` holds NaN or infinity."""
    if not np.isfinite(array).all():
        places = np.argwhere(~np.isfinite(array))[:5].tolist()
        raise ValueError(f"'{name}' holds NaN or infinity at {places}; the sensor or the transform before is at fault.")


def _used_length(stats: transforms.NormStats) -> int:
    """Length without trailing dimensions that never varied."""
    spread = stats.std > 0
    if stats.q01 is not None and stats.q99 is not None:
        spread = spread | (stats.q99 > stats.q01)
    return int(np.flatnonzero(spread)[-1]) + 1 if spread.any() else 0


def _check_image(name: str, image: np.ndarray) -> None:
    if image.ndim != 3 or image.shape[-1] != 3:
        raise ValueError(f"Image '{name}' has shape {image.shape}; it must be [height, width, 3].")
    if image.dtype == np.uint8:
        return
    if not np.issubdtype(image.dtype, np.floating):
        raise ValueError(f"Image '{name}' has dtype {image.dtype}; it must be uint8 (0 to 255) or float (-1 to 1).")
    check_finite(name, image)
    if np.abs(image).max(initial=0.0) > 1.0 + _RANGE_SLACK:
        raise ValueError(
            f"Image '{name}' is {image.dtype} with values from {image.min():g} to {image.max():g}; floats must lie in "
            "-1 to 1 (give images of 0 to 255 as uint8)."
        )
