"""Measure one call of sample_actions, tiny and full size: time and memory."""

import functools
import json
import resource
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from openpi.models.model import BaseModel, BaseModelConfig

SIZES = ("tiny", "pi0", "pi05")


@dataclass(frozen=True)
class Args:
    """What to measure; each size in turn, smallest first, since peak memory is that of the whole process so far."""

    sizes: tuple[str, ...] = ("tiny", "pi0")
    """tiny: Gemma variants "dummy", SigLIP Ti/16. pi0, pi05: full size, 3.2 and 3.4 billion parameters."""
    calls: int = 3
    """Measured calls, after the first one."""
    num_steps: int = 10
    """Flow steps."""
    rtc: bool = False
    """Also with the guidance of real-time chunking, both modes."""
    json: Path | None = None
    """File for the figures."""

    def __post_init__(self) -> None:
        if unknown := sorted(set(self.sizes) - set(SIZES)):
            raise ValueError(f"There are no sizes {', '.join(unknown)}; there are {', '.join(SIZES)}.")


@dataclass(frozen=True)
class Figures:
    """One row: seconds and gigabytes (1e9 bytes)."""

    model: str
    parameters: int
    parameter_gb: float
    first_call_s: float
    call_s: float
    peak_memory_gb: float


def main(args: Args) -> int:
    """Measure, print a table, write JSON."""
    import rich

    rows = [row for size in args.sizes for row in measure(size, args)]
    rich.print(_table(rows))
    if args.json:
        args.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    return 0


def measure(size: str, args: Args) -> list[Figures]:
    """One size with random bfloat16 parameters, batch 1."""
    import jax
    import jax.numpy as jnp
    from flax import nnx

    from openpi.shared import nnx_utils

    config = _config(size)
    model = _random_model(config)
    leaves = jax.tree.leaves(nnx.state(model))
    sample = nnx_utils.module_jit(model.sample_actions)
    rng, observation = jax.random.key(0), config.fake_obs()
    previous = jnp.zeros((1, config.action_horizon, config.action_dim))
    ways: dict[str, dict[str, Any]] = {"": {}}
    if args.rtc:
        ways |= {
            f" rtc {mode}": {"prev_actions": previous, "delay": 5, "rtc_mode": mode} for mode in ("vjp", "residual")
        }
    rows = []
    for name, arguments in ways.items():
        call = functools.partial(sample, rng, observation, num_steps=args.num_steps, **arguments)
        times = _times(call, args.calls)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        count, size_in_bytes = sum(leaf.size for leaf in leaves), sum(leaf.nbytes for leaf in leaves)
        median = sorted(times[1:])[len(times[1:]) // 2]
        rows.append(Figures(size + name, count, size_in_bytes / 1e9, times[0], median, peak / 1e9))
    return rows


def _config(size: str) -> "BaseModelConfig":
    from openpi.models.pi0_config import Pi0Config

    if size == "tiny":
        return Pi0Config(
            paligemma_variant="dummy", action_expert_variant="dummy", vision_variant="Ti/16", vocab_size=2048
        )
    return Pi0Config(pi05=size == "pi05")


def _random_model(config: "BaseModelConfig") -> "BaseModel":
    """Never holds a float32 copy: one block of random numbers, repeated, fills every parameter."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    from flax import nnx

    block = (0.02 * np.random.default_rng(0).normal(size=1_000_003)).astype(jnp.bfloat16)
    graphdef, shapes = nnx.split(nnx.eval_shape(config.create, jax.random.key(0)))
    return nnx.merge(graphdef, jax.tree.map(lambda x: jnp.asarray(np.resize(block, x.shape)), shapes))


def _times(call: Callable[[], Any], calls: int) -> list[float]:
    import jax

    times = []
    for _ in range(1 + calls):
        start = time.perf_counter()
        jax.block_until_ready(call())
        times.append(time.perf_counter() - start)
    return times


def _table(rows: list[Figures]) -> Any:
    from rich.table import Table

    table = Table("model", "parameters", "parameters GB", "first call s", "call s", "peak memory GB")
    for row in rows:
        table.add_row(
            row.model,
            f"{row.parameters:,}",
            f"{row.parameter_gb:.2f}",
            f"{row.first_call_s:.2f}",
            f"{row.call_s:.3f}",
            f"{row.peak_memory_gb:.1f}",
        )
    return table
