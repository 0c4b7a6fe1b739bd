"""A folder of golden vectors on disk.

It has `params.npz`, `inputs.npz`, `meta.json` (sizes under "spec") and one or more of `outputs_f32.npz`,
`outputs_bf16.npz` (bfloat16 compute) and `outputs_bf16_params.npz` (bfloat16 parameters, too).
"""

import functools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from openpi.models import gemma, lora, pi0_config, pi0_fast, siglip
from openpi.models import model as _model
from openpi.shared import array_typing as at

PRECISIONS = ("f32", "bf16", "bf16_params")
# Inputs under this prefix replace those without it when pi0-FAST samples: prompts without the action tokens.
_SAMPLING_PREFIX = "infer/"


@dataclass(frozen=True)
class GoldenFolder:
    """Gives what is in the folder when asked for it.

    Raises:
        ValueError: the folder is not one of golden vectors.
    """

    path: Path

    def __post_init__(self) -> None:
        missing = [name for name in ("meta.json", "params.npz", "inputs.npz") if not (self.path / name).is_file()]
        if missing or not self.precisions:
            lacks = ", ".join(missing) or "outputs_f32.npz or another output file"
            raise ValueError(f"{self.path} is no folder of golden vectors: it has no {lacks}.")

    @functools.cached_property
    def meta(self) -> dict[str, Any]:
        """Sizes and notes."""
        return json.loads((self.path / "meta.json").read_text())

    @property
    def precisions(self) -> list[str]:
        """Those there are outputs for."""
        return [name for name in PRECISIONS if (self.path / f"outputs_{name}.npz").is_file()]

    @property
    def rng(self) -> at.KeyArrayLike:
        """The random key of losses and samples."""
        return jax.random.key(self.meta["spec"]["seed"])

    @functools.cached_property
    def inputs(self) -> dict[str, np.ndarray]:
        """Name -> array."""
        return _load(self.path / "inputs.npz")

    def outputs(self, precision: str) -> dict[str, np.ndarray]:
        """Name -> array, at one of `precisions`."""
        return _load(self.path / f"outputs_{precision}.npz")

    def observation(self, *, sampling: bool = False) -> _model.Observation:
        """The inputs as an observation; with `sampling` the prompts that pi0-FAST samples from."""
        named = {name: array for name, array in self.inputs.items() if not name.startswith(_SAMPLING_PREFIX)}
        if sampling:
            named |= {
                name.removeprefix(_SAMPLING_PREFIX): array
                for name, array in self.inputs.items()
                if name.startswith(_SAMPLING_PREFIX)
            }
        nested = traverse_util.unflatten_dict(named, sep="/")
        return jax.tree.map(jnp.asarray, _model.Observation.from_dict(nested))

    def model(self, precision: str) -> Any:
        """The model with the folder's parameters."""
        dtype = jnp.bfloat16 if precision == "bf16_params" else jnp.float32
        flat = {name: jnp.asarray(value, dtype) for name, value in _load(self.path / "params.npz").items()}
        config = config_from_spec(self.meta["spec"], "float32" if precision == "f32" else "bfloat16")
        return config.load(traverse_util.unflatten_dict(flat, sep="/"), remove_extra_params=False)


def _load(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as file:
        return dict(file)


def config_from_spec(spec: dict[str, Any], dtype: str) -> _model.BaseModelConfig:
    """The configuration that "spec" describes, with a compute dtype."""
    common: dict[str, Any] = {
        "action_dim": spec["action_dim"],
        "action_horizon": spec["horizon"],
        "max_token_len": spec["max_len"],
        "dtype": dtype,
        "paligemma_variant": _expert(spec, spec["pg"]),
        "vision_variant": siglip.Config(**spec["siglip"] | {"patch_size": tuple(spec["siglip"]["patch_size"])}),
        "vocab_size": spec["vocab"],
    }
    if spec["kind"] == "fast":
        return pi0_fast.Pi0FASTConfig(**common)
    return pi0_config.Pi0Config(**common, action_expert_variant=_expert(spec, spec["ex"]), pi05=spec["kind"] == "pi05")


def _expert(spec: dict[str, Any], name: str) -> gemma.Config:
    if name not in spec["variants"]:
        return gemma.get_config(name)
    sizes = dict(spec["variants"][name])
    adapters = {part: lora.LoRAConfig(**config) for part, config in sizes.pop("lora", {}).items()}
    return gemma.Config(**sizes, lora_configs=adapters)
