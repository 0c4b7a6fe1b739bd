"""Say what is wrong with an installation or a running graph, and what to do about it."""

import dataclasses
import json
from collections.abc import Iterator

from rich.console import Console

from openpi_ros.installation_checkup import installation_findings
from openpi_runtime.findings import Finding, Level
from openpi_runtime.robot_facts import robot_facts
from openpi_runtime.robots import load_robot

_COLOURS = {Level.OK: "green", Level.WARN: "yellow", Level.ERROR: "red"}


@dataclasses.dataclass(frozen=True)
class Args:
    """Looks at the installation, then listens to the robot's topics and nodes. Exit status 1 if anything is an ERROR.

    Attributes:
        robot: whose topics; a name in config/robots, or FILE.yaml.
        namespace: of the robot.
        seconds: how long to listen.
        graph: whether to listen at all; --no-graph looks at the installation only.
        json: print JSON instead of lines.
    """

    robot: str = "aloha"
    namespace: str = ""
    seconds: float = 3.0
    graph: bool = True
    json: bool = False


def main(args: Args) -> int:
    """Run `openpi doctor`."""
    console = Console(soft_wrap=True, highlight=False)
    found = []
    for finding in _findings(args):
        found.append(finding)
        if not args.json:
            _show(console, finding)
    if args.json:
        print(json.dumps([dataclasses.asdict(finding) | {"level": finding.level.value} for finding in found], indent=2))
    return int(any(finding.level is Level.ERROR for finding in found))


def _findings(args: Args) -> Iterator[Finding]:
    robot = load_robot(args.robot)
    yield from installation_findings(robot)
    try:
        robot_facts(robot)
    except (ValueError, OSError) as error:
        advice = "Correct the robot's YAML or its URDF."
        yield Finding(level=Level.ERROR, subject=f"robot {robot.name}", text=str(error), advice=advice)
    else:
        yield Finding(level=Level.OK, subject=f"robot {robot.name}", text="description and URDF fit")
    if args.graph:
        from openpi_ros.graph_checkup import graph_findings  # rclpy takes its time

        yield from graph_findings(robot, args.namespace, args.seconds)


def _show(console: Console, finding: Finding) -> None:
    mark = f"[{_COLOURS[finding.level]}]{finding.level.value:5}[/]"
    advice = f" {finding.advice}" if finding.advice else ""
    console.print(f"{mark} {finding.subject}: ", end="")
    console.print(f"{finding.text}.{advice}", markup=False)
