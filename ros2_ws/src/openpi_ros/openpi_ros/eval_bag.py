"""Open-loop evaluation of a policy on bags: openpi eval bag BAG ... --robot NAME --config CONFIG --dir CHECKPOINT."""

import base64
import dataclasses
import html
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
from rich.console import Console
from rich.progress import track
from rich.table import Table

from openpi_client.base_policy import BasePolicy
from openpi_ros.bag_reading import Bag
from openpi_runtime import demonstrations
from openpi_runtime.robots import RobotSpec, load_robot

_STYLE = "body{font:15px sans-serif;max-width:70em;margin:2em auto;color:#223}td,th{padding:.2em 1em .2em 0}"
_CONNECT_S = 30.0


@dataclasses.dataclass(frozen=True)
class Args:
    """Asks a policy what it would have done, and compares that with what was done. Writes report.json and report.html.

    Attributes:
        bags: one an episode: what `record:=BAG` or `ros2 bag record` has written.
        robot: whose bags they are; a name in config/robots, or FILE.yaml.
        config, dir: training config and checkpoint of a policy in this process; without a checkpoint random weights.
        host, port: of a policy server, asked where no config is given.
        every: steps between two questions; the robot's executed steps where this is not given.
        task: what the robot was asked to do; empty takes the prompt in the bag, or the robot's default.
        namespace: of the robot's topics; found where it is not given.
        out: folder of the report.
    """

    bags: Annotated[tuple[Path, ...], tyro.conf.Positional]
    robot: str = "aloha"
    config: str = ""
    dir: str = ""
    host: str = "127.0.0.1"
    port: int = 8000
    every: int | None = None
    task: str = ""
    namespace: str | None = None
    out: Path = Path("out/eval_bag")


@dataclasses.dataclass(frozen=True)
class Comparison:
    """One bag: what was done, and what the policy would have done.

    Attributes:
        recorded: [t, a] actions as policies predict them.
        asked: steps at which the policy was asked. predicted: its chunks [h, a].
    """

    name: str
    recorded: np.ndarray
    asked: list[int]
    predicted: list[np.ndarray]

    def errors(self) -> Iterator[np.ndarray]:
        """[k, a] absolute differences of each chunk, for as many steps as were recorded."""
        for step, chunk in zip(self.asked, self.predicted, strict=True):
            done = self.recorded[step : step + len(chunk)]
            yield np.abs(chunk[: len(done)] - done)


def main(args: Args) -> int:
    """Run `openpi eval bag`."""
    if not args.bags:
        raise ValueError("Name the bags to evaluate.")
    robot = load_robot(args.robot)
    policy = _policy(args)
    tracked = track(args.bags, "Evaluating", console=Console(stderr=True), transient=True)
    comparisons = [compare(policy, bag, robot, args) for bag in tracked]
    figures = summarise(robot, comparisons)
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "report.json").write_text(json.dumps(figures, indent=1) + "\n")
    (args.out / "report.html").write_text(_page(robot, figures, comparisons))
    _show(figures)
    print(f"{args.out}/report.html")
    return 0


def compare(policy: BasePolicy, path: Path, robot: RobotSpec, args: Args) -> Comparison:
    """Asks the policy along one bag.

    Raises:
        ValueError: the bag has a gap, or the policy's actions are not the robot's.
    """
    with Bag(path, robot, args.namespace) as bag:
        try:
            steps = demonstrations.align(robot, bag.state(), bag.cameras(), bag.commands(), fps=robot.rate_hz)
        except ValueError as error:
            raise ValueError(f"The bag {path} cannot be evaluated: {error}.") from error
        asked = list(range(0, len(steps.times_ns), args.every or robot.executed_steps))
        task = args.task or bag.prompt() or robot.default_prompt
        sights = bag.pictures({camera: numbers[asked] for camera, numbers in steps.pictures.items()})
        predicted = [
            _asked(policy, robot, robot.observation.observation(steps.states[step], pictures, task))
            for step, pictures in zip(asked, sights, strict=True)
        ]
    recorded = demonstrations.robot_actions(robot, steps)
    return Comparison(name=path.name, recorded=recorded, asked=asked, predicted=predicted)


