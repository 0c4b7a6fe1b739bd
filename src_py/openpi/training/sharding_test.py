import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec

from openpi.training import sharding

# Runs in a process of its own, as JAX counts its devices once.
ON_FOUR_DEVICES = """
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import PartitionSpec as P
from openpi.training import sharding

mesh = sharding.make_mesh(2)
assert dict(mesh.shape) == {"batch": 2, "fsdp": 2}, mesh
tree = {
    "large": jax.ShapeDtypeStruct((512, 1024, 4), jnp.float32),  # 8 MiB
    "odd": jax.ShapeDtypeStruct((1025, 2048), jnp.float32),
    "small": jax.ShapeDtypeStruct((8, 8), jnp.float32),
    "vector": jax.ShapeDtypeStruct((4_000_000,), jnp.float32),
    "step": 3,
}
specs = {name: s.spec for name, s in sharding.fsdp_sharding(tree, mesh, log=True).items()}
assert specs["large"] == P(None, "fsdp", None), specs
assert specs["odd"] == P(None, "fsdp"), specs
assert {specs[name] for name in ("small", "vector", "step")} == {P()}, specs
assert sharding.fsdp_sharding(tree, mesh, min_size_mbytes=0)["small"].spec == P("fsdp", None)

x = jnp.arange(32.0).reshape(8, 4)
with sharding.set_mesh(mesh):
    y = jax.jit(lambda x: sharding.activation_sharding_constraint(2 * x))(x)
assert y.sharding.spec == P(("batch", "fsdp")), y.sharding
np.testing.assert_array_equal(y, 2 * x)
try:
    sharding.make_mesh(3)
except ValueError as error:
    assert "[1, 2, 4]" in str(error), error
else:
    raise AssertionError("4 devices in groups of 3")
"""


def test_on_four_devices(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=4")
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    source = str(pathlib.Path(sharding.__file__).parents[2])
    monkeypatch.setenv("PYTHONPATH", source)
    done = subprocess.run([sys.executable, "-c", ON_FOUR_DEVICES], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_one_device_replicates_everything():
    mesh = sharding.make_mesh(1)
    tree = {"large": jax.ShapeDtypeStruct((4096, 4096), jnp.float32)}
    assert sharding.fsdp_sharding(tree, mesh)["large"].spec == PartitionSpec()


def test_constraint_without_a_mesh_changes_nothing():
    x = jnp.zeros(3)
    assert sharding.activation_sharding_constraint(x) is x


def test_meshes_do_not_nest():
    mesh = sharding.make_mesh(1)
    with sharding.set_mesh(mesh), pytest.raises(ValueError, match="set already"), sharding.set_mesh(mesh):
        pass
    with sharding.set_mesh(mesh):
        pass
