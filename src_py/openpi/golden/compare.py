"""Bounds for golden outputs, and the comparison.

float32 samples of flow models: 3e-5 (pi0) and 1.5e-5 (pi0.5), tokens exactly. bfloat16: an honest implementation lands
about as far from the reference's bfloat16 outputs as those are from its float32 ones, measured over the whole array:
sqrt(2) times as far where all roundings differ.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from openpi.golden import outputs as _outputs
from openpi.golden.folder import GoldenFolder
from openpi.models.model import ModelType

SAMPLE_BOUND = {ModelType.PI0: 3e-5, ModelType.PI05: 1.5e-5}
# What lies inside the network, in float32, where the largest value is 1.
_INNER_BOUND = 5e-5
# Error in bfloat16, in units of the reference's own distance between bfloat16 and float32 ...
_BFLOAT16_SLACK = 1.5
# ... and at least this, relative to the values: one unit in the last place.
_BFLOAT16_RELATIVE = 2.0**-8


@dataclass(frozen=True)
class Check:
    """One output: its error (in bfloat16 the norm of all, else the largest) and what is allowed."""

    name: str
    error: float
    bound: float

    @property
    def passed(self) -> bool:
        """Whether the error is within the bound; NaN never is."""
        return self.error <= self.bound


def verify(folder: GoldenFolder, precision: str) -> list[Check]:
    """Compute every output that the folder has at one precision, and compare.

    Raises:
        ValueError: an output is unknown here or of another shape, or the parameters do not fit the sizes.
    """
    return list(_compare(folder, precision, _outputs.compute(folder, precision)))


def _compare(folder: GoldenFolder, precision: str, computed: _outputs.Outputs) -> Iterator[Check]:
    float32 = folder.outputs("f32") if "f32" in folder.precisions else {}
    for name, wanted in folder.outputs(precision).items():
        if precision != "f32" and _is_choice(name):
            regret = np.asarray(computed[name.replace("tokens", "regret")], np.float64)
            yield Check(name, float(regret.max()), _step_bound(folder, precision, float32))
        elif precision != "f32" and "step_" in name:
            yield Check(name, _error(name, wanted, computed[name]), _step_bound(folder, precision, float32))
        elif name not in computed:
            raise ValueError(f"{folder.path}: the output {name} is unknown here.")
        elif precision == "f32" or _is_exact(name, wanted):
            yield Check(name, _error(name, wanted, computed[name]), _bound(folder, name, wanted))
        else:
            error = np.linalg.norm(_difference(name, wanted, computed[name]))
            yield Check(name, float(error), _bfloat16_bound(np.linalg.norm, wanted, float32.get(name)))


def _is_exact(name: str, wanted: np.ndarray) -> bool:
    return wanted.dtype.kind in "biu" or _is_choice(name) or name.startswith("eos/")


def _is_choice(name: str) -> bool:
    return name in ("sample_tokens", "sample_tokens_temp1", "decode/step_tokens")


def _step_bound(folder: GoldenFolder, precision: str, float32: dict[str, np.ndarray]) -> float:
    """For the steps of decoding in bfloat16: twice the bound of a logit, since margins are differences of two.

    The float32 run is no measure there: it may have taken other tokens.
    """
    name = "decode/prefix_last_logits"
    return 2 * _bfloat16_bound(_largest, folder.outputs(precision)[name], float32.get(name))


def _error(name: str, wanted: np.ndarray, computed: np.ndarray) -> float:
    return _largest(_difference(name, wanted, computed))


def _difference(name: str, wanted: np.ndarray, computed: np.ndarray) -> np.ndarray:
    got = np.asarray(computed).astype(np.float64)
    if got.shape != wanted.shape:
        raise ValueError(f"{name} has shape {got.shape}; the golden one has {wanted.shape}.")
    return got - wanted.astype(np.float64)


def _largest(array: np.ndarray) -> float:
    return float(np.abs(array).max(initial=0.0))


def _bound(folder: GoldenFolder, name: str, wanted: np.ndarray) -> float:
    if _is_exact(name, wanted):
        return 0.0
    kind = {"pi0": ModelType.PI0, "pi05": ModelType.PI05}.get(folder.meta["spec"]["kind"])
    if name.startswith("sample_") and kind is not None:
        return SAMPLE_BOUND[kind]
    return _INNER_BOUND * max(1.0, _largest(wanted))


def _bfloat16_bound(size: Callable[[np.ndarray], Any], wanted: np.ndarray, float32: np.ndarray | None) -> float:
    """In the measure `size` of an array."""
    smallest = _BFLOAT16_RELATIVE * float(size(wanted))
    if float32 is None:
        return smallest
    return max(smallest, _BFLOAT16_SLACK * float(size(wanted.astype(np.float64) - float32)))
