"""The golden policies: a checkpoint the reference wrote, raw observations, and what it computed from them."""

import dataclasses
import json
import pathlib
from typing import Any

import numpy as np

from openpi import transforms
from openpi.models import gemma, pi0_config, pi0_fast, siglip
from openpi.policies import droid_policy, policy_config
from openpi.policies import policy as _policy
from openpi.shared import normalize
from openpi.training import config as _config

FLOAT32_BOUND = 3e-5
"""Largest error of a float32 computation, in model units."""


@dataclasses.dataclass
class Case:
    """One policy. `noise` is what its actions were sampled from; FAST has none."""

    folder: pathlib.Path
    meta: dict[str, Any]
    observation: dict[str, Any]
    noise: np.ndarray | None
    outputs: dict[str, np.ndarray]

    @property
    def is_fast(self) -> bool:
        return self.meta["model"]["class"] == "Pi0FASTConfig"


def load_case(folder: pathlib.Path) -> Case:
    """The case in a folder of the golden set."""
    meta = json.loads((folder / "meta.json").read_text())
    raw = {name.replace("|", "\0"): array for name, array in np.load(folder / "raw_obs.npz").items()}
    noise = raw.pop("noise")
    observation: dict[str, Any] = {}
    for name, array in raw.items():
        node = observation
        *parents, leaf = name.split("\0")
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = array
    if meta["prompt"] is not None:
        observation["prompt"] = meta["prompt"]
    is_fast = meta["model"]["class"] == "Pi0FASTConfig"
    return Case(folder, meta, observation, None if is_fast else noise, dict(np.load(folder / "outputs.npz")))


def model_config(meta: dict[str, Any], dtype: str, fast_folder: pathlib.Path) -> Any:
    model, variants = meta["model"], meta["variants"]
    common = {
        "action_dim": model["action_dim"],
        "action_horizon": model["action_horizon"],
        "max_token_len": model["max_token_len"],
        "dtype": dtype,
        "paligemma_variant": gemma.Config(**variants[model["paligemma_variant"]]),
        "vision_variant": siglip.Config(**{**meta["siglip"], "patch_size": tuple(meta["siglip"]["patch_size"])}),
        "vocab_size": meta["vocab"],
    }
    if model["class"] == "Pi0FASTConfig":
        return pi0_fast.Pi0FASTConfig(**common, fast_model_tokenizer_kwargs={"fast_tokenizer_path": fast_folder})
    expert = gemma.Config(**variants[model["action_expert_variant"]])
    return pi0_config.Pi0Config(**common, action_expert_variant=expert, pi05=model["pi05"], pytorch_compile_mode=None)


def droid_transforms(model: Any) -> transforms.Group:
    return transforms.Group([droid_policy.DroidInputs(model.model_type)], [droid_policy.DroidOutputs()])


def data_config(meta: dict[str, Any]) -> Any:
    options = dict(meta["data_options"])
    assets = _config.AssetsConfig(asset_id=meta["asset_id"])
    if meta["data_factory"] == "SimpleDataConfig":
        return _config.SimpleDataConfig(assets=assets, data_transforms=droid_transforms)
    return getattr(_config, meta["data_factory"])(assets=assets, **options)


def train_config(case: Case, dtype: str, fast_folder: pathlib.Path) -> _config.TrainConfig:
    """The config that the case's checkpoint fits."""
    return _config.TrainConfig(
        name="golden",
        exp_name="golden",
        model=model_config(case.meta, dtype, fast_folder),
        data=data_config(case.meta),
    )


def make_policy(case: Case, dtype: str, fast_folder: pathlib.Path) -> _policy.Policy:
    """The case's policy, computing in `dtype`."""
    config = train_config(case, dtype, fast_folder)
    kwargs = case.meta["sample_kwargs"] or None
    return policy_config.create_trained_policy(config, case.folder / "checkpoint", sample_kwargs=kwargs)


def action_units(case: Case) -> np.ndarray:
    """Robot units per model unit of each action dimension, so that the model's bounds apply."""
    folder = case.folder / "checkpoint" / "assets" / case.meta["asset_id"]
    stats = normalize.load(folder)["actions"]
    if case.meta["model"].get("pi05") or case.is_fast:
        return np.maximum((stats.q99 - stats.q01) / 2, 1e-3)
    return np.maximum(stats.std, 1e-3)
