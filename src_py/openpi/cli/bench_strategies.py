"""Compare the strategies that join chunks, in simulated time with injected delays: jumps, jerk, starved ticks.

Two policies: a small pi0 trained here on the scripted expert (two modes, so that neighbouring chunks disagree), and
the expert itself with an offset per chunk, for the success of the task. Some minutes on two cores.
"""

import dataclasses
from pathlib import Path

from rich.console import Console

from openpi.strategy_study import comparison, small_policy
from openpi_runtime.strategies import STRATEGIES
from openpi_sim.aloha.world import AlohaWorld

_TICKS = 300  # six seconds of the model's episodes, and of its demonstrations


@dataclasses.dataclass(frozen=True)
class Args:
    """What to compare.

    Attributes:
        episodes: of the small pi0, for each strategy and delay. expert_episodes: of the noisy expert.
        train_steps: of the small pi0; 0 leaves it out.
        demonstrations: episodes it is trained on.
        seed: of training and noise.
        out: folder for strategies.json and strategies.png.
    """

    episodes: int = 2
    expert_episodes: int = 8
    train_steps: int = 1600
    demonstrations: int = 50
    seed: int = 0
    out: Path = Path("out/strategies")


def main(args: Args) -> int:
    """Trains the model, runs everything, prints the table."""
    console = Console(stderr=True)
    rows = comparison.compare_expert(args.expert_episodes, args.seed, console.print)
    if args.train_steps:
        rows += compare_model(args, console)
    comparison.save_table(rows, args.out / "strategies.json")
    comparison.plot(rows, args.out / "strategies.png")
    print(comparison.table(rows))
    return 0


def compare_model(args: Args, console: Console) -> list[comparison.Row]:
    """The trained pi0 with every strategy at every delay; with rtc by guidance, and as it is trained for."""
    seen = small_policy.demonstrate(args.demonstrations, _TICKS, args.seed)
    scale = small_policy.Scale.of(seen)
    graph, params = small_policy.train(seen, scale, args.train_steps, args.seed, console.print)

    def contender(name: str, strategy: str, policy: small_policy.SmallPolicy) -> comparison.Contender:
        def make(world: AlohaWorld, episode: int) -> small_policy.SmallPolicy:
            policy.reseed(args.seed + episode)
            return policy

        return comparison.Contender(name=name, strategy=strategy, make_policy=make)

    guided = small_policy.SmallPolicy(graph, params, scale)
    trained = small_policy.SmallPolicy(graph, params, scale, rtc_mode="trained")
    contenders = [contender(name, name, guided) for name in STRATEGIES]
    contenders.append(contender("rtc, trained", "rtc", trained))
    return comparison.compare("small pi0", contenders, _TICKS, args.episodes, False, console.print)
