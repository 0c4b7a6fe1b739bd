"""Write a LeRobot data set from bags: openpi convert bag-to-lerobot BAG ... --output DIR --robot aloha."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich.console import Console
from rich.progress import track

from openpi.training.datasets.writer import LeRobotWriter
from openpi_ros.bags.run import RecordedRun
from openpi_runtime.robots import RobotSpec, load_robot


@dataclasses.dataclass(frozen=True)
class Args:
    """Each stretch of a bag in which cameras, joints and commands are all there becomes an episode.

    Attributes:
        bags: folders of bags, recorded by `record:=FOLDER` or `ros2 bag record`.
        output: folder of the data set.
        robot: whose bags they are; a name in config/robots, or FILE.yaml.
        task: what the robot is asked to do; empty takes the prompt in the bag, or the robot's default.
        fps: frames per second; the robot's rate where this is not given.
        namespace: of the robot in the bags.
        version: of the data set.
        resume: append to a data set that is there.
    """

    bags: Annotated[tuple[Path, ...], tyro.conf.Positional]
    output: Path
    robot: str = "aloha"
    task: str = ""
    fps: float | None = None
    namespace: str = ""
    version: Literal["v2.1", "v3.0"] = "v3.0"
    resume: bool = False


def main(args: Args) -> int:
    """Run `openpi convert bag-to-lerobot`."""
    robot = load_robot(args.robot)
    runs = [_open(bag, robot, args) for bag in args.bags]
    first = next((run for run in runs if run.episodes), None)
    if first is None:
        raise ValueError("No bag has a stretch in which cameras, joints and commands of the robot are all there.")
    features = _features(robot, next(first.frames(first.episodes[0])).images)
    console = Console(stderr=True)
    with LeRobotWriter(
        args.output,
        fps=args.fps or robot.rate_hz,
        features=features,
        version=args.version,
        robot_type=robot.name,
        resume=args.resume,
    ) as writer:
        for run in track(runs, "Converting", console=console, transient=True):
            _write(writer, run, args.task or run.prompt or robot.default_prompt)
        print(f"{writer.num_episodes} episodes, {writer.num_frames} frames in {args.output}")
    return 0


def _open(bag: Path, robot: RobotSpec, args: Args) -> RecordedRun:
    if not bag.exists():
        raise FileNotFoundError(f"There is no bag {bag}.")
    return RecordedRun(bag, robot, fps=args.fps, namespace=args.namespace)


def _features(robot: RobotSpec, images: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    vectors = {"observation.state": robot.state_names, "action": robot.action_names}
    features: dict[str, dict[str, Any]] = {
        key: {"dtype": "float32", "shape": (len(names),), "names": list(names)} for key, names in vectors.items()
    }
    for camera, image in images.items():
        names = ["height", "width", "channel"]
        features[f"observation.images.{camera}"] = {"dtype": "video", "shape": image.shape, "names": names}
    return features


def _write(writer: LeRobotWriter, run: RecordedRun, task: str) -> None:
    for episode in run.episodes:
        for frame in run.frames(episode):
            images = {f"observation.images.{camera}": image for camera, image in frame.images.items()}
            writer.add_frame({"observation.state": frame.state, "action": frame.action, **images}, task=task)
        writer.save_episode()
