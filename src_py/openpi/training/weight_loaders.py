"""Where a model's weights come from before training: nowhere, a checkpoint, or PaliGemma."""

import dataclasses
import logging
import re
from typing import Any, Protocol, runtime_checkable

import numpy as np

from openpi.models import model as _model
from openpi.shared import download, nested

logger = logging.getLogger(__name__)

PALIGEMMA_URL = "gs://vertex-model-garden-paligemma-us/paligemma/pt_224.npz"

# A tree of parameters as nested dicts; leaves are arrays or `jax.ShapeDtypeStruct`s.
Params = dict[str, Any]


@runtime_checkable
class WeightLoader(Protocol):
    """Gives the weights to start from."""

    def load(self, params: Params) -> Params:
        """The tree `params` with every leaf replaced that the loader has weights for.

        Args:
            params: the whole model's parameters, as arrays or as `jax.ShapeDtypeStruct`s.

        Raises:
            ValueError: the loader's weights do not fit the model.
        """
        ...


@dataclasses.dataclass(frozen=True)
class NoOpWeightLoader(WeightLoader):
    """Keeps the initial weights."""

    def load(self, params: Params) -> Params:
        return params


@dataclasses.dataclass(frozen=True)
class CheckpointWeightLoader(WeightLoader):
    """All weights from a checkpoint's `params` folder (path or URL); LoRA weights that it lacks stay as they are."""

    params_path: str

    def load(self, params: Params) -> Params:
        path = download.maybe_download(self.params_path)
        loaded = _model.restore_params(path, restore_type=np.ndarray)
        try:
            return merge_params(loaded, params, may_miss=".*lora.*")
        except ValueError as error:
            from openpi.training import fitting  # which knows all configs, and so this module

            raise ValueError(f"{self.params_path}: {error}\n{fitting.describe(loaded)}") from error


@dataclasses.dataclass(frozen=True)
class PaliGemmaWeightLoader(WeightLoader):
    """The vision and language weights of PaliGemma (3 billion parameters, 224 pixels); the rest stays as it is.

    Attributes:
        npz_path: the published file, path or URL: flat names such as `params/img/embedding/kernel`.
    """

    npz_path: str = dataclasses.field(default=PALIGEMMA_URL, kw_only=True)

    def load(self, params: Params) -> Params:
        with np.load(download.maybe_download(self.npz_path)) as file:
            tree = nested.unflatten_dict({name: file[name] for name in file.files})
        if "params" not in tree:
            raise ValueError(f"{self.npz_path} has no entries below `params/`, so it is no PaliGemma weights file.")
        return merge_params({"PaliGemma": tree["params"]}, params, may_miss=".*")


def merge_params(loaded: Params, params: Params, *, may_miss: str) -> Params:
    """`params` with each leaf that `loaded` has replaced by it, in the dtype of `params`.

    Args:
        may_miss: pattern of the '/'-joined paths that `loaded` may lack.

    Raises:
        ValueError: `loaded` lacks another path, or has one in another shape.
    """
    new, old = nested.flatten_dict(loaded), nested.flatten_dict(params)
    missing = [path for path in old if path not in new and not re.fullmatch(may_miss, path)]
    other_shape = [path for path in old if path in new and new[path].shape != old[path].shape]
    if missing or other_shape:
        raise ValueError(_misfit(missing, other_shape, new, old))
    if ignored := sorted(new.keys() - old.keys()):
        logger.info("%d loaded parameters have no place in the model and are left out: %s", len(ignored), ignored)
    return nested.unflatten_dict(
        {path: new[path].astype(leaf.dtype, copy=False) if path in new else leaf for path, leaf in old.items()}
    )


def _misfit(missing: list[str], other_shape: list[str], new: Params, old: Params) -> str:
    lines = [f"  missing: {path} {old[path].shape}" for path in missing]
    lines += [f"  other shape: {path} {new[path].shape}, the model has {old[path].shape}" for path in other_shape]
    return "\n".join(
        ["The weights do not fit the model; load those of the same model, or change the config's.", *lines]
    )
