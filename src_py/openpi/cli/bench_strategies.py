"""Compare the strategies that join chunks, in simulated time with injected delays: jumps, jerk, starved ticks.

Two policies: a pi0 of 0.5 million parameters trained here on the scripted expert (two modes, so that neighbouring
chunks disagree), and the expert itself with an offset per chunk, for the success of the task.
"""

import dataclasses
from pathlib import Path

import jax
import numpy as np
from flax import nnx
from rich.console import Console

from openpi.strategy_study import comparison, small_policy
from openpi_sim.aloha.world import AlohaWorld

_SEEDED_TICKS = 300  # six seconds of the model's episodes


@dataclasses.dataclass(frozen=True)
class Args:
    """What to compare.

    Attributes:
        episodes: for each strategy and delay.
        train_steps: of the small pi0; 0 leaves it out.
        demonstrations: episodes it is trained on.
        weights: file its parameters are kept in, and read from where it exists.
        out: folder for strategies.json and strategies.png.
    """

    episodes: int = 2
    train_steps: int = 1500
    demonstrations: int = 60
    weights: Path = Path("out/strategies/weights.npz")
    out: Path = Path("out/strategies")


def main(args: Args) -> int:
    """Trains (or reads) the model, runs everything, prints the table."""
    console = Console(stderr=True)
    rows = comparison.compare_expert(args.episodes, console.print)
    if args.train_steps:
        rows += compare_model(args, console)
    comparison.save_table(rows, args.out / "strategies.json")
    comparison.plot(rows, args.out / "strategies.png")
    print(comparison.table(rows))
    return 0


def compare_model(args: Args, console: Console) -> list[comparison.Row]:
    """The trained pi0 with every strategy at every delay."""
    data = small_policy.make_dataset(args.demonstrations)
    graph, params = _weights(args, data, console)
    policy = small_policy.SmallPolicy(graph, params, data, seed=0)

    def make(world: AlohaWorld, episode: int) -> small_policy.SmallPolicy:
        policy.reseed(episode)
        return policy

    return comparison.compare("small pi0", make, _SEEDED_TICKS, args.episodes, False, console.print)


def _weights(args: Args, data: small_policy.Dataset, console: Console) -> tuple[nnx.GraphDef, nnx.State]:
    if not args.weights.is_file():
        graph, params = small_policy.train(data, args.train_steps, console.print)
        args.weights.parent.mkdir(parents=True, exist_ok=True)
        np.savez(args.weights, *[np.asarray(leaf) for leaf in jax.tree.leaves(params)])
        return graph, params
    graph, params = nnx.split(small_policy.small_config().create(jax.random.key(0)))
    with np.load(args.weights) as saved:
        leaves = [saved[name] for name in saved.files]
    return graph, jax.tree.unflatten(jax.tree.structure(params), leaves)
