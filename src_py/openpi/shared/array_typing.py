"""Shapes and dtypes in signatures, checked when a function is called.

    @at.typecheck
    def mean_over_time(x: at.Float[at.Array, "b t d"]) -> at.Float[at.Array, "b d"]: ...

`Array` is a JAX, NumPy or (where torch is installed) torch array. Under `jax.jit` the checks run once, while tracing,
and cost nothing afterwards.
"""

import contextlib
import functools
import importlib.util
import inspect
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import beartype
import jax
import jaxtyping
import numpy as np
from jaxtyping import Bool, DTypeLike, Float, Int, Key, Num, PyTree, Real, Shaped, UInt8, config

__all__ = [
    "Array",
    "ArrayLike",
    "Bool",
    "DTypeLike",
    "Float",
    "Int",
    "Key",
    "KeyArrayLike",
    "Num",
    "Params",
    "PyTree",
    "Real",
    "Shaped",
    "UInt8",
    "check_pytree_equality",
    "disable_typechecking",
    "typecheck",
]

if TYPE_CHECKING:
    # The libraries' arrays have too little in common for a type checker; shapes and dtypes are checked at run time.
    Array: TypeAlias = Any
    ArrayLike: TypeAlias = Any
    KeyArrayLike: TypeAlias = Any
    Params: TypeAlias = Any
else:
    from jaxtyping import ArrayLike

    Array = jax.Array | np.ndarray
    if importlib.util.find_spec("torch") is not None:
        import torch

        Array = Array | torch.Tensor
    # A random key of either kind: `jax.random.key` (a typed key) or `jax.random.PRNGKey` (two uint32 numbers).
    KeyArrayLike = Key[ArrayLike, ""] | jaxtyping.UInt32[ArrayLike, "2"]
    # Model parameters: nested dicts of arrays.
    Params = PyTree[Shaped[ArrayLike, "..."]]

T = TypeVar("T")


def typecheck(t: T) -> T:
    """Check the annotated shapes and dtypes of a function's arguments and result, or of a dataclass's fields.

    A dataclass that JAX rebuilds while it maps or traces a pytree is left alone.
    """
    if not inspect.isclass(t):
        return jaxtyping.jaxtyped(t, typechecker=beartype.beartype)  # type: ignore[call-overload]
    plain_init = t.__init__
    checked: Any = jaxtyping.jaxtyped(t, typechecker=beartype.beartype)
    checked_init = checked.__init__

    @functools.wraps(plain_init)
    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        (plain_init if config.jaxtyping_disable or _called_by_jax() else checked_init)(self, *args, **kwargs)

    checked.__init__ = init
    return checked


def _called_by_jax() -> bool:
    """Whether JAX or Flax makes the object, to rebuild a pytree: its leaves may be anything they need just then."""
    caller = sys._getframe(2).f_globals.get("__name__", "")
    return caller == "flax.struct" or caller.startswith("jax.")


@contextlib.contextmanager
def disable_typechecking() -> Iterator[None]:
    """Switch all `typecheck` checks off inside a `with` block."""
    before = config.jaxtyping_disable
    config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        config.update("jaxtyping_disable", before)


def check_pytree_equality(
    *, expected: PyTree, got: PyTree, check_shapes: bool = False, check_dtypes: bool = False
) -> None:
    """Check that two trees have the same keys and, if asked, leaves of the same shapes and dtypes.

    Raises:
        ValueError: names every path that is missing, not expected, or of another shape or dtype.
    """
    wanted, found = (dict(jax.tree_util.tree_leaves_with_path(tree)) for tree in (expected, got))
    problems = [f"{_path(path)} is missing" for path in wanted if path not in found]
    problems += [f"{_path(path)} is not expected" for path in found if path not in wanted]
    for path in wanted:
        if path in found:
            problems += _differences(_path(path), wanted[path], found[path], check_shapes, check_dtypes)
    if problems:
        raise ValueError(f"The trees differ in {len(problems)} places:\n  " + "\n  ".join(problems))
    structures: list[Any] = [jax.tree.structure(tree) for tree in (expected, got)]
    if structures[0] != structures[1]:
        raise ValueError(
            f"The trees have the same leaves in other containers: {structures[0]} was expected, not {structures[1]}."
        )


def _differences(name: str, wanted: Any, found: Any, check_shapes: bool, check_dtypes: bool) -> list[str]:
    problems = []
    if check_shapes and np.shape(wanted) != np.shape(found):
        problems.append(f"{name} has shape {np.shape(found)} instead of {np.shape(wanted)}")
    if check_dtypes and wanted.dtype != found.dtype:
        problems.append(f"{name} has dtype {found.dtype} instead of {wanted.dtype}")
    return problems


def _path(path: tuple[Any, ...]) -> str:
    return jax.tree_util.keystr(path)
