"""`make demo`: the simulated ALOHA through the whole stack, in separate processes over real DDS, with a report."""

import argparse
import os
import random
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from openpi_msgs.msg import ExecutorState
from rich.console import Console
from rich.live import Live
from rich.table import Table

from openpi_ros.commander import CommandError, PolicyCommander
from openpi_ros.episode_log import Episode, EpisodeLog
from openpi_ros.own_stack import OwnStack, StackEnded, running_stack
from openpi_ros.report import write_report
from openpi_runtime.modes import Mode
from openpi_runtime.robots import load_robot

EPISODE_S = 10.0  # simulated: the expert's script takes 8.4 s
SETTLED_S = 1.5  # a success that lasts so long, with the giving hand off the cube, ends the episode
POLICIES = ("expert", "local", "hold")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the demo; 0 only if every episode ran to its end."""
    args = _parse(argv)
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, _interrupt)
    os.environ.setdefault("ROS_DOMAIN_ID", str(random.randint(1, 100)))  # beside other robots and demos
    console = Console()
    try:
        with running_stack(["aloha", "sim:=true", f"policy:={args.policy}"], out / "stack.log") as stack:
            episodes, state = _run(args, stack, console)
    except KeyboardInterrupt:
        console.print("demo: stopped; everything it started has ended.")
        return 130
    except (CommandError, StackEnded) as error:
        console.print(f"demo: {error}\nThe nodes' output is in {stack.log}; its end:", style="bold")
        console.print(stack.tail(), markup=False, highlight=False)
        return 1
    summary = write_report(out, load_robot("aloha"), args.policy, episodes, state)
    console.print(
        f"{summary['successes']} of {summary['episodes']} episodes succeeded; "
        f"{summary['control_hz']:.1f} Hz, {summary['starved_ticks']} starved ticks. Report: {out / 'report.html'}"
    )
    return 0


def _run(args: argparse.Namespace, stack: OwnStack, console: Console) -> tuple[list[Episode], ExecutorState | None]:
    robot = load_robot("aloha")
    with PolicyCommander(use_sim_time=True) as commander:
        log = EpisodeLog(commander.node, robot, video=True)
        _bring_up(commander, log, stack)
        with Live(console=console, refresh_per_second=4) as live:
            seeds = range(args.seed, args.seed + args.episodes)
            episodes = [_run_episode(commander, log, stack, live, seed) for seed in seeds]
        return episodes, log.state


def _bring_up(commander: PolicyCommander, log: EpisodeLog, stack: OwnStack) -> None:
    stack.bring_up(commander, 120.0)
    # A chunk needs a policy, and a local one compiles first.
    commander.wait_for(lambda: stack.ended or commander.now() > 0, 30.0, "a tick of /clock")
    stack.check()


def _run_episode(commander: PolicyCommander, log: EpisodeLog, stack: OwnStack, live: Live, seed: int) -> Episode:
    commander.reset_simulation(seed)
    episode = log.begin(seed)
    since: float | None = None

    def over() -> bool:
        nonlocal since
        stack.check()
        live.update(_status(episode, log))
        since = (since or commander.now()) if log.success else None
        return since is not None and commander.now() - since > SETTLED_S

    try:
        commander.start()
        commander.wait_for(lambda: over() or bool(episode.jitter_ms), 120.0, "motion: the executor does not run")
        commander.run_for(EPISODE_S, until=over)
        commander.wait_for(lambda: log.state is not None and log.state.mode != Mode.RUNNING, 5.0, "stop")
    finally:
        log.end()
    episode.success = log.success
    if log.state is None or log.state.mode != Mode.IDLE:
        raise CommandError(f"the episode did not run to its end: {log.state.reason if log.state else 'no report'}")
    return episode


def _status(episode: Episode, log: EpisodeLog) -> Table:
    table = Table(title=f"ALOHA in simulation, seed {episode.seed}", show_header=False)
    state = log.state
    rows = {
        "mode": f"{Mode(state.mode).name} {state.reason}" if state else "-",
        "chunk": f"{state.chunk_id}, step {state.next_step}, {state.steps_left} left" if state else "-",
        "control": f"{episode.control_hz:.1f} Hz of simulated time, real-time factor {log.real_time_factor:.2f}",
        "inference": f"{episode.inference_ms[-1]:.1f} ms" if episode.inference_ms else "-",
        "pipeline": f"{episode.pipeline_ms[-1]:.1f} ms" if episode.pipeline_ms else "-",
        "starved, clamped ticks": f"{state.starved_ticks}, {state.clamped_ticks}" if state else "-",
        "reward": f"{log.reward:.0f} of 4" + (", success" if log.success else ""),
    }
    for name, value in rows.items():
        table.add_row(name, value)
    return table


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="openpi-demo", description=__doc__)
    parser.add_argument("--episodes", type=int, default=1)
    parser.add_argument("--policy", choices=POLICIES, default="expert")
    parser.add_argument("--seed", type=int, default=0, help="of the first episode; each next one adds one")
    parser.add_argument("--out", default="out/demo")
    args = parser.parse_args(argv)
    if args.episodes < 1:
        parser.error(f"--episodes is {args.episodes}; it must be at least 1.")
    return args


if __name__ == "__main__":
    sys.exit(main())
