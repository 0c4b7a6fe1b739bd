"""Transforms between a robot's dictionaries and the model's: small, composable, NumPy only.

A transform is a callable from a nested dict with string keys to another such dict, written for one sample
without a batch axis (those that only touch last axes also work with leading ones). None changes its argument.
docs/transforms.md explains the chain that they form.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np

from openpi.shared import normalize
from openpi.shared.nested import apply_tree, flatten_dict, transform_dict, unflatten_dict
from openpi_client import image_tools

__all__ = [
    "AbsoluteActions",
    "CompositeTransform",
    "DataDict",
    "DataTransformFn",
    "DeltaActions",
    "ExtractFASTActions",
    "Group",
    "InjectDefaultPrompt",
    "NormStats",
    "Normalize",
    "PadStatesAndActions",
    "PromptFromLeRobotTask",
    "RepackTransform",
    "ResizeImages",
    "SubsampleActions",
    "TokenizeFASTInputs",
    "TokenizePrompt",
    "Unnormalize",
    "apply_tree",
    "compose",
    "flatten_dict",
    "make_bool_mask",
    "pad_to_dim",
    "transform_dict",
    "unflatten_dict",
]

DataDict: TypeAlias = dict[str, Any]
NormStats: TypeAlias = normalize.NormStats
_Scaling: TypeAlias = Callable[[Any, NormStats], Any]


@runtime_checkable
class DataTransformFn(Protocol):
    """A callable that takes one sample as a nested dict and returns the changed sample."""

    def __call__(self, data: DataDict) -> DataDict: ...


@dataclasses.dataclass(frozen=True)
class Group:
    """What is applied on the way into the model and, undoing it, on the way out."""

    inputs: Sequence[DataTransformFn] = ()
    outputs: Sequence[DataTransformFn] = ()

    def push(self, *, inputs: Sequence[DataTransformFn] = (), outputs: Sequence[DataTransformFn] = ()) -> Group:
        """Put a layer nearer to the model: its inputs run last, so its outputs run first."""
        return Group(inputs=(*self.inputs, *inputs), outputs=(*outputs, *self.outputs))


@dataclasses.dataclass(frozen=True)
class CompositeTransform(DataTransformFn):
    """Applies transforms one after the other; an error says in which one it arose."""

    transforms: Sequence[DataTransformFn]

    def __call__(self, data: DataDict) -> DataDict:
        for transform in self.transforms:
            try:
                data = transform(data)
            except Exception as error:
                error.add_note(f"Raised in transform {getattr(transform, '__name__', type(transform).__name__)}.")
                raise
        return data


def compose(transforms: Sequence[DataTransformFn]) -> DataTransformFn:
    """One transform out of several, applied in the given order."""
    return CompositeTransform(tuple(transforms))


@dataclasses.dataclass(frozen=True)
class RepackTransform(DataTransformFn):
    """Rearranges a sample into the tree `structure`, whose leaves are '/'-joined paths into the sample.

    `RepackTransform({"images": {"cam_high": "observation.images.top"}, "state": "observation/state"})`

    Raises:
        KeyError: a path is not in the sample; names it and lists those there are.
    """

    structure: Mapping[str, Any]

    def __call__(self, data: DataDict) -> DataDict:
        return _repack(self.structure, flatten_dict(data))


@dataclasses.dataclass(frozen=True)
class InjectDefaultPrompt(DataTransformFn):
    """Adds `prompt` where the sample has none; None adds nothing."""

    prompt: str | None

    def __call__(self, data: DataDict) -> DataDict:
        if self.prompt is None or "prompt" in data:
            return data
        return {**data, "prompt": np.asarray(self.prompt)}


@dataclasses.dataclass(frozen=True)
class _Scaled(DataTransformFn):
    norm_stats: Mapping[str, Any] | None
    use_quantiles: bool = False

    def __post_init__(self) -> None:
        if self.norm_stats is not None and self.use_quantiles:
            _require_quantiles(self.norm_stats)

    def _apply(self, data: DataDict, quantile: _Scaling, zscore: _Scaling, *, strict: bool) -> DataDict:
        if self.norm_stats is None:
            return data
        return apply_tree(data, self.norm_stats, quantile if self.use_quantiles else zscore, strict=strict)


@dataclasses.dataclass(frozen=True)
class Normalize(_Scaled):
    """Scales each array named in `norm_stats`: to zero mean and unit deviation, or q01..q99 to -1..1.

    Statistics longer than the array are cut to its length; results are float64, as the statistics are.
    With `strict` every key of `norm_stats` must be in the sample.

    Raises:
        ValueError: an array is longer than its statistics, a key is missing (strict), quantiles are missing.
    """

    strict: bool = False

    def __call__(self, data: DataDict) -> DataDict:
        return self._apply(data, normalize.normalize_quantile, normalize.normalize_zscore, strict=self.strict)


@dataclasses.dataclass(frozen=True)
class Unnormalize(_Scaled):
    """Undoes `Normalize`. Every key of `norm_stats` must be in the sample.

    Dimensions past the statistics (padding) pass through with quantiles, and are scaled by 1 + 1e-6 otherwise.

    Raises:
        ValueError: a key or the quantiles are missing.
    """

    def __call__(self, data: DataDict) -> DataDict:
        return self._apply(data, normalize.unnormalize_quantile, normalize.unnormalize_zscore, strict=True)


@dataclasses.dataclass(frozen=True)
class ResizeImages(DataTransformFn):
    """Resizes every image under "image" ([..., h, w, c] uint8) to `height` by `width`, padding with black.

    Equal to Pillow's bilinear resize, which the published weights were trained with.

    Raises:
        ValueError: an image of another size is not uint8.
    """

    height: int
    width: int

    def __call__(self, data: DataDict) -> DataDict:
        return {**data, "image": {name: self._resized(name, image) for name, image in data["image"].items()}}

    def _resized(self, name: str, image: np.ndarray) -> np.ndarray:
        if image.shape[-3:-1] != (self.height, self.width) and image.dtype != np.uint8:
            raise ValueError(
                f"Image '{name}' is {image.dtype} of shape {image.shape}; only uint8 images can be resized to "
                f"{self.height} x {self.width}."
            )
        return image_tools.resize_with_pad(image, self.height, self.width)


@dataclasses.dataclass(frozen=True)
class SubsampleActions(DataTransformFn):
    """Keeps every `stride`-th action of the chunk ([h, d] -> [ceil(h / stride), d])."""

    stride: int

    def __call__(self, data: DataDict) -> DataDict:
        return {**data, "actions": data["actions"][:: self.stride]}


@dataclasses.dataclass(frozen=True)
class DeltaActions(DataTransformFn):
    """Makes the masked leading action dimensions relative to the state of the same sample.

    "actions" [..., h, d] minus "state" [..., d]; no mask or no actions: nothing to do. The actions keep their dtype.
    """

    mask: Sequence[bool] | None

    def __call__(self, data: DataDict) -> DataDict:
        return _shift_actions(data, self.mask, -1)


@dataclasses.dataclass(frozen=True)
class AbsoluteActions(DataTransformFn):
    """Undoes `DeltaActions`: adds the state to the masked leading action dimensions."""

    mask: Sequence[bool] | None

    def __call__(self, data: DataDict) -> DataDict:
        return _shift_actions(data, self.mask, 1)


@dataclasses.dataclass(frozen=True)
class TokenizePrompt(DataTransformFn):
    """Replaces "prompt" by "tokenized_prompt" and its mask (pi0; with the state in the text for pi0.5).

    Raises:
        ValueError: there is no prompt, or no state though `discrete_state_input` needs it.
    """

    tokenizer: Any
    discrete_state_input: bool = False

    def __call__(self, data: DataDict) -> DataDict:
        prompt, rest = _take_prompt(data)
        state = _required(rest, "state", "the discrete state input") if self.discrete_state_input else None
        tokens, mask = self.tokenizer.tokenize(prompt, state)
        return {**rest, "tokenized_prompt": tokens, "tokenized_prompt_mask": mask}


@dataclasses.dataclass(frozen=True)
class TokenizeFASTInputs(DataTransformFn):
    """Replaces "prompt" by the token sequence of pi0-FAST: prompt, state and, in training, the actions."""

    tokenizer: Any

    def __call__(self, data: DataDict) -> DataDict:
        prompt, rest = _take_prompt(data)
        state = _required(rest, "state", "the FAST tokenizer")
        tokens, mask, ar_mask, loss_mask = self.tokenizer.tokenize(prompt, state, rest.get("actions"))
        return {
            **rest,
            "tokenized_prompt": tokens,
            "tokenized_prompt_mask": mask,
            "token_ar_mask": ar_mask,
            "token_loss_mask": loss_mask,
        }


@dataclasses.dataclass(frozen=True)
class ExtractFASTActions(DataTransformFn):
    """Turns the tokens that pi0-FAST left under "actions" into an action chunk [action_horizon, action_dim]."""

    tokenizer: Any
    action_horizon: int
    action_dim: int

    def __call__(self, data: DataDict) -> DataDict:
        if "actions" not in data:
            return data
        tokens = np.asarray(data["actions"]).astype(np.int32)
        return {**data, "actions": self.tokenizer.extract_actions(tokens, self.action_horizon, self.action_dim)}


@dataclasses.dataclass(frozen=True)
class PromptFromLeRobotTask(DataTransformFn):
    """Sets "prompt" to the text of the sample's "task_index".

    Raises:
        ValueError: there is no task index, or no task of that index.
    """

    tasks: Mapping[int, str]

    def __call__(self, data: DataDict) -> DataDict:
        index = int(_required(data, "task_index", "the prompt"))
        if index not in self.tasks:
            raise ValueError(f"The dataset has no task {index}; its tasks are {dict(self.tasks)}.")
        return {**data, "prompt": self.tasks[index]}


@dataclasses.dataclass(frozen=True)
class PadStatesAndActions(DataTransformFn):
    """Zero-pads the last axis of "state" and, where present, "actions" to `model_action_dim`. Never cuts."""

    model_action_dim: int

    def __call__(self, data: DataDict) -> DataDict:
        present = [key for key in ("state", "actions") if key in data]
        return {**data, **{key: pad_to_dim(data[key], self.model_action_dim) for key in present}}


def pad_to_dim(x: Any, target_dim: int, axis: int = -1, value: float = 0.0) -> np.ndarray:
    """Pads one axis at its end with `value` up to `target_dim`; longer arrays stay as they are."""
    x = np.asarray(x)
    missing = target_dim - x.shape[axis]
    if missing <= 0:
        return x
    widths = [(0, 0)] * x.ndim
    widths[axis] = (0, missing)
    return np.pad(x, widths, constant_values=value)


def make_bool_mask(*dims: int) -> tuple[bool, ...]:
    """Run lengths -> mask: n stands for n times True, -n for n times False. (2, -1) -> (True, True, False)."""
    return tuple(dim > 0 for dim in dims for _ in range(abs(dim)))


def _repack(structure: Any, flat: DataDict) -> Any:
    # Keys come out sorted: the order of a JAX tree, which recorded data rely on.
    if isinstance(structure, Mapping):
        return {key: _repack(structure[key], flat) for key in sorted(structure)}
    if structure not in flat:
        raise KeyError(f"Repack needs '{structure}', which the sample does not have. It has: {sorted(flat)}.")
    return flat[structure]


def _require_quantiles(norm_stats: Mapping[str, Any]) -> None:
    for key, stats in flatten_dict(norm_stats).items():
        if stats.q01 is None or stats.q99 is None:
            raise ValueError(
                f"Quantile normalisation needs q01 and q99 for '{key}', and its statistics have none; compute them "
                "again with `openpi norm-stats`, or use z-score normalisation."
            )


def _shift_actions(data: DataDict, mask: Sequence[bool] | None, sign: int) -> DataDict:
    if mask is None or "actions" not in data:
        return data
    state, actions = np.asarray(data["state"]), np.array(data["actions"])
    dims = len(mask)
    if dims > min(state.shape[-1], actions.shape[-1]):
        raise ValueError(
            f"The delta mask has {dims} entries, the state {state.shape[-1]} values and an action "
            f"{actions.shape[-1]}; the mask may not be the longest."
        )
    offset = np.where(np.asarray(mask), state[..., :dims], 0)[..., None, :]
    actions[..., :dims] += sign * offset
    return {**data, "actions": actions}


def _take_prompt(data: DataDict) -> tuple[str, DataDict]:
    prompt = _required(data, "prompt", "the tokenizer (a default prompt can be set in the config)")
    text = prompt if isinstance(prompt, str) else np.asarray(prompt).item()
    return text, {key: value for key, value in data.items() if key != "prompt"}


def _required(data: DataDict, key: str, user: str) -> Any:
    if data.get(key) is None:
        raise ValueError(f"'{key}' is missing; it is needed for {user}. The sample has: {sorted(data)}.")
    return data[key]
