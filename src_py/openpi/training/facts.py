"""What a config or a checkpoint is, in plain data: for `openpi info`, and for scripts (`--json`)."""

import dataclasses
import math
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import jax
from flax import nnx

from openpi.models import model as _model
from openpi.shared import nested, normalize
from openpi.training import fitting
from openpi.training.train_config import TrainConfig

Facts = dict[str, Any]

# Bytes a parameter.
BF16, F32 = 2, 4
ADAM = 2 * F32


def config_facts(config: TrainConfig) -> Facts:
    """Name, sizes, parameters, memory, inputs and data of a config; nothing is loaded or allocated."""
    return {
        "config": config.name,
        "model": _model_facts(config),
        "inputs": _input_facts(config.model),
        "parameters": _parameter_facts(config),
        "data": _data_facts(config),
        "training": {
            "weights from": _short(config.weight_loader),
            "optimizer": f"{_short(config.optimizer)}, {_short(config.lr_schedule)}",
            "steps": f"{config.num_train_steps} of {config.batch_size} samples",
            "moving average": config.ema_decay,
        },
    }


def checkpoint_facts(path: pathlib.Path) -> Facts:
    """Steps, parameters, fitting configs and statistics of a checkpoint folder or of a run's folder.

    Raises:
        ValueError: the folder is neither, or its parameters cannot be read.
    """
    steps = sorted(int(p.name) for p in path.iterdir() if p.name.isdigit() and p.is_dir())
    folder = path / str(steps[-1]) if steps else path
    facts: Facts = {"checkpoint": str(folder)}
    if steps:
        facts["steps"] = ", ".join(map(str, steps))
    if (folder / "params").is_dir():
        facts["parameters"] = _stored_facts(folder / "params")
    elif (folder / "_METADATA").is_file():
        facts["parameters"] = _stored_facts(folder)
    elif (folder / "model.safetensors").is_file():
        facts["parameters"] = _torch_facts(folder / "model.safetensors")
    else:
        there = sorted(p.name for p in folder.iterdir())
        raise ValueError(
            f"{folder} is no checkpoint: it has neither params/ nor model.safetensors, but "
            f"{', '.join(there[:10]) or 'nothing'}{', ...' if len(there) > 10 else ''}."
        )
    facts["statistics"] = statistics_facts(folder / "assets")
    return facts


def statistics_facts(assets: pathlib.Path) -> Facts:
    """For each asset id and key: how many values, and their ranges."""
    stats = {str(p.parent.relative_to(assets)): normalize.load(p.parent) for p in assets.rglob(normalize.FILE_NAME)}
    return {name: {key: _ranges(value) for key, value in entry.items()} for name, entry in sorted(stats.items())}


def gibibytes(count: float) -> str:
    """Bytes, readable."""
    return f"{count / 2**30:.2f} GiB" if count >= 2**30 else f"{count / 2**20:.2f} MiB"


def _model_facts(config: TrainConfig) -> Facts:
    fields = {f.name: getattr(config.model, f.name) for f in dataclasses.fields(config.model)}
    shown = {name: _short(value) for name, value in fields.items() if value is not None}
    return {"type": config.model.model_type.value, **shown}


def _input_facts(model_config: _model.BaseModelConfig) -> Facts:
    observation, actions = model_config.inputs_spec(batch_size=1)
    flat = {key: value for key, value in nested.flatten_dict(observation.to_dict()).items() if value is not None}
    return {key: f"{value.shape[1:]} {value.dtype}" for key, value in {**flat, "actions": actions}.items()}


def _parameter_facts(config: TrainConfig) -> Facts:
    state = nnx.state(nnx.eval_shape(config.model.create, jax.random.key(0)), nnx.Param)
    sizes = _sizes(nnx.to_pure_dict(state))
    trainable = sum(_sizes(nnx.to_pure_dict(state.filter(config.trainable_filter))).values())
    total = sum(sizes.values())
    average = F32 if config.ema_decay is not None else 0
    training = trainable * (F32 + F32 + ADAM + average) + (total - trainable) * BF16
    return {
        "all": f"{total:,}",
        **{part: f"{count:,}" for part, count in _parts(sizes).items()},
        "trained": f"{trainable:,}",
        "memory to serve": f"{gibibytes(total * BF16)} (bfloat16 weights, without activations)",
        "memory to train": f"{gibibytes(training)} (weights, gradients, AdamW, average; without activations)",
    }


