"""Small helpers around Flax NNX modules and their states."""

import functools
import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import jax
from flax import nnx

F = TypeVar("F", bound=Callable[..., Any])


def static_argnames(*names: str) -> Callable[[F], F]:
    """Mark keyword arguments of a method that `module_jit` must compile in (they decide shapes or branches)."""

    def mark(method: F) -> F:
        method.static_argnames = names  # type: ignore[attr-defined]
        return method

    return mark


def module_jit(meth: Callable[..., Any], *jit_args: Any, **jit_kwargs: Any) -> Callable[..., Any]:
    """`jax.jit` for a bound method of an NNX module.

    The module's parameters are frozen at this call and handed to the compiled function as arguments, so they are
    neither copied into the program as constants nor split and merged on every call. Later changes to the module are
    not seen.

    Args:
        meth: a bound method, like `model.sample_actions`.
        jit_args, jit_kwargs: handed to `jax.jit`; keyword arguments that `meth` marks with `static_argnames` are
            static in any case.
    """
    if not (inspect.ismethod(meth) and isinstance(meth.__self__, nnx.Module)):
        raise ValueError(f"module_jit needs a bound method of an nnx.Module, like model.sample_actions, not {meth!r}.")
    graphdef, variables = nnx.split(meth.__self__)
    state = jax.tree.map(lambda x: x, variables)  # other variables with the same arrays: the module's may change
    given = jit_kwargs.pop("static_argnames", ())
    static = {*getattr(meth, "static_argnames", ()), *([given] if isinstance(given, str) else given)}

    def run(state: nnx.State, *args: Any, **kwargs: Any) -> Any:
        return meth.__func__(nnx.merge(graphdef, state), *args, **kwargs)

    jitted = jax.jit(run, *jit_args, static_argnames=tuple(static), **jit_kwargs)

    @functools.wraps(meth)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return jitted(state, *args, **kwargs)

    return wrapper


@dataclass(frozen=True)
class PathRegex:
    """An NNX filter: true for a variable whose whole path, its parts joined by `sep`, matches `pattern`."""

    pattern: str | re.Pattern[str]
    sep: str = "/"

    def __post_init__(self) -> None:
        object.__setattr__(self, "pattern", re.compile(self.pattern))

    def __call__(self, path: tuple[Any, ...], x: Any) -> bool:
        """Whether the variable at `path` is selected; its value `x` does not matter."""
        return re.fullmatch(self.pattern, self.sep.join(map(str, path))) is not None


def state_map(state: nnx.State, filter: nnx.filterlib.Filter, fn: Callable[[Any], Any]) -> nnx.State:
    """Apply `fn` to the variables that `filter` selects; the others stay as they are."""
    selected = set(nnx.to_flat_state(state.filter(filter)).paths)
    return state.map(lambda path, variable: fn(variable) if path in selected else variable)