def summarise(robot: RobotSpec, comparisons: list[Comparison]) -> dict[str, Any]:
    """Mean and largest error by action column in its own unit, and the mean over all columns by step of the chunk."""
    errors = [error for comparison in comparisons for error in comparison.errors()]
    all_steps = np.concatenate(errors)
    columns = {
        column.name: {"mean": float(mean), "largest": float(largest)}
        for column, mean, largest in zip(robot.action, all_steps.mean(axis=0), all_steps.max(axis=0), strict=True)
    }
    by_step = [float(np.mean([e[step] for e in errors if len(e) > step])) for step in range(max(map(len, errors)))]
    return {"bags": len(comparisons), "chunks": len(errors), "columns": columns, "by_step": by_step}


def _policy(args: Args) -> BasePolicy:
    if not args.config:
        from openpi_client.async_client import ClientOptions
        from openpi_client.websocket_client_policy import WebsocketClientPolicy

        return WebsocketClientPolicy(args.host, args.port, options=ClientOptions(connect_timeout_s=_CONNECT_S))
    from openpi.policies import policy_config
    from openpi.training import config as training_config

    config = training_config.get_config(args.config)
    if not args.dir:
        return policy_config.create_random_policy(config)
    return policy_config.create_trained_policy(config, args.dir)


def _asked(policy: BasePolicy, robot: RobotSpec, observation: dict[str, Any]) -> np.ndarray:
    actions = np.asarray(policy.infer(observation)["actions"], np.float64)
    if actions.ndim != 2 or actions.shape[1] != len(robot.action):
        shape = " x ".join(map(str, actions.shape))
        raise ValueError(f"The policy answers {shape} values; robot {robot.name} has {len(robot.action)} actions.")
    return actions


def _show(figures: dict[str, Any]) -> None:
    table = Table("action", "mean error", "largest", box=None)
    for name, error in figures["columns"].items():
        table.add_row(name, f"{error['mean']:.4f}", f"{error['largest']:.4f}")
    Console().print(table)


def _page(robot: RobotSpec, figures: dict[str, Any], comparisons: list[Comparison]) -> str:
    cells = "".join(
        f"<tr><td>{html.escape(name)}</td><td>{error['mean']:.4f}</td><td>{error['largest']:.4f}</td></tr>"
        for name, error in figures["columns"].items()
    )
    plots = "".join(f"<h2>{html.escape(one.name)}</h2>{_plot(robot, one)}" for one in comparisons)
    return (
        f'<!doctype html><meta charset="utf-8"><title>openpi eval bag</title><style>{_STYLE}</style>'
        f"<h1>{html.escape(robot.description or robot.name)}: done and predicted</h1>"
        f"<table><tr><th>action</th><th>mean error</th><th>largest</th></tr>{cells}</table>{plots}"
    )


def _plot(robot: RobotSpec, comparison: Comparison) -> str:
    """Each action column: what was done (black), and every chunk from where it was asked for."""
    from matplotlib.figure import Figure

    rows = -(-len(robot.action) // 2)
    figure = Figure(figsize=(12, 1.8 * rows), layout="constrained")
    for axis, column, number in zip(
        figure.subplots(rows, 2, squeeze=False).flat, robot.action, range(99), strict=False
    ):
        axis.plot(comparison.recorded[:, number], color="black", linewidth=1)
        for step, chunk in zip(comparison.asked, comparison.predicted, strict=True):
            axis.plot(np.arange(step, step + len(chunk)), chunk[:, number], linewidth=0.7)
        axis.set_title(column.name, fontsize=8)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=80)
    return f'<img src="data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}">'