def _sizes(tree: Mapping[str, Any]) -> dict[str, int]:
    return {path: math.prod(leaf.shape) for path, leaf in nested.flatten_dict(tree).items()}


def _parts(sizes: Mapping[str, int]) -> dict[str, int]:
    """Sums by part of the model. In the language model's tree, names that end in _1 are the action expert's."""
    sums: dict[str, int] = {}
    for path, size in sizes.items():
        sums[_part(path)] = sums.get(_part(path), 0) + size
    return sums


def _part(path: str) -> str:
    if path.startswith("PaliGemma/img"):
        return "vision"
    if path.startswith("PaliGemma/llm"):
        return "action expert" if any(name.endswith("_1") for name in path.split("/")) else "language"
    return "projections"


def _data_facts(config: TrainConfig) -> Facts:
    try:
        data = config.data.create(config.assets_dirs, config.model)
    except (FileNotFoundError, ImportError, ValueError) as error:
        return {"factory": type(config.data).__name__, "cannot be built here": str(error)}
    stats = "none on this machine" if data.norm_stats is None else ", ".join(sorted(data.norm_stats))
    return {
        "factory": type(config.data).__name__,
        "data set": data.rlds_data_dir or data.repo_id or "none (serving only)",
        "statistics": f"{data.asset_id}: {stats}",
        "normalisation": "quantiles" if data.use_quantile_norm else "mean and standard deviation",
        "into the model": _names(data.repack_transforms.inputs, data.data_transforms.inputs, ["normalise"])
        + ", "
        + _names(data.model_transforms.inputs),
        "out of the model": _names(data.model_transforms.outputs, ["unnormalise"], data.data_transforms.outputs),
    }


def _names(*groups: Iterable[Any]) -> str:
    return ", ".join(item if isinstance(item, str) else type(item).__name__ for group in groups for item in group)


def _stored_facts(params: pathlib.Path) -> Facts:
    tree = _model.params_metadata(params)
    flat = nested.flatten_dict(tree)
    dtypes = sorted({str(leaf.dtype) for leaf in flat.values()})
    return {
        "all": f"{sum(_sizes(tree).values()):,}",
        **{part: f"{count:,}" for part, count in _parts(_sizes(tree)).items()},
        "dtype": ", ".join(dtypes),
        "on disk": gibibytes(_disk_bytes(params)),
        "fit the configs": ", ".join(fitting.fitting_configs(tree)) or "none",
    }


def _torch_facts(file: pathlib.Path) -> Facts:
    from safetensors import safe_open

    with safe_open(file, framework="numpy") as tensors:
        slices = [tensors.get_slice(name) for name in tensors.keys()]  # noqa: SIM118 (not a dict)
        sizes = [math.prod(part.get_shape()) for part in slices]
        dtypes = sorted({part.get_dtype() for part in slices})
    return {
        "format": "PyTorch (model.safetensors)",
        "all": f"{sum(sizes):,} in {len(sizes)} tensors",
        "dtype": ", ".join(dtypes),
        "on disk": gibibytes(file.stat().st_size),
    }


def _disk_bytes(folder: pathlib.Path) -> int:
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())


def _ranges(stats: normalize.NormStats) -> str:
    low, high = (stats.q01, stats.q99) if stats.q01 is not None and stats.q99 is not None else (None, None)
    spread = f"std {stats.std.min():.3g} to {stats.std.max():.3g}"
    quantiles = "" if low is None or high is None else f", q01 from {low.min():.3g}, q99 to {high.max():.3g}"
    return f"{len(stats.mean)} values, {spread}{quantiles}"


def _short(value: Any) -> Any:
    return str(value) if dataclasses.is_dataclass(value) or callable(value) else value
