"""Where arrays live when there are several devices: one mesh of data parallel times fully sharded (FSDP) devices.

The batch is split over every device. Parameters are split over the FSDP axis only, so each group of
`num_fsdp_devices` devices holds one copy of the model.
"""

import contextlib
import logging
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

logger = logging.getLogger(__name__)

BATCH_AXIS = "batch"
FSDP_AXIS = "fsdp"
# The batch dimension of data and activations lies over both.
DATA_AXIS = (BATCH_AXIS, FSDP_AXIS)

_active_meshes: list[Mesh] = []


def make_mesh(num_fsdp_devices: int) -> Mesh:
    """All devices as [devices / num_fsdp_devices, num_fsdp_devices], axes BATCH_AXIS and FSDP_AXIS.

    Raises:
        ValueError: the number of devices is no multiple of num_fsdp_devices.
    """
    count = jax.device_count()
    if num_fsdp_devices < 1 or count % num_fsdp_devices:
        divisors = [n for n in range(1, count + 1) if count % n == 0]
        raise ValueError(
            f"The {count} devices cannot be split into groups of fsdp_devices={num_fsdp_devices}; "
            f"set fsdp_devices to one of {divisors}."
        )
    shape = (count // num_fsdp_devices, num_fsdp_devices)
    return jax.make_mesh(shape, DATA_AXIS, axis_types=(AxisType.Auto, AxisType.Auto))


@contextlib.contextmanager
def set_mesh(mesh: Mesh) -> Iterator[None]:
    """Within the block, `activation_sharding_constraint` spreads activations over `mesh`.

    Raises:
        ValueError: a mesh is set already.
    """
    if _active_meshes:
        raise ValueError("A mesh is set already; leave its `with set_mesh(...)` block before setting another one.")
    _active_meshes.append(mesh)
    try:
        yield
    finally:
        _active_meshes.pop()


def activation_sharding_constraint(pytree: Any) -> Any:
    """Ask the compiler to keep the leading (batch) axis split over all devices; no effect without a mesh."""
    if not _active_meshes:
        return pytree
    return jax.lax.with_sharding_constraint(pytree, NamedSharding(_active_meshes[-1], PartitionSpec(DATA_AXIS)))


def fsdp_sharding(pytree: Any, mesh: Mesh, *, min_size_mbytes: int = 4, log: bool = False) -> Any:
    """A sharding for each leaf: the largest axis that the FSDP axis divides is split, the rest replicated.

    Vectors, scalars and arrays below `min_size_mbytes` MiB are replicated: splitting them costs more in
    communication than it saves in memory.

    Args:
        pytree: arrays or `jax.ShapeDtypeStruct`s.
        log: log each decision, parameters by path.
    """

    def shard(path: Any, leaf: Any) -> NamedSharding:
        spec = _partition(leaf, mesh.shape[FSDP_AXIS], min_size_mbytes * 2**20)
        if log:
            _log_decision(jax.tree_util.keystr(path), leaf, spec)
        return NamedSharding(mesh, spec)

    return jax.tree_util.tree_map_with_path(shard, pytree)


def _partition(leaf: Any, num_shards: int, min_bytes: int) -> PartitionSpec:
    shape = getattr(leaf, "shape", ())
    if num_shards == 1 or len(shape) < 2 or _num_bytes(leaf) < min_bytes:
        return PartitionSpec()
    by_size = sorted(range(len(shape)), key=lambda axis: shape[axis], reverse=True)
    for axis in by_size:
        if shape[axis] % num_shards == 0:
            return PartitionSpec(*(FSDP_AXIS if i == axis else None for i in range(len(shape))))
    return PartitionSpec()


def _num_bytes(leaf: Any) -> int:
    return int(np.prod(leaf.shape)) * leaf.dtype.itemsize


def _log_decision(name: str, leaf: Any, spec: PartitionSpec) -> None:
    logger.info("%s %s: %s", name, getattr(leaf, "shape", ()), f"split as {spec}" if any(spec) else "replicated")
