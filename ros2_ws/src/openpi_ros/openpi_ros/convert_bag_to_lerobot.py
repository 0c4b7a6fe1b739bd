"""Turn bags into training data: openpi convert bag-to-lerobot BAG ... --output DIR --robot NAME [--codec ee]."""

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
from rich.console import Console
from rich.progress import track

from openpi.codecs import recordings
from openpi_ros.bag_reading import Bag
from openpi_runtime import demonstrations
from openpi_runtime.demonstrations import Demonstration
from openpi_runtime.robots import RobotSpec
from openpi_runtime.session_signals import ArmSignals


@dataclasses.dataclass(frozen=True)
class Args:
    """Options of `openpi convert bag-to-lerobot`."""

    bags: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Bags, one an episode: what `record:=BAG` or `ros2 bag record` has written."""
    output: Path
    """Folder of the LeRobot data set."""
    robot: str = "aloha"
    """Robot description: a name in config/robots, or the path of a YAML file."""
    codec: str | None = None
    """Write the columns of this codec (see `openpi serve-sessions`) instead of the robot's own."""
    fps: float | None = None
    """Steps per second; the robot's rate, or the codec's, where this is not given."""
    task: str = ""
    """What the robot was asked to do; where this is not given, the prompt in the bag, else the robot's default."""
    namespace: str | None = None
    """Of the robot's topics; found where it is not given."""
    max_age: float = 0.5
    """Refuse episodes with a gap longer than this in state or pictures, in seconds."""
    resume: bool = False
    """Add the bags to the data set that is in the folder already."""


@dataclasses.dataclass(frozen=True)
class Episode:
    """One bag's steps: `pictures` yields camera -> [H, W, 3], step by step, once."""

    demonstration: Demonstration
    pictures: Iterator[dict[str, np.ndarray]]
    task: str


def main(args: Args) -> int:
    """Convert every bag."""
    from openpi_runtime.robots import load_robot

    if not args.bags:
        raise ValueError("Name the bags to convert.")
    robot = load_robot(args.robot)
    number = _write_through_codec(args, robot) if args.codec else _write_columns(args, robot)
    print(f"{number} episodes in {args.output}")
    return 0


def _write_columns(args: Args, robot: RobotSpec) -> int:
    """The robot's own state and action, and its cameras by name. Returns the number of episodes."""
    from openpi.training.datasets import LeRobotWriter

    fps = args.fps or robot.rate_hz
    writer: Any = None
    with contextlib.ExitStack() as stack:
        for episode in _episodes(args, robot, fps):
            for frame in _frames(robot, episode):
                if writer is None:
                    features = _features(robot, frame)
                    made = LeRobotWriter(args.output, fps=fps, features=features, resume=args.resume)
                    writer = stack.enter_context(made)
                writer.add_frame(frame, task=episode.task)
            writer.save_episode()
        return writer.num_episodes


def _frames(robot: RobotSpec, episode: Episode) -> Iterator[dict[str, np.ndarray]]:
    actions = demonstrations.robot_actions(robot, episode.demonstration)
    for state, action, seen in zip(episode.demonstration.states, actions, episode.pictures, strict=True):
        images = {f"observation.images.{camera}": picture for camera, picture in seen.items()}
        yield {"observation.state": state, "action": action, **images}


def _features(robot: RobotSpec, frame: Mapping[str, np.ndarray]) -> dict[str, dict[str, Any]]:
    names = {"observation.state": robot.state_names, "action": robot.action_names}
    vectors = {key: {"dtype": "float32", "shape": [len(value)], "names": [*value]} for key, value in names.items()}
    axes = ["height", "width", "channels"]
    images = {
        key: {"dtype": "video", "shape": [*value.shape], "names": axes}
        for key, value in frame.items()
        if key not in vectors
    }
    return vectors | images


def _write_through_codec(args: Args, robot: RobotSpec) -> int:
    from openpi import codecs
    from openpi_runtime.robot_kinematics import robot_kinematics

    codec = codecs.get(args.codec or "")
    fps = args.fps or codec.fps
    arm = ArmSignals(robot, robot_kinematics(robot), codec.quaternion_order)
    found = (_recording(arm, one) for one in _episodes(args, robot, fps))
    return recordings.write(codec, found, args.output, fps, resume=args.resume)


def _recording(arm: ArmSignals, episode: Episode) -> dict[str, Any]:
    """An episode as codecs read it; pictures small, since all of them are held at a time."""
    from openpi.codecs import signals

    steps = episode.demonstration
    vectors = [arm.state(state) | arm.target(target) for state, target in zip(steps.states, steps.targets, strict=True)]
    images = [
        {name: signals.image({name: seen[camera]}, name) for name, camera in arm.cameras.items()}
        for seen in episode.pictures
    ]
    values = [vector | image for vector, image in zip(vectors, images, strict=True)]
    stacked = {name: np.stack([value[name] for value in values]) for name in values[0]}
    return {**stacked, recordings.TIME: (steps.times_ns - steps.times_ns[0]) / 1e9, signals.TASK: episode.task}


def _episodes(args: Args, robot: RobotSpec, fps: float) -> Iterator[Episode]:
    """Every bag's episode, open while it is looked at. Raises ValueError, naming the bag, where one has a gap."""
    for path in track(args.bags, "Converting", console=Console(stderr=True), transient=True):
        with Bag(path, robot, args.namespace) as bag:
            try:
                steps = demonstrations.align(
                    robot, bag.state(), bag.cameras(), bag.commands(), fps=fps, max_age_s=args.max_age
                )
            except ValueError as error:
                raise ValueError(f"The bag {path} cannot be converted: {error}.") from error
            task = args.task or bag.prompt() or robot.default_prompt
            yield Episode(demonstration=steps, pictures=bag.pictures(steps.pictures), task=task)
